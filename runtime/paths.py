"""The type of path arguments, and natural sorting of file names."""

from __future__ import annotations

import os
import re
from typing import TypeAlias

PathLike: TypeAlias = "str | os.PathLike[str]"


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Returns a sorting key that puts `frame_2` before `frame_10`."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((0, int(part), part) if i % 2 else (1, 0, part.lower()) for i, part in enumerate(parts))
