"""What a view is shown, and what every view can do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Shown:
    """An object in a frame of h x w pixels.

    Attributes:
        name: for people, and the same in all frames.
        visible: bool [h, w]; None if it is not known.
        whole: bool [h, w].
        completed: uint8 [h, w, 3], RGB in which the whole object is drawn; None without.
        note: a few words, such as the status of its mask.
    """

    name: str
    visible: NDArray[np.bool_] | None
    whole: NDArray[np.bool_]
    completed: NDArray[np.uint8] | None = None
    note: str = ""


@dataclass(frozen=True)
class Moment:
    """A frame with what is known of it.

    Attributes:
        number: of the frame; numbers rise.
        stamp: seconds; stamps rise.
        frame: uint8 [h, w, 3], RGB.
        objects: those in the frame.
        depth: float32 [hd, wd] of any size, larger is nearer; None without.
        figures: what was measured, by name with its unit, such as `age (s)`.
    """

    number: int
    stamp: float
    frame: NDArray[np.uint8]
    objects: Sequence[Shown] = ()
    depth: NDArray[np.float32] | None = None
    figures: Mapping[str, float] = field(default_factory=dict)


class View(Protocol):
    """Something that shows moments, or writes them for showing."""

    name: str
    """The file that is written, below OUT; empty for a window."""

    def add(self, moment: Moment) -> None:
        """Shows a moment; its arrays may be used again afterwards."""

    def close(self) -> list[str]:
        """Finishes the file, which is readable from then on; returns sentences about what it leaves out."""


class Views:
    """Several views, or none, as one context. Leaving the block closes them, also after an error.

    Attributes:
        notes: what the views leave out, once they are closed.
    """

    def __init__(self, views: Sequence[View] = ()) -> None:
        self._views, self._closed = list(views), False
        self.notes: list[str] = []

    def __bool__(self) -> bool:
        return bool(self._views)

    @property
    def names(self) -> list[str]:
        """The files that are written."""
        return [view.name for view in self._views if view.name]

    def add(self, moment: Moment) -> None:
        """Hands a moment to all views."""
        for view in self._views:
            view.add(moment)

    def close(self) -> None:
        """Closes all views; calling it again does nothing."""
        if self._closed:
            return
        self._closed = True
        with ExitStack() as undo:  # closes the others if one cannot be closed
            for view in self._views:
                undo.callback(lambda one: self.notes.extend(one.close()), view)

    def __enter__(self) -> Views:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class Places:
    """Numbers names in the order in which they come, from 0: an object keeps its colour."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def of(self, name: str) -> int:
        """Returns the place of a name."""
        return self._places.setdefault(name, len(self._places))

    @property
    def names(self) -> list[str]:
        """All names so far."""
        return list(self._places)


def box_of(mask: NDArray[Any]) -> tuple[int, int, int, int] | None:
    """Returns (x, y, width, height) around the true pixels of bool [h, w]; None if there is none."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return None
    x, y = int(columns[0]), int(rows[0])
    return x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1
