"""What a stream says about its frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ..pictures.objects import ObjectId

Status = Literal["fresh", "visible", "stale", "lost"]
"""How an object's mask in a frame came about:

    fresh    a window with this frame drew it
    visible  nothing hides it, says the gate: it is what is seen of the object
    stale    there was no time to draw it: the last known mask, and what is seen now
    lost     it left over the frame's edge, and the mask is empty; or it has not been seen for as long as a window
             reaches, and the mask is the last known
"""


@dataclass(frozen=True)
class StreamObject:
    """An object in a frame.

    Attributes:
        mask: bool [h, w], the whole object, of the frames' size.
        status: how it came about.
        age: seconds from the frame that the mask was known in to this one; 0 if it is of this frame.
        hidden: for how many frames on end, up to this one, nothing of the object has been seen; 0 if it is seen.
        iou: the IoU that the network expects of a fresh mask; None for others, and of networks that expect none.
    """

    mask: NDArray[np.bool_]
    status: Status
    age: float
    hidden: int
    iou: float | None = None


@dataclass(frozen=True)
class StreamResult:
    """The objects in a frame.

    Attributes:
        number: of the frame, from 0 in the order of `push`.
        stamp: of the frame, in seconds.
        objects: those seen before or in it and not forgotten yet.
        births: those seen for the first time, or again after they were forgotten, since the result before.
        ends: those forgotten since the result before.
        skipped: frames between the result before and this one that have no result.
        reset: whether the history begins anew with this frame or one that was skipped, after a gap in time.
        steps: of the sampler in this window, 1 for networks without one; 0 if none ran.
        seconds: from the beginning of the window to this result.
    """

    number: int
    stamp: float
    objects: Mapping[ObjectId, StreamObject]
    births: tuple[ObjectId, ...]
    ends: tuple[ObjectId, ...]
    skipped: int
    reset: bool
    steps: int
    seconds: float
