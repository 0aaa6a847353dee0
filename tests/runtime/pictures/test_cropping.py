"""The window around a small object, against its definition in plain loops."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amodal.runtime.errors import InputError
from amodal.runtime.pictures.cropping import Crop, find_shrunk

FRAME = (54, 96)


def boxes(seed: int, frame: tuple[int, int] = FRAME, count: int = 3) -> Any:
    """Masks bool [count, *frame] of a rectangle that jumps about."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((count, *frame), bool)
    for mask in masks:
        high, wide = rng.integers(1, np.array(frame) // 4)
        y, x = rng.integers(0, (frame[0] - high + 1, frame[1] - wide + 1))
        mask[y : y + high, x : x + wide] = True
    return masks


def extent(masks: Any) -> tuple[int, int, int, int]:
    """First row and column of the object, and those after its last."""
    places = [(y, x) for _, y, x in np.argwhere(masks).tolist()]
    rows, columns = [y for y, _ in places], [x for _, x in places]
    return min(rows), min(columns), max(rows) + 1, max(columns) + 1


@pytest.mark.parametrize("scale", [1.0, 1.5, 2.0, 3.0])
def test_the_window_is_the_smallest_of_the_frames_ratio_around_the_enlarged_box(scale: float) -> None:
    for seed in range(60):
        frame = [(54, 96), (96, 54), (37, 41)][seed % 3]
        masks = boxes(seed, frame, count=1 + seed % 3)
        crop = Crop.around(masks, scale)
        top, left, bottom, right = extent(masks)
        assert 0 <= crop.y <= top
        assert 0 <= crop.x <= left
        assert bottom <= crop.y + crop.height <= frame[0]
        assert right <= crop.x + crop.width <= frame[1]
        share = min(max(scale * (bottom - top) / frame[0], scale * (right - left) / frame[1]), 1)
        for side, length in zip(crop.size, frame, strict=True):
            assert share * length - 1e-6 <= side < share * length + 1
        for start, side, length, centre in (
            (crop.y, crop.height, frame[0], (top + bottom) / 2),
            (crop.x, crop.width, frame[1], (left + right) / 2),
        ):
            beside = start in (0, length - side)
            assert beside or abs(start + side / 2 - centre) <= 0.5


def test_a_window_at_the_border_is_moved_and_not_shrunk() -> None:
    masks = np.zeros((1, *FRAME), bool)
    masks[0, 50:54, 92:96] = True
    crop = Crop.around(masks)
    assert crop.size == (8, 15)
    assert (crop.y + crop.height, crop.x + crop.width) == FRAME


def test_the_window_is_never_larger_than_the_frame() -> None:
    masks = np.zeros((1, *FRAME), bool)
    masks[0, 5:50, 10:20] = True
    assert Crop.around(masks) == Crop(FRAME, 0, 0, *FRAME)


@pytest.mark.parametrize(("high", "wide", "cropped"), [(27, 47, True), (27, 48, False), (20, 20, True), (3, 96, False)])
def test_auto_crops_where_the_box_is_under_a_quarter_and_the_window_not_all(
    high: int, wide: int, cropped: bool
) -> None:
    masks = np.zeros((2, *FRAME), bool)
    masks[0, 0, 0] = True
    masks[1, high - 1, wide - 1] = True
    crop = Crop.auto(masks)
    window = Crop.around(masks)
    assert crop == (window if cropped and window.size != FRAME else None)
    assert (crop is not None) == (cropped and 2 * max(high / 54, wide / 96) < 1)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("channels", "value"), [((), False), ((3,), 255)])
def test_pasting_puts_a_window_back_where_it_was_cut(seed: int, channels: tuple[int, ...], value: int) -> None:
    rng = np.random.default_rng(seed)
    crop = Crop.around(boxes(seed))
    pictures = rng.integers(0, 2 if not channels else 256, (3, *FRAME, *channels)).astype(
        np.uint8 if channels else bool
    )
    cut = crop.cut(pictures)
    assert np.shares_memory(cut, pictures)
    whole = crop.paste(cut, value)
    assert (whole.dtype, whole.shape) == (pictures.dtype, pictures.shape)
    for t, y, x in np.ndindex(3, *FRAME):
        inside = crop.y <= y < crop.y + crop.height and crop.x <= x < crop.x + crop.width
        assert (whole[t, y, x] == (pictures[t, y, x] if inside else value)).all()


def test_arrays_on_a_device_stay_there(device: Any) -> None:
    crop, rng = Crop(FRAME, 9, 24, 18, 32), np.random.default_rng(0)
    pictures = rng.integers(0, 256, (2, *FRAME, 3), np.uint8)
    cut = crop.cut(device.asarray(pictures))
    whole = crop.paste(cut, 255, device)
    assert isinstance(whole, device.ndarray)
    np.testing.assert_array_equal(device.asnumpy(whole), crop.paste(crop.cut(pictures), 255))


def test_depth_of_the_frames_size_is_cut_and_any_other_resized_to_the_window() -> None:
    crop = Crop(FRAME, 9, 24, 18, 32)
    y, x = np.mgrid[: FRAME[0], : FRAME[1]].astype(np.float32) + 0.5
    depth = np.stack([2 * y + x, y - 3 * x])
    np.testing.assert_array_equal(crop.cut_depth(depth), depth[:, 9:27, 24:56])
    for size in ((27, 48), (108, 192), (50, 90)):
        resized = np.stack(
            [np.asarray(Image.fromarray(d).resize(size[::-1], Image.Resampling.BILINEAR)) for d in depth]
        )
        found = crop.cut_depth(resized.astype(np.float64))
        assert (found.dtype, found.shape) == (np.float32, (2, 18, 32))
        np.testing.assert_allclose(found, depth[:, 9:27, 24:56], atol=0.02 * np.ptp(depth) / 96 + 1.5)


def test_masks_that_reach_an_inner_edge_of_the_window_are_found() -> None:
    for seed in range(40):
        crop = Crop.around(boxes(seed), 1.0 + seed % 3)
        masks = np.random.default_rng(seed).random((3, *crop.size)) < 0.02
        expected = []
        for t, mask in enumerate(crop.paste(masks, False)):
            for y, x in np.argwhere(mask).tolist():
                beside = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
                in_frame = [(v, u) for v, u in beside if 0 <= v < FRAME[0] and 0 <= u < FRAME[1]]
                inside = [crop.y <= v < crop.y + crop.height and crop.x <= u < crop.x + crop.width for v, u in in_frame]
                if not all(inside):
                    expected.append(t)
                    break
        assert crop.cut_off(masks) == expected
    assert Crop(FRAME, 0, 0, *FRAME).cut_off(np.ones((2, *FRAME), bool)) == []


def test_a_crop_without_an_object_or_of_other_arrays_is_refused() -> None:
    masks = boxes(0)
    for wrong, message in (
        (np.zeros_like(masks), "none of the 3 masks shows an object"),
        (masks.astype(np.uint8), r"are uint8 \[3, 54, 96\]; expected bool"),
        (masks[0], r"are bool \[54, 96\]; expected bool \[T, H, W\]"),
    ):
        for make in (Crop.around, Crop.auto):
            with pytest.raises(InputError, match=message):
                make(wrong)
    for scale in (0.5, -1.0, math.nan, math.inf):
        with pytest.raises(InputError, match=r"`crop=.*: expected a window of 1 or more"):
            Crop.around(masks, scale)
    crop = Crop(FRAME, 9, 24, 18, 32)
    with pytest.raises(InputError, match="pictures are 20x30, expected 54x96"):
        crop.cut(np.zeros((3, 20, 30)))
    with pytest.raises(InputError, match="expected 54x96"):
        crop.cut_depth(np.zeros(FRAME))
    with pytest.raises(InputError, match="expected 18x32"):
        crop.paste(np.zeros((3, *FRAME), bool), False)


def test_an_object_that_resizing_makes_too_small_is_found_by_frame() -> None:
    modal = np.zeros((4, 128, 256), bool)
    modal[0, 40:60, 40:60] = True  # 10x10 are left
    modal[1, 40:46, 40:46] = True  # 3x3
    modal[2, 40:48, 40:48] = True  # 4x4
    assert find_shrunk(modal, (64, 128)) == [1]
    assert find_shrunk(modal, (64, 128), fewest=17) == [1, 2]
    assert find_shrunk(modal[:, ::2, ::2], (64, 128)) == [], "nothing is lost, however small it is"
    assert find_shrunk(modal & False, (64, 128)) == [], "not seen, rather than lost"


def test_an_object_of_which_nothing_is_left_is_refused() -> None:
    modal = np.zeros((3, 1080, 1920), bool)
    modal[:, 500:504, 900:904] = True
    with pytest.raises(InputError, match=r'at most 16 visible .*1080x1920 .*64x128.*`crop="auto"`'):
        find_shrunk(modal, (64, 128))
    assert find_shrunk(Crop.around(modal).cut(modal), (64, 128)) == []
