"""What a stream remembers of an object."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..pictures.images import Size, prepare_modal, threshold
from ..pictures.objects import ObjectId
from .stream_frames import Frame


def blend_shares(count: int) -> NDArray[np.float32]:
    """Returns the weight of each frame of a window in what is blended, float32 [count].

    It falls from the middle with the square of the distance to the end. With a weight that falls evenly, what earlier
    windows drew at their ends, before they had seen what came next, spoils the mask: by a point of mIoU_occ.
    """
    return np.square(np.minimum(np.arange(1, count + 1), np.arange(count, 0, -1))).astype(np.float32)


class Ring:
    """Arrays by number of the frame, in memory that is taken once; a frame takes the place of an older one."""

    def __init__(self, reach: int, shape: tuple[int, ...]) -> None:
        self._values = np.zeros((reach, *shape), np.float32)
        self._numbers = np.full(reach, -1)

    def __contains__(self, number: int) -> bool:
        return bool(self._numbers[number % len(self._numbers)] == number)

    def __getitem__(self, number: int) -> NDArray[np.float32]:
        """The array of a frame; zeros, from then on, if there is none."""
        place = number % len(self._numbers)
        if self._numbers[place] != number:
            self._numbers[place] = number
            self._values[place] = 0
        found: NDArray[np.float32] = self._values[place]
        return found


@dataclass
class Track:
    """An object since its birth.

    Attributes:
        object_id: its id.
        born: number of the first frame in which it is seen.
        reach: frames that windows see.
        size: (H, W) of masks as the networks take them.
        turn: counts the objects that were drawn before it was last, or was born: the smallest has waited longest.
        seen_at: stamp of the last frame in which it is seen.
        leaving: whether it touches the frame's edge there.
        known_at: stamp of the frame of the last known mask.
        known: that mask, bool [h, w]; None before the first.
        hidden: frames on end, up to the last result, in which it is not seen.
    """

    object_id: ObjectId
    born: int
    reach: int
    size: Size
    turn: int
    seen_at: float
    leaving: bool = False
    known_at: float = 0.0
    known: NDArray[np.bool_] | None = None
    hidden: int = 0
    _modal: Ring = field(init=False)
    _drawn: Ring = field(init=False)
    _weights: Ring = field(init=False)

    def __post_init__(self) -> None:
        self.known_at = self.seen_at
        self._modal = Ring(self.reach, self.size)
        self._drawn = Ring(self.reach, (*self.size, 3))
        self._weights = Ring(self.reach, (1,))

    def see(self, frame: Frame) -> None:
        """Takes in a frame; each once, in order."""
        mask = frame.masks.get(self.object_id)
        if mask is None:
            self._modal[frame.number][:] = -1
            return
        self._modal[frame.number][:] = prepare_modal(mask[None], self.size)[0]
        self.seen_at = frame.stamp
        self.leaving = bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())

    def modal(self, numbers: range) -> NDArray[np.float32]:
        """Returns visible masks, float32 [n, H, W] in [-1, 1]; empty ones before its birth."""
        return np.stack([self._modal[n] if n in self._modal else np.full(self.size, np.float32(-1)) for n in numbers])

    def blend(self, numbers: range, pictures: NDArray[np.uint8]) -> None:
        """Adds the pictures uint8 [n, H, W, 3] that a window drew of these frames."""
        for number, picture, weight in zip(numbers, pictures, blend_shares(len(numbers)), strict=True):
            drawn, total = self._drawn[number], self._weights[number]
            drawn += picture * weight
            total += weight

    def whole(self, number: int) -> NDArray[np.bool_] | None:
        """Returns the whole object in a frame, bool [H, W], of all windows that drew it; None if none did."""
        weight = float(self._weights[number][0])
        if weight == 0:
            return None
        picture = np.rint(self._drawn[number] / weight).astype(np.uint8)
        found: NDArray[np.bool_] = threshold(picture[None], self._modal[number][None])[0]
        return found
