"""Estimates an object's affine motion from one frame to another, by its visible colours and its outline.

Gauss-Newton on the difference of two frames, in the inverse compositional form (Baker and Matthews, "Lucas-Kanade 20
Years On", IJCV 2004, section 3.2), with Huber's weights against pixels that do not move with the object. Pixels visible
in both frames are aligned by their colours, the others by their signed distance to the outline.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]
Motion = NDArray[np.float64]
"""Affine, [3, 3]: (x, y, 1) in one frame to (x, y, 1) in another, in pixels."""

_ITERATIONS = 8
_STILL = 0.1  # pixels; a smaller step ends the search
_POINTS = 2048  # at most, per object
_HUBER = 40.0  # levels of 255
_LEAST_STEP = 0.1  # a step may shrink an object to this share of its area
_AREAS = 1 / 9, 9.0  # smallest and largest ratio of an object's areas; beyond, the motion is rejected
_RIDGE = 1e-3  # of the mean curvature
_OUTLINE_WEIGHT = 0.5  # of a point near the outline; a visible one has 1
_OUTLINE_LEVELS = 72.0  # on either side of 128, at `_REACH`
# In diameters of the object (square root of its area):
_BLURS = (0.057, 0.023)
_REACH = 0.17  # of signed distances
_BAND = 0.09  # around the object
_LONGEST_STEP = 0.11
_SHARP = 0.8  # pixels, the smallest blur

_SIMILARITY = np.array([0, 1, 2, 3])  # of the parameters that `_slopes` has
_AFFINE = np.arange(6)


class _Level(NamedTuple):
    picture: Bytes  # [H, W, 4], RGB and outline
    values: Floats  # [N, 4], of the points
    slopes: Floats  # [6, N, 4]


class ObjectFrame(NamedTuple):
    """An object in one frame, prepared for `register`; lengths in pixels."""

    centre: tuple[float, float]  # (x, y), mean of all its pixels
    points: NDArray[np.float64]  # (x, y, 1) of N pixels in and around it, [3, N]
    middle: tuple[float, float]  # mean (x, y) of the points
    spread: float  # deviation of the points
    weights: Floats  # [H, W]
    levels: tuple[_Level, ...]  # from blurred to sharp
    longest_step: float


def object_frames(rgb: Bytes, modal: Bools, amodal: Bools) -> list[ObjectFrame | None]:
    """Prepares each frame of a clip for `register`; None where there is no object.

    Args:
        rgb: uint8 [T, H, W, 3].
        modal, amodal: bool [T, H, W]; modal within amodal.
    """
    diameter = largest_diameter(amodal)
    return [
        object_frame(picture, seen, whole, diameter) if whole.any() else None
        for picture, seen, whole in zip(rgb, modal, amodal, strict=True)
    ]


def largest_diameter(masks: Bools) -> float:
    """Returns the largest square root of an area in pixels of masks [T, H, W]; 0 if there is none."""
    return max((float(np.sqrt(mask.sum())) for mask in masks), default=0.0)


def object_frame(picture: Bytes, seen: Bools, whole: Bools, diameter: float) -> ObjectFrame:
    """Prepares one frame for `register`.

    Args:
        picture: uint8 [H, W, 3]; only its visible pixels are looked at.
        seen, whole: bool [H, W]; seen within whole, which has a pixel.
        diameter: of the object in pixels; frames that are registered with one another must share it.
    """
    inside, outside = (cv2.distanceTransform(m.astype(np.uint8), cv2.DIST_L2, 3) for m in (whole, ~whole))
    distance = inside - outside
    # Hidden pixels get the mean colour, so that an occluder's edge does not count as one of the object.
    mean = picture[seen].mean(axis=0) if seen.any() else np.full(3, 128.0)
    colours = np.where(seen[..., None], picture, np.where(whole[..., None], mean, 255))
    outline = 128 + _OUTLINE_LEVELS * np.clip(distance / max(_REACH * diameter, 1.0), -1, 1)
    features = np.concatenate([colours, outline[..., None]], axis=-1).astype(np.float32)

    near = ~whole & (distance > -max(_BAND * diameter, 1.0))
    weights = (seen + np.float32(_OUTLINE_WEIGHT) * near).astype(np.float32)
    rows, columns = np.nonzero(weights if weights.any() else whole)
    every = -(-len(rows) // _POINTS)
    rows, columns = rows[::every], columns[::every]
    middle = (float(columns.mean()), float(rows.mean()))
    spread = max(float(columns.std()), float(rows.std()), 1.0)
    x, y = (columns - middle[0]) / spread, (rows - middle[1]) / spread
    blurs = [max(share * diameter, _SHARP) for share in _BLURS]
    levels = []
    for blur in [*blurs, _SHARP] if blurs[-1] > 1.5 * _SHARP else blurs:
        blurred = np.asarray(cv2.GaussianBlur(features, (0, 0), blur), np.float32)
        dx, dy = (cv2.Sobel(blurred, cv2.CV_32F, *order, ksize=3, scale=1 / 8) for order in ((1, 0), (0, 1)))
        slopes = _slopes(dx[rows, columns], dy[rows, columns], x[:, None], y[:, None])
        levels.append(_Level(np.rint(blurred).astype(np.uint8), blurred[rows, columns], slopes))
    where = np.nonzero(whole)
    centre = (float(where[1].mean()), float(where[0].mean()))
    points = np.stack([columns, rows, np.ones(len(rows))]).astype(np.float64)
    return ObjectFrame(centre, points, middle, spread, weights, tuple(levels), max(_LONGEST_STEP * diameter, 1.0))


def _slopes(dx: Any, dy: Any, x: Any, y: Any) -> Floats:
    """Returns the derivatives of the points' values by shift (x, y), scale, turn, stretch and shear, [6, N, 4]."""
    return np.stack([dx, dy, dx * x + dy * y, dy * x - dx * y, dx * x - dy * y, dx * y + dy * x]).astype(np.float32)


def register(target: ObjectFrame, source: ObjectFrame) -> Motion:
    """Estimates the motion that maps points of an object in `target` to `source`.

    Starts from the shift between the centres, then fits a similarity on blurred and an affine motion on sharp pictures.
    If the areas then differ ninefold, the fit has failed and the shift is returned.
    """
    centred = np.eye(3)
    centred[:2, 2] = np.subtract(source.centre, target.centre)
    motion = centred
    for parameters, levels in ((_SIMILARITY, slice(2)), (_AFFINE, slice(-2, None))):
        for level, other in zip(target.levels[levels], source.levels[levels], strict=True):
            motion = _refined(motion, target, level, source.weights, other.picture, parameters)
    return motion if _AREAS[0] < np.linalg.det(motion) < _AREAS[1] else centred


def _refined(
    motion: Motion, target: ObjectFrame, level: _Level, weights: Floats, picture: Bytes, parameters: NDArray[np.intp]
) -> Motion:
    columns, rows = target.points[:2].astype(np.intp)
    own = target.weights[rows, columns]
    slopes = level.slopes[parameters].reshape(len(parameters), -1)
    for _ in range(_ITERATIONS):
        x, y = (motion @ target.points)[:2].astype(np.float32)
        error = _sampled(picture, x, y, cv2.BORDER_REPLICATE).astype(np.float32) - level.values
        weight = np.minimum(own, _sampled(weights, x, y, cv2.BORDER_CONSTANT))
        weight *= _HUBER / np.maximum(np.sqrt(np.square(error).mean(axis=1)), _HUBER)
        weighted = slopes * np.repeat(weight, error.shape[1])
        matrix = (weighted @ slopes.T).astype(np.float64)
        matrix += np.eye(len(matrix)) * (_RIDGE * np.trace(matrix) / len(matrix) + 1e-6)
        step = np.linalg.solve(matrix, weighted.astype(np.float64) @ error.ravel())
        longest = float(np.abs(step).max())
        step *= min(1.0, target.longest_step / max(longest, _STILL))
        moved = _as_motion(np.pad(step, (0, 6 - len(step))), target)
        if np.linalg.det(moved) < _LEAST_STEP:
            break
        motion = motion @ np.linalg.inv(moved)
        if longest < _STILL:
            break
    return motion


def _sampled(picture: NDArray[Any], x: Floats, y: Floats, border: int) -> NDArray[Any]:
    """Samples between pixels, [N] or [N, C]."""
    return np.asarray(cv2.remap(picture, x[None], y[None], cv2.INTER_LINEAR, borderMode=border)[0])


def _as_motion(step: NDArray[np.float64], target: ObjectFrame) -> Motion:
    """Converts parameters, as `_slopes` has them, into a motion within a frame."""
    scale, turn, stretch, shear = step[2:] / target.spread
    motion = np.eye(3)
    motion[:2, :2] += [[scale + stretch, shear - turn], [shear + turn, scale - stretch]]
    motion[:2, 2] = step[:2] - (motion[:2, :2] - np.eye(2)) @ target.middle
    return motion
