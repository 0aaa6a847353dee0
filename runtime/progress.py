"""How far something is, as it is reported to whoever waits for it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called when something begins, and as it goes on."""

    def __call__(self, what: str, phase: str = "", done: int = 0, total: int | None = None) -> None:
        """Reports where things stand.

        Args:
            what: what is worked on: a component, a stage, a measurement.
            phase: what is done with it (`check`, `load`, `compile`); empty where its name says all.
            done: how much of it, in bytes or pieces.
            total: of how much; None where that is not known.
        """


def silent(what: str, phase: str = "", done: int = 0, total: int | None = None) -> None:
    """Reports nothing."""
