"""The order of occlusion: against loops over pixels and paths, in scenes with a known order, and on bad input."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import amodal
from amodal.runtime.errors import InputError
from amodal.runtime.families.paco.order import Relation, cut_cycles, layers_of
from amodal.runtime.scenes import make_things

SIZE = (24, 40)


def scene(seed: int) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Visible masks of the objects of a scene that show some pixels, farthest first, and its depth."""
    things = make_things(seed, 1, (64, 128))
    seen = [mask[0] for mask in things.modal if mask.sum() >= 12]
    return np.stack(seen), things.depth[0]


def strips(*heights: float) -> tuple[NDArray[np.bool_], NDArray[np.float32]]:
    """Upright strips side by side, one object each, of the given depths."""
    masks = np.zeros((len(heights), *SIZE), np.bool_)
    depth = np.zeros(SIZE, np.float32)
    for index, height in enumerate(heights):
        columns = slice(index * 8, index * 8 + 8)
        masks[index, :, columns] = True
        depth[:, columns] = height
    return masks, depth


def slow_difference(
    a: NDArray[np.bool_], b: NDArray[np.bool_], near: NDArray[np.float64], gap: int, reach: int
) -> tuple[float, int] | None:
    """How much nearer `a` is along the boundary, pixel by pixel; None if the objects do not touch."""
    height, width = a.shape

    def around(mask: NDArray[np.bool_], y: int, x: int, far: int) -> list[tuple[int, int]]:
        rows, columns = (
            range(max(y - far, 0), min(y + far + 1, height)),
            range(max(x - far, 0), min(x + far + 1, width)),
        )
        return [place for place in itertools.product(rows, columns) if mask[place]]

    found = []
    for y, x in np.argwhere(a | b).tolist():
        if around(b if a[y, x] else a, y, x, gap):
            means = [np.mean([near[place] for place in around(mask, y, x, reach)]) for mask in (a, b)]
            found.append(float(means[0] - means[1]))
    return (float(np.median(found)), len(found)) if found else None


@pytest.mark.parametrize(("seed", "gap", "reach"), [(0, 2, 3), (1, 1, 1), (2, 1, 4)])
def test_relations_are_those_of_a_loop_over_pixels(seed: int, gap: int, reach: int) -> None:
    rng = np.random.default_rng(seed)
    owner = np.kron(rng.integers(0, 6, (6, 8)), np.ones((4, 5), np.int64))  # 5 is background
    masks = np.stack([owner == index for index in range(5)])
    depth = rng.random(SIZE).astype(np.float32) + owner / 4
    order = amodal.occlusion_order(masks, depth, tolerance=0.02, gap=gap, reach=reach)
    found = {frozenset((r.front, r.behind)): r for r in (*order.relations, *order.cut)}
    near = (depth.astype(np.float64) - depth.min()) / np.ptp(depth)
    for a, b in itertools.combinations(range(5), 2):
        expected = slow_difference(masks[a], masks[b], near, gap, reach)
        pair = found.pop(frozenset((a, b)), None)
        if expected is None or abs(expected[0]) <= 0.02:
            assert pair is None
            assert ((a, b) in order.ties) == (expected is not None)
        else:
            assert pair is not None
            assert (pair.front, pair.behind) == ((a, b) if expected[0] > 0 else (b, a))
            assert pair.difference == pytest.approx(abs(expected[0]), abs=1e-5)
            assert pair.length == expected[1]
    assert not found


def slow_layers(relations: list[Relation], count: int) -> list[int]:
    """1 + the longest chain of objects in front, by walking every chain."""

    def layer(index: int, path: tuple[int, ...] = ()) -> int:
        assert index not in path, "a cycle"
        return 1 + max((layer(r.front, (*path, index)) for r in relations if r.behind == index), default=0)

    return [layer(index) for index in range(count)]


@pytest.mark.parametrize("seed", range(20))
def test_no_cycle_is_left_and_every_layer_is_one_more_than_the_largest_in_front(seed: int) -> None:
    rng = np.random.default_rng(seed)
    pairs = [rng.permutation(pair).tolist() for pair in itertools.combinations(range(7), 2) if rng.random() < 0.5]
    relations = [Relation(a, b, float(rng.random()), int(rng.integers(1, 20))) for a, b in pairs]
    kept, cut = cut_cycles(relations, 7)
    assert sorted([*kept, *cut]) == sorted(relations)
    assert layers_of(kept, 7).tolist() == slow_layers(kept, 7)
    for last in cut[-1:]:  # with the last one put back, there is a cycle again
        with pytest.raises(AssertionError, match="a cycle"):
            slow_layers([*kept, last], 7)


def test_a_cycle_loses_its_weakest_relation_by_difference_times_length() -> None:
    ring = [Relation(0, 1, 0.5, 10), Relation(1, 2, 0.1, 40), Relation(2, 0, 0.4, 11), Relation(3, 0, 0.01, 1)]
    kept, cut = cut_cycles(ring, 4)
    assert cut == [ring[1]]
    assert kept == [ring[0], ring[2], ring[3]]
    assert layers_of(kept, 4).tolist() == [2, 3, 1, 1]


def test_layers_and_passes_of_a_stair_and_of_a_hill() -> None:
    stair = amodal.occlusion_order(*strips(0.1, 0.4, 0.7))
    assert stair.layers.tolist() == [3, 2, 1]
    assert stair.in_front_of(0) == (1,)
    assert stair.in_front_of(2) == ()
    assert stair.passes() == ((1,), (0,))
    hill = amodal.occlusion_order(*strips(0.2, 0.9, 0.3))
    assert hill.layers.tolist() == [2, 1, 2]
    assert hill.passes("layers") == ((0, 2),)
    assert hill.passes("objects") == ((0,), (2,))
    assert hill.passes("once") == ((0, 2),)
    assert hill.as_json()["layers"] == [2, 1, 2]


def test_an_image_with_one_object_has_one_layer_and_no_pass() -> None:
    order = amodal.occlusion_order(*strips(0.5))
    assert order.layers.tolist() == [1]
    assert order.passes("once") == order.passes("objects") == order.passes("layers") == ()


def test_objects_of_equal_depth_tie_and_none_hides_the_other() -> None:
    order = amodal.occlusion_order(*strips(0.5, 0.5, 0.9))
    assert order.ties == ((0, 1),)
    assert order.layers.tolist() == [1, 2, 1]


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (1e-3, 1e3), (255.0, -40.0)])
def test_the_scale_of_depth_does_not_matter(scale: float, shift: float) -> None:
    masks, depth = scene(3)
    order = amodal.occlusion_order(masks, depth)
    scaled = amodal.occlusion_order(masks, depth.astype(np.float64) * scale + shift)
    assert [(r.front, r.behind, r.length) for r in scaled.relations] == [
        (r.front, r.behind, r.length) for r in order.relations
    ]


def test_two_hundred_objects_are_ordered() -> None:
    owner = np.arange(200).reshape(10, 20)
    pixels = np.kron(owner, np.ones((6, 6), np.int64))
    masks = np.stack([pixels == index for index in range(200)])
    order = amodal.occlusion_order(masks, pixels.astype(np.float32), tolerance=0)
    assert order.layers[199] == 1
    assert order.in_front_of(0) == (1, 20, 21)
    assert order.layers.tolist() == slow_grid_layers(owner)


def slow_grid_layers(owner: NDArray[np.int64]) -> list[int]:
    """The longest chain through the 8 neighbours of larger numbers, in falling order of numbers."""
    rows, columns = owner.shape
    layers: dict[int, int] = {}
    for number in range(owner.size - 1, -1, -1):
        y, x = divmod(number, columns)
        around = [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
        nearer = [r * columns + c for r, c in around if 0 <= r < rows and 0 <= c < columns and r * columns + c > number]
        layers[number] = 1 + max((layers[each] for each in nearer), default=0)
    return [layers[number] for number in range(owner.size)]


def overlapping() -> NDArray[np.bool_]:
    masks, _ = strips(0.1, 0.2)
    masks[0, 3, 9] = True
    return masks


MASKS, DEPTH = strips(0.1, 0.4)


@pytest.mark.parametrize(
    ("arguments", "options", "field", "sentence"),
    [
        ((MASKS[:0], DEPTH), {}, "masks", "one object or more"),
        ((MASKS.astype(np.uint8), DEPTH), {}, "masks", "uint8 of shape"),
        ((MASKS & False, DEPTH), {}, "masks", "mask 0 has no pixel"),
        ((overlapping(), DEPTH), {}, "masks", "masks 0 and 1 overlap at row 3, column 9"),
        ((MASKS, DEPTH[1:]), {}, "depth", "expected the same size"),
        ((MASKS, DEPTH[None]), {}, "depth", r"expected numbers \[H, W\]"),
        ((MASKS, np.full(SIZE, np.nan)), {}, "depth", "not finite"),
        ((MASKS, np.ones(SIZE)), {}, "depth", "the same everywhere"),
        ((MASKS, DEPTH), {"tolerance": 1.0}, "tolerance", "expected a share"),
        ((MASKS, DEPTH), {"gap": 0}, "gap", "1 pixel or more"),
        ((MASKS, DEPTH), {"gap": 4}, "reach", "at least the gap"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    arguments: tuple[Any, Any], options: dict[str, Any], field: str, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        amodal.occlusion_order(*arguments, **options)
    assert caught.value.field == field


def test_an_unknown_strategy_is_refused() -> None:
    with pytest.raises(InputError, match="layers, objects, once"):
        amodal.occlusion_order(MASKS, DEPTH).passes("all")  # type: ignore[arg-type]
