"""Which of several objects is in front, in a frame.

Of two objects whose whole masks overlap, the one that shows more of itself in the overlap is in front: what is seen
there hides the other. If neither shows anything there, a third one hides both, and the one whose visible part is nearer
(by the median of depth) is in front.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def find_order(
    modal: NDArray[np.bool_], whole: NDArray[np.bool_], depth: NDArray[np.float32] | None = None
) -> tuple[list[int], list[list[int]]]:
    """Orders the objects of a frame.

    Args:
        modal, whole: bool [K, h, w].
        depth: nearer is larger, [h, w]; None if it is not known.

    Returns:
        all objects, front to back: those with the fewest objects in front of them first, of equals the nearer; and for
        each the objects in front of it, nearest first.
    """
    count = len(modal)
    whole = whole | modal
    near = [float(np.median(depth[seen])) if depth is not None and seen.any() else -np.inf for seen in modal]
    boxes = [_box(mask) for mask in whole]
    front: list[set[int]] = [set() for _ in range(count)]
    for a in range(count):
        for b in range(a + 1, count):
            shared = _shared(boxes[a], boxes[b])
            if shared is None:
                continue
            both = whole[a][shared] & whole[b][shared]
            if not both.any():
                continue
            of_a, of_b = (int((modal[i][shared] & both).sum()) for i in (a, b))
            shown = (of_a, near[a]) if of_a != of_b else (near[a], 0)
            other = (of_b, near[b]) if of_a != of_b else (near[b], 0)
            if shown > other:
                front[b].add(a)
            elif other > shown:
                front[a].add(b)
    order: list[int] = []
    left = set(range(count))
    while left:
        first = min(left, key=lambda i: (len(front[i] & left), -near[i], i))
        order.append(first)
        left.remove(first)
    place = {index: at for at, index in enumerate(order)}
    return order, [sorted(one, key=place.__getitem__) for one in front]


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int] | None:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return (int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1) if len(rows) else None


def _shared(a: tuple[int, int, int, int] | None, b: tuple[int, int, int, int] | None) -> tuple[slice, slice] | None:
    if a is None or b is None:
        return None
    top, bottom, left, right = max(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), min(a[3], b[3])
    return (slice(top, bottom), slice(left, right)) if top < bottom and left < right else None
