"""Paths as callers give them, and file names in the order people count."""

from __future__ import annotations

import os
import re
from typing import TypeAlias

PathLike: TypeAlias = "str | os.PathLike[str]"


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Sorting key under which `frame_2` comes before `frame_10`."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((0, int(part), part) if i % 2 else (1, 0, part.lower()) for i, part in enumerate(parts))
