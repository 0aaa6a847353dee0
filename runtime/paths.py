"""Paths as callers give them."""

from __future__ import annotations

import os
from typing import TypeAlias

PathLike: TypeAlias = "str | os.PathLike[str]"
