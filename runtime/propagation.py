"""What a clip shows of an object: hidden pixels that are visible in another frame, carried over from there.

The first step of video completion (Gao, Saraf, Huang, Kopf, "Flow-edge Guided Video Completion", ECCV 2020; Zhou, Li,
Chan, Loy, "ProPainter", ICCV 2023), here along the motion of one object whose whole mask is given, not along optical
flow.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from .registration import Bools, Bytes, Floats, Motion, object_frames, register

_FEWEST = 10  # visible pixels that a frame must have to be carried over, or to be compared with
_SHOWN = 0.7  # share of a pixel that must be visible where it comes from
_UNKNOWN = 3000.0  # squared levels: error of a frame that cannot be compared
_NOISE = 100.0  # squared levels: what a true motion leaves


class Propagated(NamedTuple):
    """What a clip shows of an object.

    Attributes:
        rgb: uint8 [T, H, W, 3], the frames, with colours of other frames where these were carried over.
        known: bool [T, H, W], visible here or carried over.
    """

    rgb: Bytes
    known: Bools


def propagate(rgb: Bytes, modal: Bools, amodal: Bools) -> Propagated:
    """Fills hidden parts of an object from the frames in which they are visible.

    Each frame is registered with all others (`amodal.runtime.registration`). A hidden pixel becomes the mean of what
    the others show there, weighted with 1 / (e + 100)^2, e being the mean squared error where both are visible. Frames
    in which e is above the variance of the visible colours are left out: they say less than the mean colour.

    Args:
        rgb: uint8 [T, H, W, 3].
        modal, amodal: bool [T, H, W], visible and whole object.
    """
    amodal = amodal | modal
    objects = object_frames(rgb, modal, amodal)
    shown = {t: _visible(rgb[t], mask) for t, mask in enumerate(modal) if mask.sum() >= _FEWEST}
    filled, known = rgb.copy(), modal.copy()
    for t, target in enumerate(objects):
        hidden = amodal[t] & ~modal[t]
        if target is None or not hidden.any():
            continue
        box = _box(amodal[t])
        picture, seen, hidden = rgb[t][box], modal[t][box], hidden[box]
        total, weights = np.zeros(picture.shape, np.float32), np.zeros(hidden.shape, np.float32)
        for s, visible in shown.items():
            source = objects[s]
            if s == t or source is None:
                continue
            colours, there = _moved(visible, register(target, source), box)
            error = _error(colours, picture, there & seen)
            if error is not None:
                weight = (there & hidden) * np.float32(1 / (error + _NOISE) ** 2)
                total += colours * weight[..., None]
                weights += weight
        found = weights > 0
        filled[t][box][found] = np.rint(total[found] / weights[found][:, None]).astype(np.uint8)
        known[t][box] |= found
    return Propagated(filled, known)


def _box(mask: Bools) -> tuple[slice, slice]:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _visible(picture: Bytes, seen: Bools) -> Bytes:
    """The visible part of a frame on black, with the mask as its fourth channel, uint8 [H, W, 4]."""
    return np.dstack([picture, np.full(seen.shape, 255, np.uint8)]) * seen[..., None]


def _moved(visible: Bytes, motion: Motion, box: tuple[slice, slice]) -> tuple[Floats, Bools]:
    """What another frame shows in a box of this one: colours float32 [h, w, 3], and where there are any."""
    y, x = np.mgrid[box]
    u, v = (motion[i, 0] * x + motion[i, 1] * y + motion[i, 2] for i in (0, 1))
    moved = cv2.remap(visible, u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR)
    share = moved[..., 3:] / np.float32(255)
    return moved[..., :3] / np.maximum(share, _SHOWN), share[..., 0] > _SHOWN


def _error(colours: Floats, picture: Bytes, both: Bools) -> float | None:
    """Mean squared error where both frames show the object; None if the mean colour has less."""
    if both.sum() < _FEWEST:
        return _UNKNOWN
    wanted = picture[both].astype(np.float32)
    error = float(np.square(colours[both] - wanted).mean())
    return error if error <= max(float(wanted.var(axis=0).mean()), _NOISE) else None
