"""What pictures take on a device while they are prepared and delivered: before the first network, and after the last.

It depends on their size at the caller's, and is little beside what a bundle of the real size takes while it encodes. A
small bundle given large pictures takes most of all here.
"""

from __future__ import annotations

from ..arrays.resampling import Resampling, Size, working_bytes
from ..bundle.manifest import StageName

Moment = dict[str, int]
_FLOAT32 = 4
_MASKS = 4  # copies of raw masks, a byte each, that telling their values apart makes of those on the device


def preparing(stage: StageName, frames: int, given: Size, size: Size, computed: bool) -> list[Moment]:
    """Bytes of the arrays on the device at each moment of preparing a stage's pictures.

    Args:
        given: (h, w) of the pictures handed over. size: the bundle's.
        computed: whether depth is, so that `segment` is given RGB.
    """
    pixels, raw = frames * size[0] * size[1], frames * given[0] * given[1]
    modal = _FLOAT32 * pixels
    moments = [
        {"raw masks": _MASKS * raw},
        {"raw masks": raw, "resized": 2 * pixels, **_resizing("pillow uint8", frames, given, size)},
    ]
    if stage == "complete" or computed:
        rgb = 3 * pixels
        moments += [
            {"modal": modal, "resized": 2 * rgb, **_resizing("pillow uint8", frames, given, size, 3)},
            {"modal": modal, "resized": rgb, "pictures": 2 * _FLOAT32 * rgb},
        ]
    if stage == "complete":
        moments.append({"modal": modal, "pictures": _FLOAT32 * rgb, "raw masks": _MASKS * raw, "whole": 2 * pixels})
    elif not computed:
        depth = _FLOAT32 * pixels
        moments.append({"modal": modal, "resized": 3 * depth, **_resizing("pillow float32", frames, given, size)})
    return moments


def delivering(stage: StageName, frames: int, given: Size, size: Size, samples: int) -> list[Moment]:
    """Bytes of the arrays on the device at each moment after the decoder, as `preparing` has them.

    `complete` is counted with propagation, whose pictures and masks come from the host once more.
    """
    pixels, full = frames * size[0] * size[1], frames * given[0] * given[1]
    same = given == size
    if stage == "segment":
        drawn, resized = samples * (3 + 1) * pixels, 0 if same else samples * full
        work: Moment = {"sums": _FLOAT32 * pixels} if same else {"resizing": frames * size[1] * given[0]}
    else:
        # As the decoder gave them, with what the clip shows in its place, and where that is.
        drawn, resized = (3 + 3 + 1) * pixels, 0 if same else 3 * full
        work = {"pieces": resized, **_resizing("opencv uint8", frames, size, given, 3)}
    # All of it once more to go to the host in one copy; what was not resized is there under both names.
    packed = drawn + (resized or (samples * full if stage == "segment" else 3 * full))
    moments = [{"drawn": drawn, "resized": resized, **work}, {"drawn": drawn, "resized": resized, "packed": packed}]
    return moments if stage == "segment" else [{"drawn": drawn, "shown": 3 * pixels}, *moments]


def _resizing(resampling: Resampling, frames: int, before: Size, after: Size, channels: int = 1) -> Moment:
    if before == after:
        return {}
    return {"resizing": working_bytes(resampling, frames, before, after, channels)}
