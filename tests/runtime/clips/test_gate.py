import cv2
import numpy as np
import pytest

from amodal.runtime.clips.depth_range import DepthRange, Extremes
from amodal.runtime.clips.gate import JUDGEMENTS, Gate, needs_network
from amodal.runtime.errors import InputError
from amodal.runtime.scenes import make_scene


def square(top, left, side=10, size=(40, 60)):
    mask = np.zeros(size, bool)
    mask[max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)] = True
    return mask


def judged(masks, depth, tolerance=0.02):
    return [JUDGEMENTS[j] for j in Gate(tolerance).judge(np.stack(masks), np.stack(depth).astype(np.float32))]


def slow(modal, depth, tolerance):
    """The rim test pixel by pixel."""
    height, width = modal.shape
    for y, x in np.argwhere(modal):
        beside = [(v, u) for v in range(y - 1, y + 2) for u in range(x - 1, x + 2)]
        here = max(depth[v, u] for v, u in beside if 0 <= v < height and 0 <= u < width and modal[v, u])
        for v in range(max(y - 2, 0), min(y + 3, height)):
            for u in range(max(x - 2, 0), min(x + 3, width)):
                if not modal[v, u] and depth[v, u] - here > 2 * tolerance:
                    return True
    return False


def test_the_rim_is_judged_as_pixel_by_pixel():
    found = []
    for seed in range(4):
        scene = make_scene(seed, 4, (48, 64))
        depth = DepthRange(float(scene.depth.min()), float(scene.depth.max())).normalise(scene.depth)
        for tolerance in (0.0, 0.02, 0.2):
            for t, word in enumerate(judged(scene.modal, depth, tolerance)):
                if scene.modal[t].any():
                    assert (word == "hidden") == slow(scene.modal[t], depth[t], tolerance)
                    found.append(word)
    assert {*found} == {"hidden", "open"}


def test_something_nearer_counts_and_something_farther_does_not():
    mask = square(10, 10)
    background, occluder = np.full(mask.shape, -1.0), np.full(mask.shape, -1.0)
    background[mask] = occluder[mask] = 0
    occluder[:, 20:30] = 0.5
    assert judged([mask, mask], [background, occluder]) == ["open", "hidden"]


def test_an_object_that_vanishes_needs_a_network_and_one_that_leaves_does_not():
    depth = [np.where(m, 0.0, -1.0) for m in (square(10, 10),) * 4]
    gone = square(10, 10) & False
    assert judged([square(10, 10), gone, gone, square(10, 12)], depth) == ["open", "vanished", "vanished", "open"]
    assert judged([square(10, -4), gone, gone, square(10, -4)], depth) == ["open", "outside", "outside", "open"]
    assert judged([gone, square(10, 10)], depth[:2]) == ["vanished", "open"]
    assert judged([gone, gone], depth[:2]) == ["outside", "outside"]


def test_an_object_that_is_hidden_where_it_touches_the_edge_does_not_leave():
    gone, depth = square(10, 10) & False, np.full((40, 60), -1.0)
    depth[:, 6:] = 0.5  # near, and beside the object
    assert judged([square(10, -4), gone], [depth, depth]) == ["hidden", "vanished"]


def test_blurred_depth_hides_nothing():
    ragged = square(10, 10, 16)
    ragged[10:26:3, 22:] = False
    blurred = cv2.GaussianBlur(np.where(ragged, 0.5, -1.0), (0, 0), 1.0)
    assert judged([ragged], [blurred]) == ["open"]
    blurred = cv2.GaussianBlur(np.where(ragged, 0.0, -1.0) + (np.arange(60) < 9) * 1.5, (0, 0), 1.0)
    assert judged([ragged], [blurred]) == ["hidden"]


def test_hidden_and_vanished_frames_need_a_network():
    words = ["open", "open", "hidden", "vanished", "outside", "open"]
    numbers = np.array([JUDGEMENTS.index(word) for word in words], np.uint8)
    assert needs_network(numbers).tolist() == [False, False, True, True, False, False]


def test_a_negative_tolerance_is_refused():
    with pytest.raises(InputError, match="gate tolerance -1"):
        Gate(-1)


def test_the_range_of_depth_is_not_that_of_a_few_frames():
    depth = np.tile(np.linspace(1, 2, 100).reshape(1, 10, 10), (24, 1, 1))
    with_spot = depth.copy()
    with_spot[8:12, 0, 0] = 3
    ranges = []
    for maps in (depth, with_spot):
        extremes = Extremes()
        extremes.add(maps[:10])
        extremes.add(maps[10:])
        ranges.append(extremes.range())
    assert ranges[0] == ranges[1] == DepthRange(1, 2)
    assert ranges[1].normalise(with_spot).max() == 1
    np.testing.assert_allclose(ranges[0].normalise(depth)[0, 0, 0], -1)


def test_flat_depth_is_far_and_depth_that_is_not_finite_is_refused():
    assert (DepthRange(2, 2).normalise(np.full((1, 2, 2), 2.0)) == -1).all()
    with pytest.raises(InputError, match="not finite"):
        Extremes().add(np.full((1, 2, 2), np.nan))
