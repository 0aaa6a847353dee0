"""The type of path arguments, natural sorting of file names, and showing names that are no UTF-8."""

from __future__ import annotations

import os
import re
from typing import TypeAlias

PathLike: TypeAlias = "str | os.PathLike[str]"
UNDECODED = re.compile("[\ud800-\udfff]")  # how Python holds bytes of a name that are no UTF-8: 0xe9 as U+DCE9


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """Returns a sorting key that puts `frame_2` before `frame_10`."""
    parts = re.split(r"([0-9]+)", name)
    return tuple((0, int(part), part) if i % 2 else (1, 0, part.lower()) for i, part in enumerate(parts))


def displayed(name: str) -> str:
    """Returns a file name as text that can be printed and encoded: bytes that are no UTF-8 as `\\xe9`."""
    return UNDECODED.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", name)
