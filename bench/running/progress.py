"""How far a measurement is, as it is reported to whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with what is being done, how many of it are done, and of how many."""


def silent(what: str, done: int, total: int) -> None:
    """Reports nothing."""
