"""Depth preprocessing and postprocessing against slow, obvious references."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from amodal.runtime.errors import InputError
from amodal.runtime.pictures.depth import (
    DEPTH_MEAN,
    DEPTH_STD,
    depth_input_size,
    invert_distances,
    normalise_clip,
    prepare_depth_input,
    quantise_frames,
    resize_align_corners,
)


def slow_input_size(height: int, width: int, side: int, multiple: int) -> tuple[int, int]:
    """The shorter side becomes `side`; each side snaps to the nearest multiple that is not below `side`."""
    scale = side / min(height, width)
    sizes = []
    for length in (height * scale, width * scale):
        multiples = range(multiple, math.ceil(length) + 2 * multiple, multiple)
        best = min(multiples, key=lambda m: (abs(m - length), m // multiple % 2))
        sizes.append(min(m for m in multiples if m >= side) if best < side else best)
    return sizes[0], sizes[1]


def cubic_weight(distance: float) -> float:
    """Keys' cubic with a = -0.75, OpenCV's INTER_CUBIC."""
    a, d = -0.75, abs(distance)
    if d <= 1:
        return (a + 2) * d**3 - (a + 3) * d**2 + 1
    return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0


def slow_cubic(plane: NDArray[np.float64], height: int, width: int) -> NDArray[np.float64]:
    """Half-pixel centres, the border pixel repeated, no antialiasing."""
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = (i + 0.5) * plane.shape[0] / height - 0.5
            x = (j + 0.5) * plane.shape[1] / width - 0.5
            for v in range(math.floor(y) - 1, math.floor(y) + 3):
                for u in range(math.floor(x) - 1, math.floor(x) + 3):
                    pixel = plane[min(max(v, 0), plane.shape[0] - 1), min(max(u, 0), plane.shape[1] - 1)]
                    out[i, j] += pixel * cubic_weight(y - v) * cubic_weight(x - u)
    return out


def frames(count: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ((256, 512), (518, 1036)),
        ((512, 1024), (518, 1036)),
        ((480, 640), (518, 686)),
        ((640, 480), (686, 518)),
        ((1080, 1920), (518, 924)),
        ((518, 518), (518, 518)),
        ((1, 1), (518, 518)),
    ],
)
def test_known_frame_sizes_give_the_authors_input_sizes(frame: tuple[int, int], expected: tuple[int, int]) -> None:
    assert depth_input_size(*frame) == expected


def test_the_input_size_is_the_nearest_multiple_not_below_the_side() -> None:
    rng = np.random.default_rng(0)
    for side, multiple in ((518, 14), (500, 14), (28, 14), (30, 14), (64, 16)):
        for height, width in rng.integers(8, 1500, (60, 2)).tolist():
            expected = slow_input_size(height, width, side, multiple)
            assert depth_input_size(height, width, side, multiple) == expected, (height, width, side)


def test_a_side_between_two_multiples_goes_up_when_the_nearest_is_below_the_side() -> None:
    assert depth_input_size(100, 100, side=500) == (504, 504)
    assert depth_input_size(100, 100, side=492) == (504, 504)  # 490 is nearer, and too small


def test_preparing_frames_equals_the_definition_pixel_by_pixel() -> None:
    rgb = frames(2, 10, 17)
    prepared = prepare_depth_input(rgb, side=28)
    height, width = depth_input_size(10, 17, 28)
    assert prepared.shape == (2, 3, height, width)
    for t in range(2):
        for channel in range(3):
            plane = rgb[t, :, :, 2 - channel].astype(np.float64) / 255  # the swap puts blue first
            expected = (slow_cubic(plane, height, width) - DEPTH_MEAN[channel]) / DEPTH_STD[channel]
            # OpenCV's weights are float32.
            np.testing.assert_allclose(prepared[t, channel], expected, rtol=0, atol=1e-5)


def test_the_channels_are_blue_first_as_in_the_demo_or_red_first_as_in_the_evaluation() -> None:
    rgb = frames(2, 10, 17)
    np.testing.assert_array_equal(prepare_depth_input(rgb, side=28), prepare_depth_input(rgb, side=28, channels="demo"))
    prepared = prepare_depth_input(rgb, side=28, channels="rgb")
    height, width = depth_input_size(10, 17, 28)
    for channel in range(3):
        plane = rgb[1, :, :, channel].astype(np.float64) / 255
        expected = (slow_cubic(plane, height, width) - DEPTH_MEAN[channel]) / DEPTH_STD[channel]
        np.testing.assert_allclose(prepared[1, channel], expected, rtol=0, atol=1e-5)
    with pytest.raises(InputError, match="depth_channels 'bgr' is unknown; expected demo or rgb"):
        prepare_depth_input(rgb, channels="bgr")  # type: ignore[arg-type]


def test_distances_of_a_network_are_inverted_and_rounding_to_zero_does_no_harm() -> None:
    distances = np.array([[[2.0, 10.0, 0.0, 80.0]]], np.float32)
    np.testing.assert_allclose(invert_distances(distances), [[[0.5, 0.1, 12.5, 0.0125]]], rtol=1e-6)
    assert np.isfinite(invert_distances(np.zeros((1, 2, 2), np.float32))).all()


@pytest.mark.parametrize("size", [(256, 512), (37, 61), (540, 400)])
def test_preparing_frames_is_bit_for_bit_what_opencv_does_in_the_authors_order(size: tuple[int, int]) -> None:
    rgb = frames(2, *size)
    height, width = depth_input_size(*size)
    for frame, prepared in zip(rgb, prepare_depth_input(rgb), strict=True):
        image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB) / 255.0
        image = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
        image = (image - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
        np.testing.assert_array_equal(prepared, np.transpose(image, (2, 0, 1)).astype(np.float32))


def test_the_networks_input_is_contiguous_float32() -> None:
    prepared = prepare_depth_input(frames(1, 12, 20), side=28)
    assert prepared.dtype == np.float32
    assert prepared.flags.c_contiguous


def test_quantised_frames_are_the_demos_truncation() -> None:
    values = np.arange(256, dtype=np.uint8)
    prepared = values.astype(np.float32) / np.float32(127.5) - 1
    prepared = np.broadcast_to(prepared.reshape(1, 1, 16, 16), (1, 3, 16, 16)).copy()
    frame = quantise_frames(prepared)
    expected = np.array([v - 1 if 1 <= v <= 63 else v for v in range(256)], dtype=np.uint8)
    for channel in range(3):
        np.testing.assert_array_equal(frame[0, :, :, channel].ravel(), expected)


def test_quantised_frames_are_what_torch_gives_the_demo() -> None:
    torch = pytest.importorskip("torch")
    prepared = torch.rand(2, 3, 9, 11, generator=torch.Generator().manual_seed(0)) * 2 - 1
    scaled = ((prepared + 1.0) / 2.0) * 255
    expected = scaled.numpy().astype(np.uint8).transpose(0, 2, 3, 1)
    np.testing.assert_array_equal(quantise_frames(prepared.numpy()), expected)


def slow_align_corners(plane: NDArray[np.float32], height: int, width: int) -> NDArray[np.float64]:
    out = np.zeros((height, width))
    for i in range(height):
        for j in range(width):
            y = i * (plane.shape[0] - 1) / (height - 1) if height > 1 else 0.0
            x = j * (plane.shape[1] - 1) / (width - 1) if width > 1 else 0.0
            y0, x0 = min(int(y), plane.shape[0] - 1), min(int(x), plane.shape[1] - 1)
            y1, x1 = min(y0 + 1, plane.shape[0] - 1), min(x0 + 1, plane.shape[1] - 1)
            top = plane[y0, x0] * (1 - x + x0) + plane[y0, x1] * (x - x0)
            bottom = plane[y1, x0] * (1 - x + x0) + plane[y1, x1] * (x - x0)
            out[i, j] = top * (1 - y + y0) + bottom * (y - y0)
    return out


SIZES = [((28, 42), (16, 32)), ((14, 28), (37, 50)), ((1, 5), (3, 1)), ((9, 9), (9, 9)), ((7, 3), (7, 11))]


@pytest.mark.parametrize(("source", "target"), SIZES)
def test_resizing_equals_the_definition(source: tuple[int, int], target: tuple[int, int]) -> None:
    depth = np.random.default_rng(1).random((2, *source), dtype=np.float32) * 50
    resized = resize_align_corners(depth, target)
    assert resized.dtype == np.float32
    for plane, result in zip(depth, resized, strict=True):
        # Positions are float32, as torch's are: off by 1e-5 pixels, between neighbours up to 50 apart.
        np.testing.assert_allclose(result, slow_align_corners(plane, *target), rtol=0, atol=5e-4)


@pytest.mark.parametrize(("source", "target"), [*SIZES, ((518, 1036), (256, 512))])
def test_resizing_equals_torch(source: tuple[int, int], target: tuple[int, int]) -> None:
    torch = pytest.importorskip("torch")
    depth = np.random.default_rng(2).random((2, *source), dtype=np.float32) * 50
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(depth)[:, None], target, mode="bilinear", align_corners=True
    )[:, 0].numpy()
    np.testing.assert_allclose(resize_align_corners(depth, target), expected, rtol=1e-6, atol=1e-5)


def test_normalising_uses_the_whole_clips_extremes() -> None:
    depth = np.random.default_rng(3).random((4, 5, 6), dtype=np.float32) * 70 + 3
    depth[0] += 20
    expected = (depth - depth.min()) / (depth.max() - depth.min()) * 2 - 1
    result = normalise_clip(depth)
    np.testing.assert_array_equal(result, expected)
    assert result.dtype == np.float32
    assert (result.min(), result.max()) == (-1, 1)
    assert result[1].max() < 1


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.uint8, np.uint16, np.int32])
def test_normalising_takes_other_number_types(dtype: Any) -> None:
    depth = np.arange(24).reshape(2, 3, 4).astype(dtype)
    result = normalise_clip(depth)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result.ravel(), np.linspace(-1, 1, 24), rtol=0, atol=1e-6)


def test_a_constant_clip_is_far_everywhere() -> None:
    np.testing.assert_array_equal(normalise_clip(np.full((2, 3, 4), 7.5, np.float32)), np.full((2, 3, 4), -1))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_depth_that_is_not_finite_is_refused(bad: float) -> None:
    depth = np.zeros((2, 3, 4), np.float32)
    depth[1, 2, 3] = bad
    with pytest.raises(InputError, match="not finite"):
        normalise_clip(depth)


def test_arrays_of_another_form_are_refused() -> None:
    rgb = frames(1, 8, 8)
    with pytest.raises(InputError, match=r"uint8 \[T, H, W, 3\]"):
        prepare_depth_input(rgb.astype(np.float32))
    with pytest.raises(InputError, match=r"\[8, 8, 3\]"):
        prepare_depth_input(rgb[0])
    with pytest.raises(InputError, match=r"outside \[-1, 1\]"):
        quantise_frames(np.full((1, 3, 2, 2), 1.5, np.float32))
    with pytest.raises(InputError, match=r"outside \[-1, 1\]"):
        quantise_frames(np.full((1, 3, 2, 2), np.nan, np.float32))
    with pytest.raises(InputError, match=r"float32 \[T, 3, H, W\]"):
        quantise_frames(np.zeros((1, 2, 2, 3), np.float32))
    with pytest.raises(InputError, match="resized"):
        resize_align_corners(np.zeros((2, 2), np.float32), (4, 4))
    with pytest.raises(InputError, match="bool"):
        normalise_clip(np.zeros((1, 2, 2), bool))
    with pytest.raises(InputError, match="0x5"):
        depth_input_size(0, 5)
