"""Where the pictures of a clip of any length come from, by number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..pictures.images import Size, binarise
from ..pictures.objects import ObjectId, format_id


class ClipSource(Protocol):
    """A clip of N frames and the masks of its objects, read front to back, a part at a time.

    Attributes:
        count: N.
        size: (h, w) of the frames in pixels.
        objects: the ids of the objects, each once.
        has_depth: whether there is depth; without, it is computed from the frames.
    """

    count: int
    size: Size
    objects: tuple[ObjectId, ...]
    has_depth: bool

    def frames(self, numbers: range) -> NDArray[np.uint8]:
        """Returns frames uint8 [n, h, w, 3], RGB."""
        ...

    def modal(self, object_id: ObjectId, numbers: range) -> NDArray[np.bool_]:
        """Returns the visible masks of an object, bool [n, h, w]."""
        ...

    def depth(self, numbers: range) -> NDArray[Any]:
        """Returns relative depth, numbers [n, hd, wd], nearer is larger, of any size."""
        ...


class ArraySource:
    """A clip in arrays; `frame_size` is that of the frames, None without.

    Args:
        modal: visible masks by object, each [N, h, w] of any kind that `amodal.runtime.pictures.images.binarise` reads.
        frames: uint8 [N, h, w, 3], RGB.
        depth: relative depth [N, hd, wd], nearer is larger.

    Raises:
        InputError: no objects, or arrays of different lengths.
    """

    def __init__(
        self, modal: Mapping[ObjectId, NDArray[Any]], frames: NDArray[Any] | None = None, depth: Any = None
    ) -> None:
        if not modal:
            raise InputError("there are no objects; expected the masks of at least one.", field="masks")
        self._modal = dict(modal)
        self._frames, self._depth = frames, depth
        self.objects = tuple(self._modal)
        self.has_depth = depth is not None
        self.frame_size: Size | None = None if frames is None else (int(frames.shape[1]), int(frames.shape[2]))
        first = next(iter(self._modal.values()))
        self.count, self.size = len(first), (int(first.shape[1]), int(first.shape[2]))
        for object_id, masks in self._modal.items():
            if masks.shape != first.shape:
                raise InputError(
                    f"object {format_id(object_id)} has masks {list(masks.shape)}, object "
                    f"{format_id(self.objects[0])} {list(first.shape)}; expected the same frames for all objects.",
                    field="masks",
                )
        for name, array in (("rgb", frames), ("depth", depth)):
            if array is not None and len(array) != self.count:
                raise InputError(f"{name} has {len(array)} frames, the masks have {self.count}.", field=name)

    def frames(self, numbers: range) -> NDArray[np.uint8]:
        """See `ClipSource`."""
        if self._frames is None:
            raise InputError("frames are needed, and none were given; pass `rgb`.", field="rgb")
        return np.asarray(self._frames[numbers.start : numbers.stop])

    def modal(self, object_id: ObjectId, numbers: range) -> NDArray[np.bool_]:
        """See `ClipSource`."""
        return binarise(self._modal[object_id][numbers.start : numbers.stop])

    def depth(self, numbers: range) -> NDArray[Any]:
        """See `ClipSource`."""
        assert self._depth is not None
        return np.asarray(self._depth[numbers.start : numbers.stop])


def require_distinct(objects: Sequence[ObjectId]) -> None:
    """Raises `InputError` for an id that is named twice."""
    for index, object_id in enumerate(objects):
        if object_id in objects[:index]:
            raise InputError(f"object {format_id(object_id)} is named twice; name each once.", field="objects")
