"""The padded-frame protocol, against the authors' evaluation step by step and against plain loops."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from amodal.runtime.errors import InputError
from amodal.runtime.pictures.padding import Padding, protocol_boxes

HEIGHT, WIDTH, NETWORK = 37, 58, (32, 48)
PADDING = Padding(HEIGHT, WIDTH)


def clip_of(seed: int) -> tuple[Any, Any]:
    """Masks bool [3, H, W] at the left border, and depth of any range."""
    rng = np.random.default_rng(seed)
    modal = np.zeros((3, HEIGHT, WIDTH), bool)
    for i, (top, high, wide) in enumerate(rng.integers(5, 15, (3, 3))):
        modal[i, top : top + high, :wide] = True
    return modal, rng.uniform(-3, 40, modal.shape).astype(np.float32)


def as_the_authors(unit: Any, value: int) -> Any:
    """Their evaluation: constants around each frame in [0, 1], cv2's resize, then [-1, 1]."""
    out = []
    for frame in unit:
        around = np.full((HEIGHT + 2 * (HEIGHT // 4), WIDTH + 2 * (WIDTH // 4), 3), float(value))
        around[HEIGHT // 4 : HEIGHT // 4 + HEIGHT, WIDTH // 4 : WIDTH // 4 + WIDTH] = frame[..., None]
        out.append(cv2.resize(around, NETWORK[::-1]) * 2 - 1)
    return np.stack(out)


@pytest.mark.parametrize("seed", [0, 1])
def test_masks_and_depth_are_prepared_as_by_the_authors(seed: int) -> None:
    modal, depth = clip_of(seed)
    for raw in (modal, modal.astype(np.uint8) * np.uint8(255), modal.astype(np.uint8)):
        got = PADDING.prepare_modal(raw, NETWORK)
        assert got.dtype == np.float32
        for channel in range(3):
            np.testing.assert_allclose(got, as_the_authors(modal, 0)[..., channel], atol=1e-6)
    unit = (depth - depth.min()) / (depth.max() - depth.min())
    got = PADDING.prepare_depth(depth, NETWORK)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, as_the_authors((unit * 255).astype(np.uint8) / 255.0, 1)[..., 0], atol=1e-6)
    assert (got[:, 0] == 1).all()
    assert -1 <= got.min() < 0


def test_depth_of_another_size_kind_or_range_is_brought_to_the_frames_size() -> None:
    levels = np.linspace(0, 65535, WIDTH).round().astype(np.uint16)
    wide = np.broadcast_to(levels, (2, HEIGHT, WIDTH))
    narrow = np.stack([wide[:, 0], wide[:, 0]], axis=1)[:, :, [0, -1]]  # the same ramp by its corners
    expected = PADDING.prepare_depth(wide, NETWORK)
    difference = np.abs(PADDING.prepare_depth(narrow, NETWORK) - expected)
    assert difference.max() <= 2 / 255 + 1e-6
    np.testing.assert_array_equal(PADDING.prepare_depth(wide.astype(np.float32) / 65536 - 7, NETWORK), expected)
    flat = PADDING.prepare_depth(np.full((1, 5, 5), 3.0), NETWORK)[0]
    assert (flat[16, 24], flat[0, 0]) == (-1, 1), "a frame without depth is far, and what is around it near"


def test_masks_are_the_bright_pixels_of_the_enlarged_picture_and_the_visible_ones() -> None:
    modal, _ = clip_of(3)
    pictures = np.random.default_rng(3).integers(150, 256, (3, *NETWORK, 3), np.uint8)
    got = PADDING.masks(pictures, modal)
    rows, columns = HEIGHT // 4, WIDTH // 4
    for t, picture in enumerate(pictures):
        bright = cv2.resize(picture, (WIDTH + 2 * columns, HEIGHT + 2 * rows)).astype(int).sum(axis=-1) > 600
        bright[rows : rows + HEIGHT, columns : columns + WIDTH] |= modal[t]
        np.testing.assert_array_equal(got[t], bright)
    assert not got.all()
    assert (PADDING.crop(got) | ~modal).all()


@pytest.mark.parametrize("shape", [(2, HEIGHT, WIDTH), (2, HEIGHT, WIDTH, 3)])
def test_cropping_undoes_padding(shape: tuple[int, ...]) -> None:
    pictures = np.random.default_rng(0).integers(0, 255, shape, np.uint8)
    white, edge = PADDING.pad(pictures, 255), PADDING.pad(pictures)
    for padded in (white, edge):
        assert padded.shape[:3] == (2, *PADDING.size) == (2, HEIGHT + 18, WIDTH + 28)
        np.testing.assert_array_equal(PADDING.crop(padded), pictures)
    assert (white[:, 8] == 255).all()
    assert (white[:, :, -14] == 255).all()
    np.testing.assert_array_equal(edge[:, 0, 14:-14], pictures[:, 0])


def test_an_object_that_leaves_the_frame_gets_a_box_beyond_it() -> None:
    padding = Padding(8, 12)
    modal = np.zeros((1, 8, 12), bool)
    modal[0, 3:6, 0:2] = True
    whole = np.zeros((1, *padding.size), bool)
    whole[0, 2 + 3 : 2 + 6, 0 : 3 + 2] = True
    assert padding.boxes(whole, modal).tolist() == [[-3, 3, 5, 3]]


def test_boxes_without_a_prediction_or_without_anything() -> None:
    modal = np.zeros((2, 8, 12), bool)
    modal[0, 3:6, 2:4] = True
    nothing = np.zeros((2, 8, 12), bool)
    assert protocol_boxes(nothing, modal).tolist() == [[2, 3, 2, 3], [0, 0, 0, 0]]


def test_what_does_not_fit_is_refused() -> None:
    modal, depth = clip_of(0)
    with pytest.raises(InputError, match="expected sides of 4 pixels"):
        Padding(3, 100)
    with pytest.raises(InputError, match="36x58, expected 37x58"):
        PADDING.pad(modal[:, 1:], 0)
    with pytest.raises(InputError, match="37x58, expected 55x86"):
        PADDING.crop(modal)
    for prepared in (depth, modal[0]):
        with pytest.raises(InputError, match=r"expected raw bool or uint8 masks \[T, 37, 58\]"):
            PADDING.prepare_modal(prepared, NETWORK)
    with pytest.raises(InputError, match="36x58, expected 37x58"):
        PADDING.masks(np.zeros((3, *NETWORK, 3), np.uint8), modal[:, 1:])
    depth[1, 2, 3] = np.nan
    with pytest.raises(InputError, match="NaN or infinity"):
        PADDING.prepare_depth(depth, NETWORK)
    with pytest.raises(InputError, match=r"expected float \[T, h, w\]"):
        PADDING.prepare_depth(modal, NETWORK)
