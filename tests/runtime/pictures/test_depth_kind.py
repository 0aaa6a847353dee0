"""What depth means: what is refused without a word about it, and what becomes of each kind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from amodal.runtime.errors import InputError
from amodal.runtime.pictures.depth_kind import DepthKind, DepthLooks, judge_limits, orient_depth
from amodal.runtime.scenes import make_scene

Maps = NDArray[Any]


def nearness(seed: int = 0) -> Maps:
    """Disparity of a scene, [0, 1]."""
    depth = make_scene(seed, 4, (32, 64)).depth
    return (depth - depth.min()) / (depth.max() - depth.min())


def metres(near: Maps) -> Maps:
    """Distances from 0.9 to 10."""
    return (1 / (0.1 + near)).astype(np.float32)


def holes(depth: Maps, value: float, rows: int = 6) -> Maps:
    depth = depth.copy()
    depth[:, :rows] = value
    return depth


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "form",
    [
        lambda near: near,
        lambda near: near * 2 - 1,
        lambda near: near * 7.25,  # raw output of Depth Anything V2
        lambda near: near * 230,  # and of V1
        lambda near: np.maximum(near * 300 - 2, 0),
        lambda near: (near * 255).astype(np.uint8),
        lambda near: (near * 200 + 20).astype(np.uint8),
        lambda near: (near * 255).astype(np.uint8).astype(np.float32),
        lambda near: (near * 65535).astype(np.uint16),
        lambda near: (near * 65535).astype(np.uint16).astype(np.float32),
        lambda near: (near * 40000).astype(np.int64),
        lambda near: np.where(near > 0.5, 0.8, 0).astype(np.float32),
        lambda near: np.select([near > 0.7, near > 0.5], [2.0, 1.0], 0.0),
        lambda near: np.full_like(near, 7.5),
        lambda near: np.zeros_like(near),
        lambda near: near - 5,
    ],
)
def test_relative_depth_of_any_form_is_left_as_it_is(form: Any, seed: int) -> None:
    depth = form(nearness(seed))
    relative, notes = orient_depth(depth)
    np.testing.assert_array_equal(relative, depth.astype(np.float32))
    assert relative.dtype == np.float32
    assert notes == []


def test_depth_of_scenes_of_any_size_is_relative() -> None:
    for size in ((16, 16), (16, 32), (64, 128)):
        for seed in range(5):
            depth = make_scene(seed, 3, size).depth
            for form in (depth, np.rint(depth * 65535).astype(np.uint16), depth * 12):
                assert orient_depth(form)[1] == []


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (lambda d: d, "its values from 0.9"),
        (lambda d: d.astype(np.float16), "keep away from 0"),
        (lambda d: (d * 1000).astype(np.uint16), "keep away from 0"),
        (lambda d: holes((d * 1000).astype(np.uint16), 0), "of its pixels are 0 and the others go from "),
        (lambda d: holes(d, 0), "of its pixels are 0 and the others go from "),
        (lambda d: holes(d, -1), "of its pixels are -1 and the others go from "),
        (lambda d: holes(d / 20, 0), "of its pixels are 0 and the others go from "),  # a table top
        (lambda d: holes(d, np.nan), "18.8 % of its pixels are NaN or infinite"),
        (lambda d: holes(d, np.inf), "18.8 % of its pixels are NaN or infinite"),
        (lambda d: holes(d, 1e4), "it has values up to 10000"),
        (lambda d: d * 1000 + 0.25, "it has values up to "),
        (lambda d: np.where(d > 5, 12, 7).astype(np.float32), "its values from 7 to 12 keep away from 0"),
    ],
)
def test_what_looks_like_distances_is_refused_with_the_ways_out(form: Any, reason: str, seed: int) -> None:
    with pytest.raises(InputError) as refusal:
        orient_depth(form(metres(nearness(seed))))
    assert reason in str(refusal.value)
    assert '`depth_kind="metric"`' in str(refusal.value)
    assert '`depth_kind="relative"`' in str(refusal.value)
    assert refusal.value.field == "depth_kind"


@pytest.mark.parametrize(
    ("looks", "kind"),
    [
        (DepthLooks(names=["depth_mm"]), "metric"),
        (DepthLooks(names=["mm"]), "metric"),
        (DepthLooks(names=["depth", "frame_metric_0001"]), "metric"),
        (DepthLooks(names=["clip_m"]), "metric"),
        (DepthLooks(names=["depthMetres"]), "metric"),
        (DepthLooks(arrays=["depth", "conf"]), "metric"),
        (DepthLooks(arrays=["depth", "extrinsics"]), "metric"),
        (DepthLooks(arrays=["depth_m"]), "metric"),
        (DepthLooks(names=["img_marigold_pred"]), "inverse"),
    ],
)
def test_names_that_speak_for_another_kind_are_refused(looks: DepthLooks, kind: DepthKind) -> None:
    near = nearness()
    with pytest.raises(InputError, match=rf'the name|its name is|an array named .*`depth_kind="{kind}"`'):
        orient_depth(near, None, looks)
    assert orient_depth(near, "relative", looks)[1] == []


@pytest.mark.parametrize("name", ["depth", "mmdet", "parametric", "image", "clip_007", "depth_maps"])
def test_ordinary_names_say_nothing(name: str) -> None:
    looks = DepthLooks(names=[name])
    assert orient_depth(nearness(), None, looks)[1] == []


def test_what_is_called_disparity_may_keep_away_from_zero() -> None:
    disparity = nearness() * 40 + 8
    with pytest.raises(InputError, match="keep away from 0"):
        orient_depth(disparity)
    np.testing.assert_array_equal(orient_depth(disparity, None, DepthLooks(names=["disparity"]))[0], disparity)


@pytest.mark.parametrize("scale", [1, 1000])
def test_distances_of_any_unit_become_their_inverse(scale: float) -> None:
    near = nearness()
    relative, notes = orient_depth(metres(near) * scale, "metric")
    np.testing.assert_allclose(relative * scale, 0.1 + near, rtol=1e-5)
    assert notes == []


def test_inverse_depth_is_turned_round_and_keeps_its_steps() -> None:
    depth = np.array([[[0, 0.25, 1.0]]])
    np.testing.assert_array_equal(orient_depth(depth, "inverse")[0], [[[1, 0.75, 0]]])
    whole = np.array([[[3, 5, 250]]], np.uint8)
    np.testing.assert_array_equal(orient_depth(whole, "inverse")[0], [[[247, 245, 0]]])


def slow_fill(frame: Maps, missing: Maps) -> list[list[set[float]]]:
    """For each pixel, the measured values at the least distance."""
    height, width = frame.shape
    found = []
    for y in range(height):
        row = []
        for x in range(width):
            there = [(v, u) for v in range(height) for u in range(width) if not missing[v, u]]
            least = min((v - y) ** 2 + (u - x) ** 2 for v, u in there)
            row.append({float(frame[v, u]) for v, u in there if (v - y) ** 2 + (u - x) ** 2 <= least + 1})
        found.append(row)
    return found


@pytest.mark.parametrize("value", [0, 1e-40, -1, np.nan, np.inf, -np.inf])
def test_pixels_without_a_distance_get_the_nearest_measured_one(value: float) -> None:
    rng = np.random.default_rng(3)
    distances = rng.uniform(0.5, 9, (2, 9, 12)).astype(np.float32)
    missing = rng.random(distances.shape) < 0.4
    given = np.where(missing, np.float32(value), distances)
    relative, notes = orient_depth(given, "metric")
    np.testing.assert_array_equal(relative[~missing], (1 / distances)[~missing])
    for t in range(2):
        allowed = slow_fill(1 / distances[t], missing[t])
        for y, x in np.argwhere(missing[t]):
            assert float(relative[t, y, x]) in allowed[y][x]
    share = f"{100 * missing.mean():.1f} %"
    assert notes == [f"{missing.sum():,} depth pixels without a measurement ({share}) were filled with the nearest "
                     "measured depth."]  # fmt: skip
    assert np.isnan(given).any() == np.isnan(value)  # the caller's array is not changed


def test_a_saturated_distance_of_sixteen_bits_is_no_measurement() -> None:
    distances = np.full((1, 3, 3), 2000, np.uint16)
    distances[0, 0, 0] = 65535
    assert (orient_depth(distances, "metric")[0] == np.float32(1 / 2000)).all()


def test_zeros_of_relative_depth_are_far_and_its_nan_is_filled() -> None:
    depth = np.array([[[0, np.nan, 4, 4]]], np.float32)
    relative, notes = orient_depth(depth, "relative")
    assert relative[0, 0, 0] == 0
    assert relative[0, 0, 1] in (0, 4)
    assert notes[0].startswith("1 depth pixels without")


def test_a_frame_without_any_measurement_is_that_of_the_nearest_frame() -> None:
    depth = np.stack([np.full((4, 5), value, np.float32) for value in (1, 2, 0, 0, 5)])
    relative, notes = orient_depth(depth, "metric")
    assert relative[:, 0, 0].tolist() == pytest.approx([1, 1 / 2, 1 / 2, 1 / 5, 1 / 5])
    assert notes[1] == "2 frames hold no depth at all, the first is frame 2; the nearest frame's is used."


@pytest.mark.parametrize(
    ("depth", "kind", "sentence"),
    [
        (np.zeros((2, 3, 4)), "metric", "holds no depth at all"),
        (np.linspace(-1, 1, 24).reshape(2, 3, 4), "metric", "metric depth is never negative"),
        (np.zeros((2, 3, 4)), "metre", "depth_kind 'metre' is unknown; expected relative, inverse or metric"),
        (np.zeros((2, 3, 4), bool), None, r"bool \[2, 3, 4\]; expected floats or integers"),
        (np.zeros((3, 4)), None, r"\[3, 4\]; expected floats or integers \[T, h, w\]"),
    ],
)
def test_what_cannot_be_of_the_kind_is_refused(depth: Maps, kind: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        orient_depth(depth, kind)


def test_on_a_device_the_limits_alone_decide() -> None:
    float32, uint16, uint8 = (np.dtype(name) for name in ("float32", "uint16", "uint8"))
    for low, high, dtype in ((0, 7.3, float32), (-1, 1, float32), (0.2, 0.9, float32), (9, 200, uint8),
                             (0, 65535, uint16), (7, 7, float32)):  # fmt: skip
        judge_limits(low, high, dtype)
    for low, high, dtype in ((0.9, 10, float32), (0, 5000.5, float32), (np.nan, np.nan, float32), (0, np.inf, float32),
                             (909, 10000, uint16)):  # fmt: skip
        with pytest.raises(InputError, match="looks like distances"):
            judge_limits(low, high, dtype)
