"""The frames that a stream is given, checked and kept until they are too old for any window."""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, argument
from ..pictures.depth_kind import DepthKind, orient_depth
from ..pictures.images import Size, binarise, resize_depth
from ..pictures.objects import ObjectId, format_id


class Frame(NamedTuple):
    """A frame of a stream.

    Attributes:
        masks: visible masks of the objects that are seen, bool [h, w].
        depth: relative, float32 [H, W] in its own range; None to compute it.
        picture: uint8 [h, w, 3]; only if something is computed from it.
        epoch: counts the gaps in time before it.
    """

    number: int
    stamp: float
    size: Size
    masks: Mapping[ObjectId, NDArray[np.bool_]]
    depth: NDArray[np.float32] | None
    picture: NDArray[np.uint8] | None
    epoch: int


@dataclass
class History:
    """The newest frames of a stream.

    Attributes:
        reach: how many are kept.
        size: (H, W) that depth is kept at; None if none is used and pictures are needed instead.
        gap: seconds between two frames after which the history begins anew.
        computes: whether depth can be computed.
        depth_kind: what the numbers of depth mean; None to take the first frame's for relative, unless they look like
            distances, which raises.
    """

    reach: int
    size: Size | None
    gap: float
    computes: bool
    depth_kind: DepthKind | None = None

    def __post_init__(self) -> None:
        self.frames: deque[Frame] = deque(maxlen=self.reach)
        self.count = 0  # frames so far
        self.floor = 0  # number of the first frame since the last gap
        self._warned: set[str] = set()

    @property
    def newest(self) -> Frame | None:
        """The last frame, also if a gap came after it."""
        return self.frames[-1] if self.frames else None

    def period(self) -> float | None:
        """Returns the seconds from frame to frame, their median; None with fewer than two."""
        stamps = [frame.stamp for frame in self.frames]
        return float(np.median(np.diff(stamps))) if len(stamps) > 1 else None

    def add(self, picture: Any, masks: Any, depth: Any, stamp: float) -> None:
        """Checks and copies a frame.

        Raises:
            InputError: something does not fit, by itself or to the frames before.
        """
        before = self.newest
        stamp = _require_later(stamp, before)
        given = _masks_of(masks)
        size = _size_of(picture, given, before)
        shown = depth is None
        if self.size is None:
            self._require_picture_alone(picture, depth)
        elif shown:
            self._require_depth(picture, before)
        elif before is not None and before.depth is None:
            raise InputError("depth begins in the middle of a stream; give it from the first frame on.", field="depth")
        maps = None if shown or self.size is None else self._relative(depth, self.size)
        epoch = 0 if before is None else before.epoch
        if before is not None and stamp - before.stamp > self.gap:
            self._note_gap(before, stamp)
            self.frames.clear()
            epoch, self.floor = epoch + 1, self.count
        seen = {object_id: mask for object_id, mask in given.items() if mask.any()}
        kept = np.array(picture, np.uint8) if shown else None
        self.frames.append(Frame(self.count, stamp, size, seen, maps, kept, epoch))
        self.count += 1

    def _relative(self, depth: Any, size: Size) -> NDArray[np.float32]:
        array = np.asarray(depth)
        if array.dtype.kind not in "fiu" or array.ndim != 2 or 0 in array.shape:
            raise InputError(f"depth is {array.dtype} {list(array.shape)}; expected numbers [h, w].", field="depth")
        with argument("depth"):
            relative, notes = orient_depth(array[None], self.depth_kind)
        self.depth_kind = self.depth_kind or "relative"
        for note in notes:
            self._warn(note, note)
        return np.array(resize_depth(relative, size)[0])

    def _note_gap(self, before: Frame, stamp: float) -> None:
        """Warns where a frame is alone between two gaps, since streams of such frames may have no due window ever."""
        if before.number == self.floor > 0:
            self._warn(
                f"frames come {stamp - before.stamp:.6g} s apart, and the history begins anew after {self.gap:g} s, "
                "with no result for the frames that waited for one; give stamps in seconds, or a larger `forget`.",
                "gap",
            )

    def _warn(self, note: str, key: str) -> None:
        """Warns once, at the call of `Stream.push`."""
        if key not in self._warned:
            self._warned.add(key)
            warnings.warn(note, stacklevel=5)

    def _require_picture_alone(self, picture: Any, depth: Any) -> None:
        if depth is not None:
            raise InputError(
                f"frame {self.count} has depth, which the networks of this stream do not use; omit it.", field="depth"
            )
        if picture is None:
            raise InputError(
                f"frame {self.count} has no picture, in which the networks of this stream look for objects; give it.",
                field="rgb",
            )

    def _require_depth(self, picture: Any, before: Frame | None) -> None:
        if before is not None and before.depth is not None:
            raise InputError(
                f"depth stops at frame {self.count}; give it for every frame, as for those before.", field="depth"
            )
        if not self.computes:
            raise InputError(
                f"frame {self.count} has no depth, and the bundle has no depth component; give `depth`.", field="depth"
            )
        if picture is None:
            raise InputError(
                f"frame {self.count} has neither a picture nor depth; give one, to compute depth from or to use.",
                field="depth",
            )


def _require_later(stamp: float, before: Frame | None) -> float:
    stamp = float(stamp)
    if not math.isfinite(stamp):
        raise InputError(f"stamp {stamp} is not a time in seconds.", field="stamp")
    if before is not None and stamp <= before.stamp:
        raise InputError(
            f"stamp {stamp:.6g} follows {before.stamp:.6g}; expected stamps that grow: leave out frames that come late "
            "or twice.",
            field="stamp",
        )
    return stamp


def _masks_of(masks: Any) -> dict[ObjectId, NDArray[np.bool_]]:
    """Returns copies of the masks by object; one array is that of object 0."""
    pairs = masks.items() if isinstance(masks, Mapping) else [(0, masks)]
    found: dict[ObjectId, NDArray[np.bool_]] = {}
    for object_id, given in pairs:
        mask = np.asarray(given)
        if mask.ndim != 2 or 0 in mask.shape:
            raise InputError(
                f"object {format_id(object_id)} has a mask {list(mask.shape)}; expected [h, w].", field="masks"
            )
        found[object_id] = np.array(binarise(mask[None], f"object {format_id(object_id)}")[0])
    return found


def _size_of(picture: Any, masks: Mapping[ObjectId, NDArray[np.bool_]], before: Frame | None) -> Size:
    """Returns the size (h, w) of a frame; raises if it is not one, or not that of the frames before."""
    sizes: dict[str, Size] = {}
    if picture is not None:
        array = np.asarray(picture)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[-1] != 3 or 0 in array.shape:
            raise InputError(f"the frame is {array.dtype} {list(array.shape)}; expected uint8 [h, w, 3].", field="rgb")
        sizes["the frame"] = (array.shape[0], array.shape[1])
    sizes |= {f"object {format_id(o)}": (mask.shape[0], mask.shape[1]) for o, mask in masks.items()}
    if before is not None:
        sizes = {"the stream": before.size, **sizes}
    if not sizes:
        raise InputError(
            "the first frame has neither a picture nor a mask, so its size is unknown; give one of them.", field="rgb"
        )
    (first, size), *others = sizes.items()
    for name, other in others:
        if other != size:
            raise InputError(
                f"{name} is {other[0]}x{other[1]}, {first} {size[0]}x{size[1]}; expected one size in all frames: for "
                "another, open another stream.",
                field="rgb" if name == "the frame" else "masks",
            )
    return size
