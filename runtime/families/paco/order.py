"""Which objects of a picture hide which, from their visible masks and depth: the order in which PACO works (its 4.3).

Two objects that touch are compared in depth on either side of their shared boundary. Who hides whom makes a graph, and
the graph makes layers: the first has nothing in front of it, any other comes after everything in front of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...errors import InputError

Strategy = Literal["layers", "objects", "once"]
STRATEGIES: tuple[Strategy, ...] = ("layers", "objects", "once")

TOLERANCE = 0.005
"""Least difference in depth that orders two objects, as a share of the range of depth in the picture."""
GAP = 2
"""Pixels up to which two masks count as touching; segmenters leave seams between objects."""
REACH = 3
"""Pixels on either side of a boundary over which depth is averaged."""


class Relation(NamedTuple):
    """One object hides another.

    Attributes:
        front, behind: indices of masks.
        difference: median over the boundary of how much nearer `front` is, as a share of the range of depth.
        length: pixels of both objects along their boundary.
    """

    front: int
    behind: int
    difference: float
    length: int

    @property
    def strength(self) -> float:
        """Difference times length; the weakest relation of a cycle is dropped."""
        return self.difference * self.length


@dataclass(frozen=True)
class OcclusionOrder:
    """The order of a picture's objects.

    Attributes:
        relations: who hides whom; they make no cycle.
        cut: relations that were dropped because they closed a cycle, in that order.
        ties: pairs that touch and whose depth differs by no more than the tolerance.
        layers: int64 [N], from 1 on; 1 has nothing in front of it.
    """

    relations: tuple[Relation, ...]
    cut: tuple[Relation, ...]
    ties: tuple[tuple[int, int], ...]
    layers: NDArray[np.int64]

    def in_front_of(self, index: int) -> tuple[int, ...]:
        """Returns the objects that hide an object directly, ascending."""
        return tuple(sorted(each.front for each in self.relations if each.behind == index))

    def passes(self, strategy: Strategy = "layers") -> tuple[tuple[int, ...], ...]:
        """Returns which objects are drawn together, pass by pass; objects of the first layer are copied, not drawn.

        Args:
            strategy: `layers` draws a layer in one pass, `objects` each object alone, `once` all in one pass.

        Raises:
            InputError: the strategy is unknown.
        """
        if strategy not in STRATEGIES:
            raise InputError(
                f"`strategy={strategy!r}` is unknown; expected one of {', '.join(STRATEGIES)}.", field="strategy"
            )
        hidden = [int(i) for i in np.argsort(self.layers, kind="stable") if self.layers[i] > 1]
        if strategy == "objects":
            return tuple((index,) for index in hidden)
        if strategy == "once":
            return (tuple(hidden),) if hidden else ()
        return tuple(tuple(i for i in hidden if self.layers[i] == n) for n in range(2, int(self.layers.max()) + 1))

    def as_json(self) -> dict[str, Any]:
        """Returns the graph as values that json can write."""
        return {
            "layers": self.layers.tolist(),
            "relations": [each._asdict() for each in self.relations],
            "cut": [each._asdict() for each in self.cut],
            "ties": [list(pair) for pair in self.ties],
        }


def occlusion_order(
    masks: ArrayLike, depth: ArrayLike, *, tolerance: float = TOLERANCE, gap: int = GAP, reach: int = REACH
) -> OcclusionOrder:
    """Orders the objects of a picture, front to back.

    Args:
        masks: bool [N, H, W], the visible pixels of each object; no pixel belongs to two.
        depth: [H, W] in any scale, nearer is larger (disparity, inverse depth, MiDaS, Depth Anything).
        tolerance: least difference that counts, as a share of the range of depth, in [0, 1).
        gap: pixels up to which two masks touch, 1 or more.
        reach: pixels on either side of a boundary over which depth is averaged, at least `gap`.

    Raises:
        InputError: there is no mask, one is empty, two overlap; shapes or options do not fit; depth is not finite, or
            the same everywhere while objects touch.
    """
    objects, near = _masks(masks), _depth(depth)
    if near.shape != objects.shape[1:]:
        raise InputError(
            f"`depth` is {_size(near)} and `masks` are {_size(objects[0])}; expected the same size.", field="depth"
        )
    if not 0 <= tolerance < 1:
        raise InputError(f"`tolerance={tolerance}`: expected a share from 0 to below 1.", field="tolerance")
    if gap < 1:
        raise InputError(f"`gap={gap}`: expected 1 pixel or more.", field="gap")
    if reach < gap:
        raise InputError(f"`reach={reach}`: expected at least the gap, {gap} pixels.", field="reach")
    spread = float(np.ptp(near))
    found: list[Relation] = []
    ties: list[tuple[int, int]] = []
    for a, b, seam in _touching(objects, gap, reach):
        if spread == 0:
            raise InputError(
                "`depth` is the same everywhere, so that it orders no objects; give depth that tells near from far.",
                field="depth",
            )
        difference, length = _compare(objects[a][seam], objects[b][seam], near[seam] / spread, gap, reach)
        if abs(difference) <= tolerance:
            ties.append((a, b))
        else:
            front, behind = (a, b) if difference > 0 else (b, a)
            found.append(Relation(front, behind, abs(difference), length))
    kept, cut = cut_cycles(found, len(objects))
    return OcclusionOrder(tuple(kept), tuple(cut), tuple(ties), layers_of(kept, len(objects)))


def cut_cycles(relations: list[Relation], count: int) -> tuple[list[Relation], list[Relation]]:
    """Drops the weakest relation of all that lie on a cycle until there is none; returns those kept and dropped.

    Args:
        relations: between objects 0 to `count` - 1.
        count: objects, N.
    """
    kept = list(relations)
    cut: list[Relation] = []
    while True:
        reaches = np.zeros((count, count), np.bool_)
        for each in kept:
            reaches[each.front, each.behind] = True
        for middle in range(count):
            reaches |= reaches[:, middle, None] & reaches[None, middle]
        on_cycle = [each for each in kept if reaches[each.behind, each.front]]
        if not on_cycle:
            return kept, cut
        weakest = min(on_cycle, key=lambda each: each.strength)
        kept.remove(weakest)
        cut.append(weakest)


def layers_of(relations: list[Relation], count: int) -> NDArray[np.int64]:
    """Returns the layer of each object, int64 [N]: 1, or 1 + the largest layer in front of it.

    Args:
        relations: without a cycle.
        count: objects, N.
    """
    layers = np.ones(count, np.int64)
    for _ in range(count):
        before = layers.copy()
        for each in relations:
            layers[each.behind] = max(layers[each.behind], layers[each.front] + 1)
        if np.array_equal(layers, before):
            break
    return layers


def _masks(masks: ArrayLike) -> NDArray[np.bool_]:
    objects = np.asarray(masks)
    if objects.ndim != 3 or 0 in objects.shape or objects.dtype != np.bool_:
        raise InputError(
            f"`masks` are {objects.dtype} of shape {list(objects.shape)}; expected bool [N, H, W] with one object or "
            "more.",
            field="masks",
        )
    empty = [index for index, mask in enumerate(objects) if not mask.any()]
    if empty:
        raise InputError(
            f"mask {empty[0]} has no pixel; leave out objects that are not visible ({len(empty)} of {len(objects)}).",
            field="masks",
        )
    shared = objects.sum(axis=0, dtype=np.int32) > 1
    if shared.any():
        row, column = np.argwhere(shared)[0]
        first, second = np.flatnonzero(objects[:, row, column])[:2]
        raise InputError(
            f"masks {first} and {second} overlap at row {row}, column {column} ({int(shared.sum())} pixels are of more "
            "than one object); expected visible pixels, each of one object.",
            field="masks",
        )
    return objects


def _depth(depth: ArrayLike) -> NDArray[np.float32]:
    near = np.asarray(depth)
    if near.ndim != 2 or near.dtype.kind not in "fiu":
        raise InputError(
            f"`depth` is {near.dtype} of shape {list(near.shape)}; expected numbers [H, W], nearer is larger.",
            field="depth",
        )
    near = near.astype(np.float64)
    if not np.isfinite(near).all():
        raise InputError("`depth` has values that are not finite; fill its holes first.", field="depth")
    # Large offsets would cost float32 the differences.
    return np.asarray(near - (near.min() if near.size else 0), np.float32)


def _size(array: NDArray[Any]) -> str:
    return "x".join(map(str, array.shape))


def _touching(objects: NDArray[np.bool_], gap: int, reach: int) -> list[tuple[int, int, tuple[slice, slice]]]:
    """Returns the pairs that touch, a < b, each with a window that holds both sides of their boundary."""
    boxes = np.array([_box(mask) for mask in objects])  # [N, 4]: first and past the last row, the same of columns
    found = []
    for a in range(len(objects)):
        for b in range(a + 1, len(objects)):
            low = np.maximum(boxes[a, ::2], boxes[b, ::2]) - gap
            high = np.minimum(boxes[a, 1::2], boxes[b, 1::2]) + gap
            if (low >= high).any():
                continue
            window = _slices(low - reach, high + reach)
            if (_grown(objects[a][window], gap) & objects[b][window]).any():
                found.append((a, b, window))
    return found


def _box(mask: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _slices(low: NDArray[np.int64], high: NDArray[np.int64]) -> tuple[slice, slice]:
    (top, left), (bottom, right) = np.maximum(low, 0).tolist(), high.tolist()
    return slice(top, bottom), slice(left, right)


def _grown(mask: NDArray[np.bool_], pixels: int) -> NDArray[np.bool_]:
    side = 2 * pixels + 1
    return np.asarray(cv2.dilate(mask.view(np.uint8), np.ones((side, side), np.uint8)) > 0)


def _compare(
    a: NDArray[np.bool_], b: NDArray[np.bool_], near: NDArray[np.float32], gap: int, reach: int
) -> tuple[float, int]:
    """Returns how much nearer `a` is along the boundary (median of local differences), and the boundary's pixels.

    At each pixel of the boundary, the mean depth of either object within `reach` is taken: surfaces may be slanted, so
    that only what is close by is compared, and means over both sides outweigh noise and blurred edges.
    """
    boundary = (_grown(a, gap) & b) | (_grown(b, gap) & a)
    means = []
    for mask in (a, b):
        weight = mask.astype(np.float32)
        total, count = (_summed(plane, reach)[boundary] for plane in (near * weight, weight))
        means.append(total / count)
    return float(np.median(means[0] - means[1])), int(boundary.sum())


def _summed(plane: NDArray[np.float32], reach: int) -> NDArray[np.float64]:
    side = (2 * reach + 1, 2 * reach + 1)
    return np.asarray(cv2.boxFilter(plane, cv2.CV_64F, side, normalize=False, borderType=cv2.BORDER_CONSTANT))
