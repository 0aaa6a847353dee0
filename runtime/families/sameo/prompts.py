"""Checks prompts, boxes and points in pixels of a picture, and converts them to the decoder's slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .config import Config

EMPTY, HIDDEN, SHOWN, TOP_LEFT, BOTTOM_RIGHT = -1, 0, 1, 2, 3
"""Labels of points: an empty slot, a point of the background, one of the object, and a box's corners."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Prompts:
    """What the decoder is asked.

    Attributes:
        points: float32 [N, slots, 2], (x, y) in pixels of the encoder's input; -1 in empty slots.
        labels: float32 [N, slots].
        scores: float64 [N] of the front end that found the boxes.
    """

    points: Floats
    labels: Floats
    scores: NDArray[np.float64]

    @property
    def count(self) -> int:
        """N."""
        return len(self.points)

    def piece(self, start: int, end: int) -> Prompts:
        """Returns the prompts from `start` to before `end`."""
        return Prompts(self.points[start:end], self.labels[start:end], self.scores[start:end])


def read_prompts(
    config: Config,
    image_size: tuple[int, int],
    boxes: Any = None,
    points: Any = None,
    point_labels: Any = None,
    scores: Any = None,
    cut_points: bool = False,
) -> Prompts:
    """Reads prompts as `Model.predict` takes them.

    Coordinates are scaled by the encoder's size over the picture's, each side by its own; negative ones become -1,
    as in EfficientSAM's `rescale_and_pad`.

    Args:
        image_size: (h, w) of the picture that coordinates refer to.

    Raises:
        InputError: no prompts, other shapes, or values that make no sense in the picture; the message names the first.
    """
    parts, labels = [], []
    if boxes is None and points is None:
        raise InputError("predict needs boxes or points; neither was given.", field="boxes")
    if boxes is not None:
        corners = _boxes(boxes, image_size)
        parts.append(corners.reshape(-1, 2, 2))
        labels.append(np.tile(np.array([TOP_LEFT, BOTTOM_RIGHT], np.float64), (len(corners), 1)))
    if points is not None:
        where, kinds = _points(points, point_labels, image_size, boxes is not None)
        parts.append(where)
        labels.append(kinds)
    elif point_labels is not None:
        raise InputError("point_labels say what points are, and there are none; give `points`.", field="point_labels")
    if len(parts) == 2 and len(parts[0]) != len(parts[1]):
        raise InputError(
            f"there are {len(parts[0])} boxes, and points of {len(parts[1])}; expected as many, since they form one "
            "prompt each.",
            field="points",
        )
    where, kinds = np.concatenate(parts, axis=1), np.concatenate(labels, axis=1)
    if where.shape[1] > config.slots:
        if not cut_points:
            raise InputError(
                f"a prompt has {where.shape[1]} points, those of a box included, and this bundle takes {config.slots}; "
                "give fewer, or `cut_points=True` for the first ones, as the authors' code takes.",
                field="points",
            )
        where, kinds = where[:, : config.slots], kinds[:, : config.slots]
    scale = np.array([config.width / image_size[1], config.height / image_size[0]])
    scaled = np.where((where < 0) | (kinds == EMPTY)[..., None], -1.0, where * scale)
    missing = ((0, 0), (0, config.slots - where.shape[1]))
    return Prompts(
        np.pad(scaled, (*missing, (0, 0)), constant_values=-1).astype(np.float32),
        np.pad(kinds, missing, constant_values=EMPTY).astype(np.float32),
        _scores(scores, len(where)),
    )


def _boxes(boxes: Any, image_size: tuple[int, int]) -> NDArray[np.float64]:
    """Returns boxes float64 [N, 4]."""
    array = _numbers(boxes, "boxes", "[N, 4], the corners (x1, y1, x2, y2) in pixels")
    if array.size == 0 and array.ndim <= 2:
        array = array.reshape(0, 4)
    if array.ndim != 2 or array.shape[1] != 4:
        advice = "; for one box, write [box]" if array.shape == (4,) else ""
        raise InputError(
            f"boxes have shape {list(array.shape)}; expected [N, 4], the corners (x1, y1, x2, y2) in pixels{advice}.",
            field="boxes",
        )
    if not np.isfinite(array).all():
        index = int(np.flatnonzero(~np.isfinite(array).all(axis=1))[0])
        raise InputError(f"{_named(array, index)} is not finite; expected four numbers of pixels.", field="boxes")
    flat = (array[:, 2:] <= array[:, :2]).any(axis=1)
    if flat.any():
        index = int(np.flatnonzero(flat)[0])
        found = f"{_named(array, index)} ends where it begins or before"
        if 2 * flat.sum() > len(array) and (array[:, 2:] > 0).all():
            raise InputError(
                f"{found}, as do {int(flat.sum())} of {len(array)} boxes, which can be read as (x, y, width, height); "
                "expected the corners (x1, y1, x2, y2): if they are the former, add x to width and y to height.",
                field="boxes",
            )
        raise InputError(f"{found}; expected the corners (x1, y1, x2, y2), with x1 < x2 and y1 < y2.", field="boxes")
    height, width = image_size
    if len(array) and (array <= 1).all() and (array != np.rint(array)).any():
        raise InputError(
            f"{_named(array, 0)} and all others lie within one pixel, and look like fractions of the picture; "
            f"expected pixels: multiply x by {width} and y by {height}.",
            field="boxes",
        )
    outside = (array[:, 0] >= width) | (array[:, 1] >= height) | (array[:, 2] <= 0) | (array[:, 3] <= 0)
    if outside.any():
        index = int(np.flatnonzero(outside)[0])
        raise InputError(
            f"{_named(array, index)} lies outside the picture, {height}x{width} (height x width); expected pixels of "
            "this picture. A box may reach beyond its border.",
            field="boxes",
        )
    return array


def _points(
    points: Any, labels: Any, image_size: tuple[int, int], boxes: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns points float64 [N, P, 2] and their labels [N, P]."""
    where = _numbers(points, "points", "[N, P, 2], P points (x, y) in pixels for each of N prompts")
    if where.ndim != 3 or where.shape[2] != 2 or where.shape[1] == 0:
        advice = "; for one prompt, write [points]" if where.ndim == 2 and where.shape[1:] == (2,) else ""
        raise InputError(
            f"points have shape {list(where.shape)}; expected [N, P, 2], P points (x, y) in pixels for each of N "
            f"prompts{advice}.",
            field="points",
        )
    if labels is None:
        raise InputError(
            "points were given without point_labels, which say what each is: 1 on the object, 0 beside it, -1 none.",
            field="point_labels",
        )
    kinds = _numbers(labels, "point_labels", "[N, P]")
    if kinds.shape != where.shape[:2]:
        raise InputError(
            f"point_labels have shape {list(kinds.shape)}, and points {list(where.shape)}; expected "
            f"{list(where.shape[:2])}.",
            field="point_labels",
        )
    allowed = (EMPTY, HIDDEN, SHOWN) if boxes else (EMPTY, HIDDEN, SHOWN, TOP_LEFT, BOTTOM_RIGHT)
    unknown = kinds[~np.isin(kinds, allowed)]
    if unknown.size:
        corners = "" if boxes else ", 2 and 3 a box's first and last corner"
        raise InputError(
            f"point_labels hold {unknown[0]:g}; expected 1 on the object, 0 beside it, -1 none{corners}.",
            field="point_labels",
        )
    height, width = image_size
    inside = ((where >= 0) & (where <= [width, height])).all(axis=2)  # False for NaN
    wrong = ~inside & np.isin(kinds, (HIDDEN, SHOWN)) | ~np.isfinite(where).all(axis=2) & (kinds != EMPTY)
    if wrong.any():
        prompt, index = map(int, np.argwhere(wrong)[0])
        x, y = where[prompt, index]
        if not np.isfinite([x, y]).all():
            raise InputError(
                f"point {index} of prompt {prompt}, ({x:g}, {y:g}), is not finite; expected two numbers of pixels.",
                field="points",
            )
        raise InputError(
            f"point {index} of prompt {prompt}, ({x:g}, {y:g}), lies outside the picture, {height}x{width} (height x "
            "width); expected pixels of this picture.",
            field="points",
        )
    return np.nan_to_num(where), kinds


def _scores(scores: Any, count: int) -> NDArray[np.float64]:
    if scores is None:
        return np.ones(count)
    array = _numbers(scores, "scores", f"[{count}], one for each prompt")
    if array.shape != (count,) or not np.isfinite(array).all():
        what = f"have shape {list(array.shape)}" if array.shape != (count,) else "are not all finite"
        raise InputError(f"scores {what}; expected {count} finite numbers, one for each prompt.", field="scores")
    return array


def _numbers(value: Any, name: str, expected: str) -> NDArray[np.float64]:
    """Converts numbers in host memory to float64."""
    from ...arrays.interop import as_input

    array: NDArray[Any] = as_input(value, name)
    if array.size == 0:
        return np.empty(array.shape)
    if array.dtype.kind not in "fiu":
        raise InputError(f"{name} are {array.dtype}; expected numbers {expected}.", field=name)
    return array.astype(np.float64)


def _named(boxes: NDArray[np.float64], index: int) -> str:
    return f"box {index}, ({', '.join(f'{value:g}' for value in boxes[index])}),"
