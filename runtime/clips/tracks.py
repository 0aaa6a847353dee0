"""What a stream remembers of an object, whoever draws it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..pictures.objects import ObjectId
from .stream_frames import Frame


@dataclass
class Track:
    """An object since its birth.

    Attributes:
        object_id: its id.
        born: number of the first frame in which it is seen.
        turn: counts the objects that were drawn before it was last, or was born: the smallest has waited longest.
        seen_at: stamp of the last frame in which it is seen.
        leaving: whether it touches the frame's edge there.
        known_at: stamp of the frame of the last known mask.
        known: that mask, bool [h, w]; None before the first.
        hidden: frames on end, up to the last result, in which it is not seen.
    """

    object_id: ObjectId
    born: int
    turn: int
    seen_at: float
    leaving: bool = False
    known_at: float = 0.0
    known: NDArray[np.bool_] | None = None
    hidden: int = 0

    def __post_init__(self) -> None:
        self.known_at = self.seen_at

    def see(self, frame: Frame) -> None:
        """Takes in a frame; each once, in order."""
        mask = frame.masks.get(self.object_id)
        if mask is not None:
            self.seen_at = frame.stamp
            self.leaving = bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())
