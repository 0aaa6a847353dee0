"""Names of frames, as files give them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from ...paths import natural_key


def file_name(path: str) -> str:
    """Returns the last part of a path as any system writes it, or of a URL."""
    return PurePosixPath(path.replace("\\", "/")).name


def are_frame_numbers(names: Iterable[str]) -> bool:
    """Returns whether all names are decimal numbers as a program counts frames: `7`, but not `00007`."""
    return all(re.fullmatch(r"0|[1-9][0-9]{0,8}", name) for name in names)


def order_names(names: Iterable[str]) -> dict[str, int]:
    """Returns the position of each name in natural order."""
    return {name: i for i, name in enumerate(sorted(set(names), key=natural_key))}
