"""What readers, rules and predictions agree on: clips, predictions and data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.errors import InputError

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Clip:
    """A clip of T frames with one object; or, of image data sets, one image with N objects. Nothing is read before it
    is asked for.

    Attributes:
        id: unique in the data set, the same on every machine.
        keys: what the authors' results files call each frame, or each object of an image.
        size: (height, width) of the frames, in pixels.
        category: of the object, as the data set numbers it; None where it has none or the clip has several.
        sources: functions that read, by the name of the method.
        facts: what else a protocol needs, by name; each reader says what it gives.
        images: the files of the frames; empty where the reader knows none.
    """

    id: str
    keys: tuple[str, ...]
    size: tuple[int, int]
    category: int | None = None
    sources: Mapping[str, Callable[[], Any]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[Path, ...] = ()

    def rgb(self) -> NDArray[np.uint8]:
        """The frames, uint8 [T, H, W, 3] (one of an image), RGB."""
        return np.asarray(self._read("rgb"), np.uint8)

    def modal(self) -> Bools:
        """Visible masks, bool [T or N, H, W]."""
        return np.asarray(self._read("modal"), np.bool_)

    def depth(self) -> NDArray[np.float32] | None:
        """True depth, float32 [T, H, W], larger is farther; None if the data set has none."""
        return np.asarray(self.sources["depth"](), np.float32) if "depth" in self.sources else None

    def amodal(self) -> Bools:
        """Masks of the whole object inside the frame, bool [T or N, H, W]."""
        return np.asarray(self._read("amodal"), np.bool_)

    def boxes(self) -> Floats:
        """Boxes of the whole object, float64 [T or N, 4]: x, y, width, height in pixels, also beyond the frame."""
        return np.asarray(self._read("boxes"), np.float64)

    def _read(self, what: str) -> Any:
        if what not in self.sources:
            raise InputError(f"{self.id} has no {what}; its data set does not say it.")
        return self.sources[what]()


@dataclass(frozen=True)
class Prediction:
    """What was predicted for a clip with one seed.

    Attributes:
        masks: bool [T or N, h, w], or None where only boxes or detections are scored.
        boxes: float64 [T, 4], x, y, width and height in the frame's pixels, or None.
        detections: of a clip's images: dicts as in COCO's results files.
        results: by the clip's key, what goes to the results file in the authors' format.
    """

    masks: Bools | None = None
    boxes: Floats | None = None
    detections: list[dict[str, Any]] = field(default_factory=list)
    results: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Missing:
    """Something that a data set lacks: what, where users get it, and under which licence."""

    what: str
    where: str
    licence: str

    def __str__(self) -> str:
        return f"{self.what} is missing; get it from {self.where} (licence: {self.licence})."


class Dataset(Protocol):
    """A data set on disk."""

    def clips(self) -> Iterator[Clip]:
        """Yields the clips in the order of the annotations; raises `InputError` for annotations of another release."""
        ...

    def check(self) -> list[Missing]:
        """Lists what is missing; without a missing annotation file, `clips` works."""
        ...

    def annotations(self) -> list[Path]:
        """The files whose content decides what the clips and their truth are."""
        ...

    def about(self) -> dict[str, Any]:
        """What rules need besides the clips, such as the categories; it is kept with the results."""
        ...
