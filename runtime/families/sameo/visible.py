"""Prompts from visible masks: the box of each, and points on it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError

Bools = NDArray[np.bool_]


def boxes_of(masks: Bools) -> NDArray[np.float64]:
    """Returns the box of each mask [N, h, w], float64 [N, 4]: x1, y1, x2, y2, the last two behind the last pixel.

    That is COCO's box, with x + width and y + height. Of a mask without pixels all four are 0.
    """
    boxes = np.zeros((len(masks), 4))
    for box, mask in zip(boxes, masks, strict=True):
        columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
        if len(rows):
            box[:] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
    return boxes


def points_on(mask: Bools, count: int) -> NDArray[np.float64]:
    """Returns points (x, y) on a mask [h, w] that has pixels, at their centres, float64 [count, 2].

    The first lies deepest inside, each of the others farthest from those before it; of equals the first in rows. If
    there are more points than pixels, pixels come twice.
    """
    import cv2

    # With a border of zeros, so that the picture's border counts as the object's.
    depth = cv2.distanceTransform(np.pad(mask, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[1:-1, 1:-1]
    rows, columns = np.nonzero(mask)
    places = np.stack([columns, rows], axis=1) + 0.5
    chosen = [int(np.argmax(depth[rows, columns]))]
    nearest = np.full(len(places), np.inf)
    while len(chosen) < count:
        nearest = np.minimum(nearest, ((places - places[chosen[-1]]) ** 2).sum(axis=1))
        chosen.append(int(np.argmax(nearest)))
    points: NDArray[np.float64] = places[chosen].astype(np.float64)
    return points


def check_points(count: int, slots: int) -> None:
    """Raises `InputError` unless `count` points fit beside a box into the slots of a prompt."""
    if not isinstance(count, (int, np.integer)) or not 0 <= count <= slots - 2:
        raise InputError(
            f"points {count!r}: expected 0 to {slots - 2} on each visible mask, since a prompt has {slots} slots and "
            "its box takes two.",
            field="points",
        )
