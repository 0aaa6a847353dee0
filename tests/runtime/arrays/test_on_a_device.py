"""What is done on a device equals what is done on the host: the same functions, with the stand-in for CuPy as `xp`.

The stand-in computes with numpy; that a GPU rounds as IEEE 754 says is for tests on one.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import PIL
import pytest
from numpy.typing import NDArray
from PIL import Image

from amodal.runtime.arrays.resampling import opencv_cubic, opencv_linear, opencv_nearest, pillow_bilinear
from amodal.runtime.errors import InputError
from amodal.runtime.pictures import depth, images
from amodal.runtime.pictures.padding import Padding
from amodal.runtime.sampling.noise import NoiseStream

SIZES = [
    ((48, 85), (64, 128)),
    ((180, 160), (64, 128)),
    ((64, 128), (120, 213)),
    ((64, 128), (32, 64)),
    ((5, 3), (7, 11)),
    ((1, 1), (4, 4)),
    ((9, 200), (9, 31)),
    ((33, 40), (33, 40)),
]
SIZE = (32, 48)


def pictures(*shape: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def opencv(frames: NDArray[Any], size: tuple[int, int], how: int) -> NDArray[Any]:
    return np.stack([cv2.resize(frame, size[::-1], interpolation=how) for frame in frames])


def same(on_device: Any, on_host: NDArray[Any], device: Any) -> None:
    assert isinstance(on_device, device.ndarray)
    got = device.asnumpy(on_device)
    assert (got.dtype, got.shape) == (on_host.dtype, on_host.shape)
    np.testing.assert_array_equal(got, on_host)


# Resizing, against the libraries.


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_pictures_are_resized_as_pillow_does(before: Any, after: Any, channels: tuple[int, ...], device: Any) -> None:
    frames = pictures(2, *before, *channels)
    expected = np.stack([np.asarray(Image.fromarray(f).resize(after[::-1], Image.Resampling.BILINEAR)) for f in frames])
    # From 13 on, Pillow may do rows before columns, which rounds otherwise.
    near = int(PIL.__version__.split(".")[0]) >= 13 and after[0] < before[0]
    for got in (pillow_bilinear(frames, after), device.asnumpy(pillow_bilinear(frames, after, device))):
        assert got.dtype == np.uint8
        assert np.abs(got.astype(int) - expected).max() <= near


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_depth_is_resized_as_pillow_does(before: Any, after: Any, device: Any) -> None:
    maps = np.random.default_rng(0).normal(3, 100, (2, *before)).astype(np.float32)
    expected = np.stack([np.asarray(Image.fromarray(f).resize(after[::-1], Image.Resampling.BILINEAR)) for f in maps])
    got = device.asnumpy(pillow_bilinear(maps, after, device))
    assert got.dtype == np.float32
    near = int(PIL.__version__.split(".")[0]) >= 13 and after[0] < before[0]
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * near)


@pytest.mark.parametrize("channels", [(), (3,)])
@pytest.mark.parametrize(("before", "after"), SIZES)
def test_pictures_are_resized_as_opencv_does(before: Any, after: Any, channels: tuple[int, ...], device: Any) -> None:
    frames = pictures(2, *before, *channels)
    on_device = device.asarray(frames)
    same(opencv_linear(on_device, after, device), opencv(frames, after, cv2.INTER_LINEAR), device)
    same(opencv_nearest(on_device, after, device), opencv(frames, after, cv2.INTER_NEAREST), device)
    floats = frames / 255
    linear = device.asnumpy(opencv_linear(device.asarray(floats), after, device))
    np.testing.assert_allclose(linear, opencv(floats, after, cv2.INTER_LINEAR), rtol=0, atol=2e-5)
    cubic = device.asnumpy(opencv_cubic(device.asarray(floats), after, device))
    np.testing.assert_allclose(cubic, opencv(floats, after, cv2.INTER_CUBIC), rtol=0, atol=1e-6)


def test_a_clip_that_is_resized_in_pieces_is_the_same_and_is_uploaded_once(
    device: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = pictures(5, 40, 50, 3)
    whole = pillow_bilinear(frames, SIZE)
    monkeypatch.setattr("amodal.runtime.arrays.resampling._PIECE", 2 * 40 * 50 * 3)
    same(pillow_bilinear(frames, SIZE, device), whole, device)
    assert sorted(device.uploads)[-3:] == [40 * 50 * 3, 2 * 40 * 50 * 3, 2 * 40 * 50 * 3]


# Preparing.


@pytest.mark.parametrize("where", ["host", "device"])
@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("modal", pictures(2, 40, 50) > 128),
        ("modal", (pictures(2, 40, 50) > 128) * np.uint8(200)),
        ("modal", (pictures(2, 40, 50) > 128) * np.uint16(3)),
        ("modal", (pictures(2, 40, 50) > 128).astype(np.int64)),
        ("modal", (pictures(2, 40, 50) > 128).astype(np.int8)),
        ("modal", pictures(2, *SIZE) / np.float32(127.5) - 1),
        ("rgb", pictures(2, 40, 50, 3)),
        ("rgb", pictures(2, 3, *SIZE) / 127.5 - 1),
        ("depth", pictures(2, 40, 50)),
        ("depth", pictures(2, 40, 50) * 0.37 - 12),
        ("depth", pictures(2, *SIZE) / np.float32(127.5) - 1),
        ("depth", pictures(2, *SIZE) / np.float32(255)),
        ("depth", np.full((2, *SIZE), 3.0)),
    ],
)
def test_what_the_caller_has_is_prepared_alike(name: str, given: Any, where: str, device: Any) -> None:
    prepare: Any = {"modal": images.prepare_modal, "rgb": images.prepare_rgb, "depth": images.prepare_depth}[name]
    if where == "device":
        given_there, before = device.asarray(given), len(device.downloads)
    else:
        given_there, before = given, 0
    checks = images.Checks(device)
    got = prepare(given_there, SIZE, device, checks)
    assert len(device.downloads) == before, "nothing was looked at"
    checks.raise_pending(device.asnumpy)
    expected = prepare(given, SIZE)
    if name == "depth" and given.shape[1] > SIZE[0]:  # Pillow 13's other order, in the last bits
        np.testing.assert_allclose(device.asnumpy(got), expected, rtol=0, atol=1e-6)
    elif given.shape[1] > SIZE[0] and given.ndim > 2:
        assert np.abs(device.asnumpy(got) - expected).max() <= 1.001 / 127.5
    else:
        same(got, expected, device)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("modal", 1.5, "from 0 to 1.5"),
        ("modal", 0.5, "from 0 to 0.5, which can be read in two ways"),
        ("modal", np.nan, "from nan to nan"),
        ("depth", np.inf, "NaN or infinity"),
    ],
)
def test_values_on_a_device_are_looked_at_together(name: str, value: float, message: str, device: Any) -> None:
    bad = np.zeros((1, *SIZE), np.float32)
    bad[0, 3, 4] = value
    checks = images.Checks(device)
    images.prepare_rgb(np.zeros((1, 3, *SIZE), np.float32), SIZE, device, checks)
    prepare: Any = {"modal": images.prepare_modal, "depth": images.prepare_depth}[name]
    prepare(device.asarray(bad), SIZE, device, checks)
    assert not device.waits
    with pytest.raises(InputError, match=message):
        checks.raise_pending(device.asnumpy)
    assert device.waits == 1


@pytest.mark.parametrize("name", ["modal", "amodal"])
def test_integers_of_several_values_on_a_device_are_refused_with_the_other_checks(name: str, device: Any) -> None:
    masks = np.zeros((2, *SIZE), np.uint8)
    masks[:, :4], masks[:, 8:12] = 1, 2
    prepare: Any = {"modal": images.prepare_modal, "amodal": images.prepare_amodal}[name]
    checks = images.Checks(device)
    prepare(device.asarray(masks), SIZE, device, checks)
    assert not device.waits
    with pytest.raises(InputError, match=rf"{name} holds several values besides 0; on a device, .* `{name} == 3`"):
        checks.raise_pending(device.asnumpy)


def test_what_the_networks_see_and_draw_is_the_same(device: Any) -> None:
    rng = np.random.default_rng(1)
    frames = rng.uniform(-1, 1, (3, 3, *SIZE)).astype(np.float32)
    frames[1] = np.abs(frames[1])
    modal = rng.uniform(-1, 1, (3, *SIZE)).astype(np.float32)
    there, seen = device.asarray(frames), device.asarray(modal)
    same(images.visible_rgb(there, seen, device), images.visible_rgb(frames, modal), device)
    same(images.rescale_unsigned(there, device), images.rescale_unsigned(frames), device)
    drawn = images.to_bytes(3 * frames)
    same(images.to_bytes(3 * there, device), drawn, device)
    masks = images.threshold(drawn, modal)
    same(images.threshold(device.asarray(drawn), seen), masks, device)
    same(images.resize_masks(device.asarray(masks), (50, 31), device), images.resize_masks(masks, (50, 31)), device)
    same(images.resize_frames(device.asarray(drawn), (50, 31), device), images.resize_frames(drawn, (50, 31)), device)
    same(images.prepare_amodal(masks, (9, 7), device), images.prepare_amodal(masks, (9, 7)), device)
    statistics: Any = (28, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    clip = device.asnumpy(images.clip_pixels(there, *statistics, device))
    np.testing.assert_allclose(clip, images.clip_pixels(frames, *statistics), rtol=0, atol=2e-6)


def test_depth_is_found_alike(device: Any) -> None:
    prepared = images.prepare_rgb(pictures(2, *SIZE, 3), SIZE)
    frames = depth.quantise_frames(prepared)
    same(depth.quantise_frames(device.asarray(prepared), device), frames, device)
    pixels = device.asnumpy(depth.prepare_depth_input(device.asarray(frames), side=28, xp=device))
    np.testing.assert_allclose(pixels, depth.prepare_depth_input(frames, side=28), rtol=0, atol=1e-6)
    maps = np.random.default_rng(0).normal(size=(2, 28, 42)).astype(np.float32)
    resized = depth.resize_align_corners(maps, SIZE)
    same(depth.resize_align_corners(device.asarray(maps), SIZE, device), resized, device)
    same(depth.normalise_clip(device.asarray(resized), device), depth.normalise_clip(resized), device)


def test_padded_frames_are_prepared_and_drawn_alike(device: Any) -> None:
    padding, modal = Padding(40, 56), pictures(2, 40, 56) > 128
    maps, drawn = np.random.default_rng(0).random((2, 20, 30), np.float32), pictures(2, *SIZE, 3)
    for given in (modal, device.asarray(modal)):
        got = device.asnumpy(padding.prepare_modal(given, SIZE, device))
        np.testing.assert_allclose(got, padding.prepare_modal(modal, SIZE), rtol=0, atol=5e-5)
        same(padding.masks(device.asarray(drawn), given, device), padding.masks(drawn, modal), device)
    got = device.asnumpy(padding.prepare_depth(device.asarray(maps), SIZE, device))
    np.testing.assert_allclose(got, padding.prepare_depth(maps, SIZE), rtol=0, atol=5e-5)


# Noise: words from the host, the rest on the device.


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("shape", [(), (3,), (0,), (16,), (2, 7, 5), (1, 25, 4, 8, 16), (70_001,)])
def test_noise_made_on_a_device_has_the_same_bits(shape: tuple[int, ...], dtype: Any, device: Any) -> None:
    first, second = NoiseStream(23), NoiseStream(23)
    for _ in range(2):  # the second shows that both used up the same words
        expected = first.randn(shape, dtype)
        drawn = second.draw(shape, dtype)
        got = device.asnumpy(drawn.normals(device))
        assert (got.dtype, got.shape) == (expected.dtype, expected.shape)
        assert got.tobytes() == expected.tobytes() == drawn.normals().tobytes()


def test_noise_in_several_passes_has_the_same_bits(device: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = NoiseStream(7).randn((1000,))
    monkeypatch.setattr("amodal.runtime.sampling.noise._DEVICE_PASS", 16 * 11)
    drawn = NoiseStream(7).draw((1000,))
    assert len(drawn.pieces) == 7
    assert device.asnumpy(drawn.normals(device)).tobytes() == expected.tobytes()
    assert set(device.uploads) == {4 * 16 * 11, 4 * (992 % 176), 4 * 16}, "words, and nothing else"
