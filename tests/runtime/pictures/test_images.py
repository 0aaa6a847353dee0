"""From what the caller has to what the networks read, and back, against slow references and other people's code."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amodal.runtime.errors import InputError
from amodal.runtime.files.frames import read_frames
from amodal.runtime.files.masks import read_masks
from amodal.runtime.pictures import images
from amodal.runtime.pictures.images import (
    clip_pixels,
    prepare_amodal,
    prepare_depth,
    prepare_modal,
    prepare_rgb,
    rescale_unsigned,
    resize_frames,
    resize_masks,
    threshold,
    to_bytes,
    visible_rgb,
)

SIZE = (8, 16)
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


def noise(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def picture_bytes(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def pillow(picture: Any, size: tuple[int, int]) -> Any:
    return np.asarray(Image.fromarray(picture).resize((size[1], size[0]), Image.Resampling.BILINEAR))


# What CLIP sees.


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [
        (256, 512, 224),  # down on both axes
        (64, 128, 224),  # up on both
        (300, 200, 224),  # down and up
        (224, 224, 224),  # untouched
        (225, 700, 224),
        (64, 96, 32),  # another encoder's side
        (33, 1000, 40),  # a kernel of 47 taps
    ],
)
def test_clips_pixels_are_those_of_diffusers_resize_and_clips_normalisation(height: int, width: int, side: int) -> None:
    torch = pytest.importorskip("torch")
    pytest.importorskip("diffusers")
    from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion as svd

    frames = noise(2, 3, height, width)
    frames[:, 1, height // 3 :] = -1  # edges overshoot, and are not clamped
    resized = svd._resize_with_antialiasing(torch.from_numpy(frames), (side, side))
    unit = ((resized + 1) / 2).numpy()
    expected = (unit - np.reshape(MEAN, (3, 1, 1))) / np.reshape(STD, (3, 1, 1))
    got = clip_pixels(frames, side, MEAN, STD)
    assert got.dtype == np.float32
    assert unit.min() < 0 or (height, width) == (side, side)
    np.testing.assert_allclose(got, expected, rtol=0, atol=5e-6)


def test_each_channel_is_normalised_with_its_own_mean_and_deviation() -> None:
    flat = np.broadcast_to(np.float32([-1, 0, 1]).reshape(1, 3, 1, 1), (1, 3, 64, 128))
    got = clip_pixels(np.ascontiguousarray(flat), 224, MEAN, STD)
    for channel, value in enumerate((0.0, 0.5, 1.0)):
        np.testing.assert_allclose(got[0, channel], (value - MEAN[channel]) / STD[channel], rtol=1e-4)


# diffusers' preprocessing.


def test_a_frame_whose_smallest_value_is_not_below_zero_is_mapped_once_more() -> None:
    frames = noise(5, 3, 8, 16)
    frames[1] = np.abs(frames[1])  # above 0
    frames[1][frames[1] == 0] = 0.5
    frames[2] = np.abs(frames[2])
    frames[2, 1, 4, 4] = 0.0  # exactly 0
    frames[3] = np.abs(frames[3])
    frames[3, 2, 7, 15] = -1e-7  # just below
    frames[4] = 1.0
    got = rescale_unsigned(frames)
    for frame, mapped in zip(frames, got, strict=True):
        np.testing.assert_array_equal(mapped, 2 * frame - 1 if min(frame.flat) >= 0 else frame)
    changed = [bool((a != b).any()) for a, b in zip(frames, got, strict=True)]
    assert changed == [False, True, True, False, False]
    assert got.dtype == np.float32


@pytest.mark.filterwarnings("ignore:Passing `image` as torch tensor:FutureWarning")
def test_the_mapping_is_what_diffusers_own_image_processor_does_to_each_frame() -> None:
    torch = pytest.importorskip("torch")
    processor = pytest.importorskip("diffusers.image_processor").VaeImageProcessor(vae_scale_factor=8)
    frames = noise(4, 3, 16, 16)
    frames[1] = np.abs(frames[1])
    frames[2] = np.abs(frames[2])
    frames[2, 0, 0, 0] = 0.0
    expected = [processor.preprocess(torch.from_numpy(frame[None])).numpy()[0] for frame in frames]
    np.testing.assert_array_equal(rescale_unsigned(frames), np.stack(expected))


# Decoded pictures.


def test_pictures_are_clamped_and_rounded_half_to_even() -> None:
    values = [np.float32(2 * (k + 0.5) / 255 - 1) for k in range(255)]
    values += [np.float32(v) for v in (-1.0, 1.0, -1.7, 42.0, 0.0, 1 / 3)]
    halves = [v / np.float32(2) + np.float32(0.5) for v in values]
    levels = [float(min(max(half, np.float32(0)), np.float32(1)) * np.float32(255)) for half in halves]
    ties = [level for level in levels if level % 1 == 0.5]
    assert {math.floor(tie) % 2 for tie in ties} == {0, 1}, "ties that go up and ties that go down"
    flat = np.broadcast_to(np.asarray(values, np.float32), (1, 3, 1, len(values)))
    got = to_bytes(np.ascontiguousarray(flat))
    assert got.dtype == np.uint8
    assert got.shape == (1, 1, len(values), 3)
    assert got[0, 0, :, 0].tolist() == [round(level) for level in levels]  # Python rounds half to even


def test_pictures_have_their_channels_last() -> None:
    frames = np.full((2, 3, 4, 5), -1, np.float32)
    frames[1, 2, 3, 4] = 1.0
    got = to_bytes(frames)
    assert got.shape == (2, 4, 5, 3)
    assert np.argwhere(got).tolist() == [[1, 3, 4, 2]]


def test_a_pixel_is_object_above_a_channel_sum_of_600() -> None:
    row = np.uint8([[200, 200, 200], [200, 200, 201], [255, 255, 255], [255, 255, 90], [255, 255, 91], [0, 0, 0]])
    modal = np.full((1, 1, 6), -1, np.float32)
    assert threshold(row[None, None], modal).tolist() == [[[False, True, True, False, True, False]]]


def test_the_visible_part_belongs_to_the_object_where_it_is_above_zero() -> None:
    black = np.zeros((1, 1, 4, 3), np.uint8)
    modal = np.float32([[[-1, 0, 1e-6, 1]]])
    got = threshold(black, modal)
    assert got.dtype == bool
    assert got.tolist() == [[[False, False, True, True]]]


def test_only_visible_pixels_keep_their_colour_and_the_rest_is_white() -> None:
    rgb = noise(2, 3, 4, 5)
    modal = noise(2, 4, 5, seed=1)
    modal[0, 0, 0] = 0.0
    got = visible_rgb(rgb, modal)
    assert got.dtype == np.float32
    for t, y, x in np.ndindex(2, 4, 5):
        expected = rgb[t, :, y, x] if modal[t, y, x] > 0 else np.float32([1, 1, 1])
        np.testing.assert_array_equal(got[t, :, y, x], expected)


# Back to the input's size.


@pytest.mark.parametrize("size", [(8, 16), (5, 7), (21, 50), (16, 32)])
def test_masks_are_resized_to_the_nearest_pixel(size: tuple[int, int]) -> None:
    masks = np.random.default_rng(0).random((2, 8, 16)) > 0.5
    got = resize_masks(masks, size)
    assert got.dtype == bool
    assert got.shape == (2, *size)
    for y, x in np.ndindex(size):
        np.testing.assert_array_equal(got[:, y, x], masks[:, y * 8 // size[0], x * 16 // size[1]])


def test_frames_are_resized_linearly_with_half_pixel_centres() -> None:
    frames = picture_bytes(1, 4, 6, 3)
    height, width = 7, 9
    got = resize_frames(frames, (height, width))
    assert got.dtype == np.uint8
    assert got.shape == (1, height, width, 3)
    for i, j in np.ndindex(height, width):
        y, x = min(max((i + 0.5) * 4 / height - 0.5, 0), 3), min(max((j + 0.5) * 6 / width - 0.5, 0), 5)
        top, left = min(int(y), 2), min(int(x), 4)
        v, u = y - top, x - left
        corners = frames[0, top : top + 2, left : left + 2].astype(float)
        expected = (1 - v) * ((1 - u) * corners[0, 0] + u * corners[0, 1]) + v * (
            (1 - u) * corners[1, 0] + u * corners[1, 1]
        )
        assert np.abs(got[0, i, j] - expected).max() < 1


def test_resizing_to_the_size_that_is_there_changes_nothing() -> None:
    masks, frames = np.eye(4, dtype=bool)[None], picture_bytes(2, 4, 4, 3)
    np.testing.assert_array_equal(resize_masks(masks, (4, 4)), masks)
    np.testing.assert_array_equal(resize_frames(frames, (4, 4)), frames)


# Visible masks.


@pytest.mark.parametrize("size", [(8, 16), (30, 50), (4, 4)])
def test_raw_masks_are_binarised_and_then_resized_so_that_edges_are_grey(size: tuple[int, int]) -> None:
    raw = np.where(picture_bytes(3, *size) > 128, np.uint8(200), np.uint8(0))
    got = prepare_modal(raw, SIZE)
    expected = [pillow(np.where(mask > 128, 255, 0).astype(np.uint8), SIZE) for mask in raw]
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, np.stack(expected).astype(np.float64) / 127.5 - 1, atol=1e-6)


def test_bool_masks_masks_of_255_and_masks_of_one_are_the_same() -> None:
    mask = np.random.default_rng(0).random((2, 10, 20)) > 0.5
    expected = prepare_modal(mask, SIZE)
    for raw in (mask * np.uint8(255), mask.astype(np.uint8), mask.astype(np.int64)):
        np.testing.assert_array_equal(prepare_modal(raw, SIZE), expected)


def test_a_value_of_128_is_background() -> None:
    soft = np.uint8([[[0] * 6 + [60, 128, 129, 200] + [255] * 6]])
    assert prepare_modal(soft, (1, 16)).tolist() == [[[-1] * 8 + [1] * 8]]


def test_ids_and_soft_floats_are_read_as_files_are() -> None:
    ids = np.zeros((2, 10, 20), np.uint8)
    ids[:, 2:8, 3:9] = 3
    np.testing.assert_array_equal(prepare_modal(ids, SIZE), prepare_modal(ids == 3, SIZE))
    ids[:, 2:8, 12:18] = 1
    with pytest.raises(InputError, match=r"modal holds 2 objects \(1, 3\); pass .* as bool, such as `modal == 3`"):
        prepare_modal(ids, SIZE)
    np.testing.assert_array_equal(prepare_modal((ids == 3) * np.float32(1), SIZE), prepare_modal(ids == 3, SIZE))


@pytest.mark.parametrize("high", [0.0, 0.9])
def test_floats_of_the_bundles_size_that_may_be_soft_or_prepared_are_refused(high: float) -> None:
    with pytest.raises(InputError, match=r"can be read in two ways: .* pass `modal > 0.5` or `2 "):
        prepare_modal(np.linspace(0, high, 128, dtype=np.float32).reshape(1, *SIZE), SIZE)
    everywhere = np.ones((1, *SIZE), np.float32)
    np.testing.assert_array_equal(prepare_modal(everywhere, SIZE), everywhere)


def test_prepared_masks_are_taken_as_they_are() -> None:
    prepared = noise(2, *SIZE)
    np.testing.assert_array_equal(prepare_modal(prepared, SIZE), prepared)
    got = prepare_modal(prepared.astype(np.float64), SIZE)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, prepared)


@pytest.mark.parametrize(
    ("modal", "message"),
    [
        (np.zeros((8, 16), bool), r"modal has shape \(8, 16\); expected \[T, h, w\]"),
        (np.zeros((0, 8, 16), bool), "none of them 0"),
        (np.zeros((1, 8, 16, 3), np.uint8), r"expected \[T, h, w\]"),
        (np.full((1, 9, 16), -0.5), "floats from -0.5 to -0.5, which may be logits"),
        (np.full((1, 9, 16), np.nan), "modal holds NaN"),
        (np.full((1, 8, 16), 255.0), r"values from 255 to 255; expected \[-1, 1\]"),
        (np.full((1, 8, 16), np.nan), r"expected \[-1, 1\]"),
        (np.full((1, 8, 16), np.inf), r"expected \[-1, 1\]"),
        (np.zeros((1, 8, 16), complex), "modal has dtype complex128"),
        (np.full((1, 8, 16), "mask"), "modal has dtype"),
    ],
)
def test_masks_that_cannot_be_meant_are_refused(modal: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare_modal(modal, SIZE)


# Frames.


@pytest.mark.parametrize("size", [(8, 16), (30, 50), (4, 4)])
def test_raw_frames_are_resized_as_bytes_and_mapped_to_minus_one_to_one(size: tuple[int, int]) -> None:
    raw = picture_bytes(3, *size, 3)
    got = prepare_rgb(raw, SIZE)
    expected = np.stack([pillow(frame, SIZE) for frame in raw]).transpose(0, 3, 1, 2)
    assert got.dtype == np.float32
    assert got.shape == (3, 3, *SIZE)
    np.testing.assert_allclose(got, expected / 127.5 - 1, atol=1e-6)


def test_prepared_frames_are_taken_as_they_are() -> None:
    prepared = noise(2, 3, *SIZE)
    np.testing.assert_array_equal(prepare_rgb(prepared.astype(np.float64), SIZE), prepared)


@pytest.mark.parametrize(
    ("rgb", "message"),
    [
        (np.zeros((8, 16, 3), np.uint8), r"rgb has shape \(8, 16, 3\)"),
        (np.zeros((2, 8, 16, 4), np.uint8), "expected uint8"),
        (np.zeros((0, 8, 16, 3), np.uint8), "expected uint8"),
        (np.zeros((2, 3, 8, 16), np.uint8), "expected uint8"),
        (np.zeros((2, 8, 16, 3), np.float32), r"\[T, 3, 8, 16\]"),
        (np.zeros((2, 8, 16, 3), np.int64), "dtype int64"),
        (np.zeros((2, 3, 9, 16), np.float32), "9x16 where the bundle has 8x16"),
        (np.full((2, 3, 8, 16), 200.0), r"expected \[-1, 1\]"),
        (np.full((2, 3, 8, 16), np.nan), r"expected \[-1, 1\]"),
        (np.zeros((0, 3, 8, 16), np.float32), "rgb has shape"),
    ],
)
def test_frames_that_cannot_be_meant_are_refused(rgb: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare_rgb(rgb, SIZE)


# Depth.


def test_prepared_depth_is_taken_as_it_is_even_where_a_frame_of_it_is_unsigned() -> None:
    prepared = noise(3, *SIZE)
    prepared[1] = np.abs(prepared[1])
    np.testing.assert_array_equal(prepare_depth(prepared, SIZE), prepared)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.uint16])
def test_relative_depth_is_normalised_over_the_whole_clip(dtype: Any) -> None:
    raw = np.random.default_rng(0).integers(3, 200, (4, *SIZE)).astype(dtype)
    got = prepare_depth(raw, SIZE)
    low, high = float(raw.min()), float(raw.max())
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, (raw.astype(np.float64) - low) / (high - low) * 2 - 1, atol=1e-6)
    assert got.min() == -1
    assert got.max() == 1


def test_relative_depth_of_any_size_is_resized_before_it_is_normalised() -> None:
    raw = np.random.default_rng(0).uniform(0, 30, (2, 20, 30)).astype(np.float32)
    resized = np.stack([pillow(frame, SIZE) for frame in raw]).astype(np.float64)
    expected = (resized - resized.min()) / (resized.max() - resized.min()) * 2 - 1
    np.testing.assert_allclose(prepare_depth(raw, SIZE), expected, atol=1e-5)


def test_depth_between_zero_and_one_is_relative() -> None:
    raw = np.random.default_rng(0).uniform(0.2, 0.9, (2, *SIZE)).astype(np.float32)
    got = prepare_depth(raw, SIZE)
    assert (got.min(), got.max()) == (-1, 1)


def test_signed_depth_of_another_size_is_relative() -> None:
    got = prepare_depth(0.5 * noise(2, 4, 4), SIZE)
    assert (got.min(), got.max()) == (-1, 1)


@pytest.mark.parametrize(
    ("depth", "message"),
    [
        (np.zeros(SIZE), r"depth has shape \(8, 16\)"),
        (np.zeros((1, 0, 16)), "none of them 0"),
        (np.zeros((1, *SIZE), bool), "depth has dtype bool; expected numbers"),
        (np.full((1, *SIZE), np.nan), "NaN or infinity"),
        (np.full((1, *SIZE), -np.inf), "NaN or infinity"),
        (np.full((1, *SIZE), 1e300), "NaN or infinity"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_depth_that_cannot_be_meant_is_refused(depth: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare_depth(depth, SIZE)


# Amodal masks.


def test_amodal_masks_may_be_bool_or_integers_of_any_size() -> None:
    masks = np.random.default_rng(0).random((2, *SIZE)) > 0.5
    for given in (masks, masks.astype(np.uint8), masks * np.uint8(255)):
        np.testing.assert_array_equal(prepare_amodal(given, SIZE), masks)
    doubled = masks.repeat(2, axis=1).repeat(2, axis=2)
    np.testing.assert_array_equal(prepare_amodal(doubled, SIZE), masks)


@pytest.mark.parametrize(
    ("amodal", "message"),
    [
        (np.zeros((2, *SIZE), np.float32), "amodal has dtype float32; expected the bool masks of `segment`"),
        (np.zeros(SIZE, bool), "amodal has shape"),
    ],
)
def test_amodal_masks_of_another_kind_are_refused(amodal: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        prepare_amodal(amodal, SIZE)


# The recorded case.


@pytest.fixture(scope="module")
def birdcage(shared: Path) -> Path:
    folder = shared / "samples" / "birdcage"
    if not folder.is_dir():
        pytest.skip(f"{folder} is absent")
    return folder


def test_the_sample_folder_becomes_the_recorded_masks_and_frames(birdcage: Path, recorded: dict[str, Any]) -> None:
    modal = prepare_modal(read_masks(birdcage / "masks"), (64, 128))
    rgb = prepare_rgb(read_frames(birdcage / "rgbs"), (64, 128))
    np.testing.assert_allclose(modal, recorded["modal"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(rgb, recorded["rgb"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(visible_rgb(rgb, modal), recorded["modal_rgb"], rtol=0, atol=1e-6)


def test_the_recorded_pictures_become_the_recorded_masks(recorded: dict[str, Any]) -> None:
    got = threshold(recorded["segment_frames_u8"], recorded["modal"])
    np.testing.assert_array_equal(got, recorded["amodal_masks"] > 0)


def test_the_recorded_depth_counts_as_prepared(recorded: dict[str, Any]) -> None:
    np.testing.assert_array_equal(prepare_depth(recorded["depth"], (64, 128)), recorded["depth"])


def test_the_resize_matrix_is_made_once_per_pair_of_lengths() -> None:
    assert images.resize_matrix(64, 224) is images.resize_matrix(64, 224)
    np.testing.assert_allclose(images.resize_matrix(512, 224).sum(axis=1), 1, rtol=1e-6)
