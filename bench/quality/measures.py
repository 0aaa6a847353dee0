"""The measures, each over the frames of one clip.

Masks are bool [T, H, W]; results are float64 [T], with NaN for frames that a measure does not apply to. "Hidden" pixels
are those of the truth's whole object that are not visible.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from .clips import Bools, Bytes, Floats, Size

OFFICIAL_SIZE = (800, 1280)  # (height, width) at which SAIL-VOS is evaluated
EPSILON = 1e-6  # in the published IoU's denominator; frames with a smaller hidden IoU are left out
MAX_PSNR = 100.0  # dB, where hidden pixels agree exactly
_SQUARE = np.ones((5, 5), np.uint8)


def iou(predicted: Bools, amodal: Bools) -> Floats:
    """Intersection over union per frame, in [0, 1]; `strict` is its mean over all frames.

    An empty prediction of an absent object is correct, so it counts 1.
    """
    union = _count(predicted | amodal)
    return np.where(union == 0, 1.0, _count(predicted & amodal) / np.maximum(union, 1))


def hidden_iou(predicted: Bools, amodal: Bools, modal: Bools) -> Floats:
    """IoU of the hidden parts per frame, in [0, 1], NaN where the truth has no hidden pixel.

    IoU of (P \\ M) and (A \\ M), Diffusion-VAS section 4.1, for predicted P, true A and visible M. `strict` is the mean
    over every frame with a hidden pixel; a miss counts 0.
    """
    hidden, guessed = amodal & ~modal, predicted & ~modal
    union = _count(hidden | guessed)
    value = _count(hidden & guessed) / np.maximum(union, 1)
    return np.where(hidden.any(axis=(1, 2)), value, np.nan)


def official_ious(predicted: Bools, amodal: Bools, modal: Bools, size: Size = OFFICIAL_SIZE) -> tuple[Floats, Floats]:
    """IoU and hidden IoU per frame as Diffusion-VAS publishes them for SAIL-VOS, quirks included.

    All masks are resized as uint8 0 and 1 with cv2's INTER_LINEAR, whose fixed-point arithmetic rounds such small
    values so coarsely that edges move by some tenths of a source pixel; then the visible mask is added to the
    prediction. The hidden parts are eroded once with a 5x5 square; the frame's border does not erode them. Each IoU is
    intersection / (union + 1e-6), so an empty prediction of an absent object counts 0. Frames with a hidden IoU below
    1e-6 are left out of the mean, so a prediction that misses the whole hidden part is not penalised.

    `predicted` may have any size; `size` is the (height, width) that all masks are resized to. Returns IoU [T], and
    hidden IoU [T] with NaN for frames that are left out.
    """
    whole, hidden = np.zeros(len(amodal)), np.zeros(len(amodal))
    for t in range(len(amodal)):
        truth, visible = _resized(amodal[t], size), _resized(modal[t], size)
        guess = _resized(predicted[t], size) | visible
        whole[t] = _published_iou(guess, truth)
        hidden[t] = _published_iou(_eroded(guess > visible), _eroded(truth > visible))
    return whole, np.where(hidden < EPSILON, np.nan, hidden)


def box_iou(predicted: Floats, boxes: Floats) -> Floats:
    """IoU of boxes [T, 4] (x, y, width, height) per frame, in [0, 1], NaN where the true box is empty."""
    low = np.maximum(predicted[:, :2], boxes[:, :2])
    high = np.minimum(predicted[:, :2] + predicted[:, 2:], boxes[:, :2] + boxes[:, 2:])
    shared = np.maximum(high - low, 0).prod(axis=1)
    area = boxes[:, 2:].prod(axis=1)
    union = predicted[:, 2:].prod(axis=1) + area - shared
    there = area > 0
    return np.where(there, shared / np.where(there, union, 1), np.nan)


def flicker(predicted: Bools, amodal: Bools) -> Floats:
    """Changes of the prediction without a change of the truth, per pair of frames, [T - 1] in [0, 1].

    Of the pixels covered by the prediction or the truth in frame t or t + 1: the share whose prediction changes from t
    to t + 1 while the truth does not. With P the prediction and A the truth,

        |(P[t] xor P[t+1]) and not (A[t] xor A[t+1])|  /  |P[t] or P[t+1] or A[t] or A[t+1]|.

    0 for the truth itself, and for any prediction that does not change, however wrong; 1 where a false mask appears in
    an empty frame. The edge of a moving object that is predicted a few pixels off changes at other pixels than the true
    edge, and counts. NaN where nothing is covered. The papers have no such measure; it is defined here.
    """
    covered = predicted[1:] | predicted[:-1] | amodal[1:] | amodal[:-1]
    unexplained = (predicted[1:] != predicted[:-1]) & (amodal[1:] == amodal[:-1])
    total = _count(covered)
    return np.where(total > 0, _count(unexplained) / np.maximum(total, 1), np.nan)


def hidden_psnr(rgb: Bytes, whole_rgb: Bytes, hidden: Bools) -> Floats:
    """PSNR in dB over the hidden pixels per frame, at most 100, NaN if there are none.

    10 log10(255^2 / MSE), with the mean squared error over these pixels and the three channels, of predicted and true
    uint8 [T, H, W, 3].
    """
    values = np.full(len(rgb), np.nan)
    for t in np.flatnonzero(hidden.any(axis=(1, 2))):
        difference = rgb[t][hidden[t]].astype(np.float64) - whole_rgb[t][hidden[t]]
        error = np.square(difference).mean()
        values[t] = min(10 * np.log10(255.0**2 / error), MAX_PSNR) if error > 0 else MAX_PSNR
    return values


def convex_hull(modal: Bools) -> Bools:
    """The baseline `convex`: the convex hull of each visible mask, computed and filled by cv2, bool [T, H, W]."""
    hulls = np.zeros(modal.shape, np.uint8)
    for hull, mask in zip(hulls, modal, strict=True):
        points = cv2.findNonZero(mask.astype(np.uint8))
        if points is not None:
            cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    return modal | hulls.astype(np.bool_)


def mean_colour(frames: Bytes, modal: Bools) -> Bytes:
    """The baseline `mean colour`: every pixel has the mean colour of the frame's visible part, uint8 [T, H, W, 3].

    If nothing is visible in a frame, it is the mean of all visible pixels of the clip; grey (128) if there are none.
    """
    fallback = frames[modal].mean(axis=0) if modal.any() else np.full(3, 128.0)
    colours = [f[m].mean(axis=0) if m.any() else fallback for f, m in zip(frames, modal, strict=True)]
    filled: Bytes = np.broadcast_to(np.rint(colours).astype(np.uint8)[:, None, None], frames.shape)
    return filled


def _count(masks: Bools) -> NDArray[np.int64]:
    return np.asarray(masks.sum(axis=(1, 2)), np.int64)


def _resized(mask: Bools, size: Size) -> NDArray[np.uint8]:
    return np.asarray(cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_LINEAR), np.uint8)


def _eroded(mask: Bools) -> NDArray[np.uint8]:
    return np.asarray(cv2.erode(mask.astype(np.uint8), _SQUARE), np.uint8)


def _published_iou(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    return cv2.countNonZero(a & b) / (cv2.countNonZero(a | b) + EPSILON)
