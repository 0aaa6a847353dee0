"""Copies hidden pixels of an object from frames in which they are visible.

This is the first step of video completion (Gao, Saraf, Huang, Kopf, "Flow-edge Guided Video Completion", ECCV 2020;
Zhou, Li, Chan, Loy, "ProPainter", ICCV 2023), here along the motion of one object with a known amodal mask instead of
optical flow.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from .registration import Bools, Bytes, Floats, Motion, object_frames, register

_FEWEST = 10  # visible pixels that a frame needs to be copied from or compared with
_SHOWN = 0.7  # share of a source pixel that must be visible
_UNKNOWN = 3000.0  # squared levels: assumed error per frame of distance, if two frames cannot be compared
_NOISE = 100.0  # squared levels: error of a correct motion


class Propagated(NamedTuple):
    """A clip with hidden pixels of its object copied from other frames."""

    rgb: Bytes  # [T, H, W, 3], the frames with the copied pixels
    known: Bools  # [T, H, W], the object's visible and copied pixels


def propagate(rgb: Bytes, modal: Bools, amodal: Bools, reach: int | None = None) -> Propagated:
    """Fills hidden parts of an object from the frames in which they are visible.

    Each frame with hidden pixels is registered with every frame that has ten visible ones (`registration`). A hidden
    pixel becomes the mean of the pixels there, weighted with 1 / (e + 100)^2. e is the mean squared error over the
    pixels visible in both; frames with e above their variance (and 100) are worse than the mean colour and left out.
    With fewer than ten pixels visible in both, e is 3000 times the distance in frames.

    Args:
        rgb: uint8 [T, H, W, 3]; H and W below 32768.
        modal, amodal: bool [T, H, W], visible and whole object.
        reach: copy only from frames that are at most this many before or after; None for all. Bounds the time for long
            clips.
    """
    amodal = amodal | modal
    if (amodal == modal).all():
        return Propagated(rgb, modal)
    objects = object_frames(rgb, modal, amodal)
    # The visible parts on black, with the mask as fourth channel: uint8 [H, W, 4].
    masked = np.concatenate([rgb, np.full((*modal.shape, 1), 255, np.uint8)], axis=-1) * modal[..., None]
    sources = {s: masked[s] for s in range(len(modal)) if modal[s].sum() >= _FEWEST}
    filled, known = rgb.copy(), modal.copy()
    for t, target in enumerate(objects):
        hidden = amodal[t] & ~modal[t]
        if target is None or not hidden.any():
            continue
        left, top, width, height = cv2.boundingRect(amodal[t].astype(np.uint8))
        box = (slice(top, top + height), slice(left, left + width))
        picture, seen, hidden = rgb[t][box], modal[t][box], hidden[box]
        total, weights = np.zeros(picture.shape, np.float32), np.zeros(hidden.shape, np.float32)
        for s, visible in sources.items():
            source = objects[s]
            if s == t or source is None or (reach is not None and abs(s - t) > reach):
                continue
            colours, there = _moved(visible, register(target, source), box)
            error = _error(colours, picture, there & seen, _UNKNOWN * abs(s - t))
            if error is not None:
                weight = (there & hidden) * np.float32(1 / (error + _NOISE) ** 2)
                total += colours * weight[..., None]
                weights += weight
        found = weights > 0
        filled[t][box][found] = np.rint(total[found] / weights[found][:, None]).astype(np.uint8)
        known[t][box] |= found
    return Propagated(filled, known)


def _moved(visible: Bytes, motion: Motion, box: tuple[slice, slice]) -> tuple[Floats, Bools]:
    """Warps another frame into a box of this one: colours float32 [h, w, 3], and where they are visible."""
    y, x = np.mgrid[box]
    u, v = (motion[i, 0] * x + motion[i, 1] * y + motion[i, 2] for i in (0, 1))
    moved = cv2.remap(visible, u.astype(np.float32), v.astype(np.float32), cv2.INTER_LINEAR)
    share = moved[..., 3:] / np.float32(255)
    return moved[..., :3] / np.maximum(share, _SHOWN), share[..., 0] > _SHOWN


def _error(colours: Floats, picture: Bytes, both: Bools, unknown: float) -> float | None:
    """Returns the mean squared error where both frames show the object; None if that of the mean colour is smaller."""
    if both.sum() < _FEWEST:
        return unknown
    wanted = picture[both].astype(np.float32)
    error = float(np.square(colours[both] - wanted).mean())
    return error if error <= max(float(wanted.var(axis=0).mean()), _NOISE) else None
