"""The mask of one object in one frame, as files store it: checked and decoded when it is asked for.

All `ValueError`s say what is broken about the mask; whoever knows the file and the frame adds them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from ..pictures import describe_size
from ..rle import MAX_SIDE, decode_rle, read_size, rle_area

Size = tuple[int, int]
_FARTHEST = 1e6  # pixels; drawing routines walk along edges, and NaN or 1e30 would crash the process


class Segment(Protocol):
    """The mask of one object in one frame."""

    @property
    def expected(self) -> str:
        """What the segment should have been, for a message that it is broken."""
        ...

    def size(self) -> Size | None:
        """Returns the (height, width) that the mask itself states."""
        ...

    def is_empty(self, size: Size | None) -> bool:
        """Returns whether no pixel is set, in a picture of `size` where the mask states none."""
        ...

    def decode(self, size: Size | None) -> NDArray[np.bool_]:
        """Returns the mask, bool [H, W]; raises `ValueError`, `TypeError` or `OverflowError` if it is broken."""
        ...


@dataclass(frozen=True)
class CocoSegment:
    """What COCO allows as a `segmentation`: an RLE, compressed or not, or a list of polygons [x, y, x, y, ...].

    Attributes:
        stored: the RLE or the polygons.
        drawn_on: (height, width) of the image that polygons were drawn on, where the file states it.
    """

    stored: Any
    drawn_on: Size | None = None
    expected: ClassVar[str] = "COCO RLE or polygons"

    def size(self) -> Size | None:
        """Returns the size of an RLE, or of the image of polygons."""
        return read_size(self.stored) if isinstance(self.stored, dict) else self.drawn_on

    def is_empty(self, size: Size | None) -> bool:
        """Returns whether an RLE covers no pixel, which is known without decoding it, or polygons cover none."""
        if isinstance(self.stored, dict):
            return rle_area(self.stored) == 0
        size = self.drawn_on or size
        if self.stored and size is not None:
            return rle_area(_draw_polygons(self.stored, size)) == 0
        return not self.stored

    def decode(self, size: Size | None) -> NDArray[np.bool_]:
        """Decodes an RLE, or draws polygons in a picture of `size`; a list of none is an empty mask."""
        if isinstance(self.stored, dict):
            return decode_rle(self.stored)
        if not self.stored:
            return np.zeros(require_size(size, "an empty mask"), np.bool_)
        return decode_rle(_draw_polygons(self.stored, self.drawn_on or size))


@dataclass(frozen=True)
class Region:
    """Pixels of a rectangle whose top left corner is at (`top`, `left`) of a picture that may be of any size."""

    pixels: NDArray[np.bool_]
    top: int
    left: int
    expected: ClassVar[str] = "a mask within the image"

    def size(self) -> Size | None:
        """Returns None: a rectangle does not say how large the picture is."""
        return None

    def is_empty(self, size: Size | None) -> bool:
        """Returns whether no pixel of the rectangle is set."""
        return not self.pixels.any()

    def decode(self, size: Size | None) -> NDArray[np.bool_]:
        """Places the rectangle in a picture of `size`; raises `ValueError` if it lies partly outside."""
        mask = np.zeros(require_size(size, "a mask"), np.bool_)
        height, width = self.pixels.shape
        bottom, right = self.top + height, self.left + width
        if min(self.top, self.left) < 0 or bottom > mask.shape[0] or right > mask.shape[1]:
            place = f"from column {self.left} to {right} and row {self.top} to {bottom}"
            raise ValueError(f"it reaches {place} in a picture {describe_size(mask.shape)}")
        mask[self.top : bottom, self.left : right] = self.pixels
        return mask


@dataclass(frozen=True)
class Union:
    """Several segments of one object in one frame: together they are its mask."""

    parts: Sequence[Segment]

    @property
    def expected(self) -> str:
        """What each part should have been."""
        return self.parts[0].expected

    def size(self) -> Size | None:
        """Returns the first size that a part states."""
        return next((size for part in self.parts if (size := part.size()) is not None), None)

    def is_empty(self, size: Size | None) -> bool:
        """Returns whether all parts are empty."""
        return all(part.is_empty(size) for part in self.parts)

    def decode(self, size: Size | None) -> NDArray[np.bool_]:
        """Decodes the parts and joins them; raises `ValueError` if their sizes differ."""
        masks = [part.decode(size) for part in self.parts]
        if len({mask.shape for mask in masks}) > 1:
            raise ValueError("its parts are of different sizes")
        joined = np.zeros_like(masks[0])
        for mask in masks:
            joined |= mask
        return joined


def is_rle(value: Any) -> bool:
    """Returns whether a value of json is meant as an RLE."""
    return isinstance(value, dict) and "size" in value and "counts" in value


def require_size(size: Size | None, what: str) -> Size:
    """Returns `size`; raises `ValueError` if it is not known or not possible."""
    if size is None:
        raise ValueError(f"{what} without the size of the images")
    if not all(0 < n <= MAX_SIDE for n in size):
        raise ValueError(f"{what} in images {describe_size(size)}")
    return size


def read_points(values: Any) -> list[tuple[float, float]]:
    """Reads [[x, y], ...] in pixels; raises `ValueError` unless all are numbers near a picture."""
    if not isinstance(values, list) or not all(isinstance(p, list | tuple) and len(p) == 2 for p in values):
        raise ValueError("its points are not pairs of x and y")
    return [(_near(x), _near(y)) for x, y in values]


def _near(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{str(value)[:40]!r} is not a coordinate")
    if not (math.isfinite(value) and abs(value) <= _FARTHEST):
        raise ValueError("a polygon runs far outside the image")
    return float(value)


def _draw_polygons(polygons: Any, size: Size | None) -> Mapping[str, Any]:
    """Returns the RLE of polygons [[x, y, x, y, ...], ...], drawn as pycocotools does."""
    height, width = require_size(size, "polygons")
    if not (isinstance(polygons, list) and all(isinstance(p, list) and len(p) >= 6 for p in polygons)):
        raise ValueError("neither an RLE nor a list of polygons")
    if any(len(polygon) % 2 for polygon in polygons):
        raise ValueError("a polygon has an x without a y")
    points = [[_near(value) for value in polygon] for polygon in polygons]
    from pycocotools import mask as coco

    rle = coco.merge(coco.frPyObjects(points, height, width))  # not decoded by pycocotools, which warns with numpy 2
    return {"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")}
