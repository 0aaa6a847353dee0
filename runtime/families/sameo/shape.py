"""The settings of a run that decide its calls and its memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from typing_extensions import Self

from ...bundle.manifest import Manifest
from ...execution.run import Run
from .config import config_of


@dataclass(frozen=True)
class PictureRun(Run):
    """One picture and its boxes.

    Attributes:
        boxes: decoded in one call; None for the bundle's `boxes_at_once`.
        given: (h, w) of the picture; None for the bundle's size.
        on_gpu: whether a GPU runs it.
    """

    boxes: int | None = None
    given: tuple[int, int] | None = None
    on_gpu: bool = True

    @property
    def pictures(self) -> str:
        """The size of the picture, as messages name it; empty for the bundle's."""
        return "" if self.given is None else f"a picture of {self.given[0]}x{self.given[1]}"

    def smaller(self, manifest: Manifest) -> Iterator[Iterator[tuple[str, Self]]]:
        """Yields fewer boxes in one call."""
        most = self.boxes or config_of(manifest).boxes_at_once
        yield ((f"`batch={n}`", replace(self, boxes=n)) for n in range(most - 1, 0, -1))
