"""Draws the objects of a stream in its newest frame alone, from its picture and what is seen of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..pictures.objects import ObjectId
from .gate import Judgement
from .stream_drawing import Drawn
from .stream_frames import Frame

FindMasks = Callable[[NDArray[np.bool_]], tuple[NDArray[np.bool_], NDArray[np.float32]]]
"""Finds whole masks, bool [N, h, w], and the IoU that is expected of each, float32 [N], from visible masks [N, h, w],
each with pixels."""
ReadPicture = Callable[[NDArray[np.uint8]], FindMasks]
"""Does what all objects of a picture uint8 [h, w, 3] share; returns what finds their masks."""


class SinglePictures:
    """Draws each frame by itself; see `amodal.runtime.clips.stream_drawing.Drawing`."""

    frames = reach = 1
    depth_size = None
    computes_depth = False

    def __init__(self, read: ReadPicture) -> None:
        self.read = read

    def begin_anew(self) -> None:
        """Has nothing to forget, as the next three."""

    def take_in(self, frame: Frame) -> None:
        """See `Drawing`."""

    def see(self, object_id: ObjectId, frame: Frame) -> None:
        """See `Drawing`."""

    def forget(self, object_id: ObjectId) -> None:
        """See `Drawing`."""

    def look(self, frames: Sequence[Frame], objects: Iterable[ObjectId]) -> _Picture:
        """See `Drawing`."""
        return _Picture(self.read, frames[-1])


@dataclass
class _Picture:
    """The newest frame; see `amodal.runtime.clips.stream_drawing.StreamWindow`."""

    read: ReadPicture
    frame: Frame
    _find: FindMasks | None = None
    _drawn: dict[ObjectId, Drawn] = field(default_factory=dict)

    @property
    def numbers(self) -> range:
        return range(self.frame.number, self.frame.number + 1)

    def is_needed(self, object_id: ObjectId, first: int) -> bool:
        return self.is_seen(object_id)

    def is_seen(self, object_id: ObjectId) -> bool:
        return object_id in self.frame.masks

    def judgement(self, object_id: ObjectId, number: int) -> Judgement | None:
        return None

    def prepare(self) -> None:
        assert self.frame.picture is not None
        self._find = self.read(self.frame.picture)

    def draw(self, objects: Sequence[ObjectId], steps: int) -> None:
        assert self._find is not None
        masks, ious = self._find(np.stack([self.frame.masks[object_id] for object_id in objects]))
        found = zip(objects, masks, ious, strict=True)
        self._drawn |= {object_id: Drawn(mask, float(iou)) for object_id, mask, iou in found}

    def whole(self, object_id: ObjectId, frame: Frame) -> Drawn | None:
        return self._drawn.get(object_id)
