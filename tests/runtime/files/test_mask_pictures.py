"""What files say of their masks, mode by mode."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amodal.runtime.errors import InputError
from amodal.runtime.files.mask_pictures import decode_mask_picture, mask_picture
from amodal.runtime.pictures.objects import read_object

MASK = np.zeros((20, 30), bool)
MASK[5:15, 8:20] = True
WHITE = Image.fromarray(MASK * np.uint8(255))


def saved(image: Image.Image, format: str = "PNG", **options: Any) -> Image.Image:
    file = io.BytesIO()
    image.save(file, format, **options)
    opened = Image.open(file)
    opened.load()
    return opened


def palette_of(values: Any, *colours: tuple[int, int, int]) -> Image.Image:
    image = Image.fromarray(np.asarray(values, np.uint8))
    image.putpalette([channel for colour in colours for channel in colour])
    return image


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P", "CMYK", "YCbCr", "I", "F", "LA", "RGBA", "I;16"])
def test_one_object_is_read_in_every_mode(mode: str) -> None:
    picture = decode_mask_picture(WHITE.convert(mode))
    np.testing.assert_array_equal(read_object([picture], "masks").masks[0], MASK)


def test_alpha_is_kept_from_channels_and_from_a_transparent_colour() -> None:
    rgba = WHITE.convert("RGBA")
    rgba.putalpha(WHITE)
    keyed = saved(Image.new("RGB", WHITE.size, (9, 200, 9)), transparency=(9, 200, 9))
    assert (decode_mask_picture(keyed).alpha == 0).all()
    for image in (rgba, rgba.convert("LA"), saved(rgba, "WEBP", lossless=True)):
        np.testing.assert_array_equal(decode_mask_picture(image).alpha, MASK * 255)


def test_indices_of_a_palette_are_ids_if_0_is_the_background() -> None:
    ids = decode_mask_picture(palette_of(MASK * 2, (0, 0, 0), (128, 0, 0), (0, 128, 0)))
    assert ids.ids
    np.testing.assert_array_equal(ids.values, MASK * 2)
    ids = decode_mask_picture(saved(palette_of(MASK * 1, (0, 0, 0), (128, 0, 0)), transparency=0))
    assert ids.ids
    assert np.array_equal(ids.alpha, MASK * 255), "for those who ask for it"


def test_a_palette_whose_order_says_nothing_shows_colours() -> None:
    swapped = decode_mask_picture(palette_of(~MASK, (200, 0, 0), (0, 0, 0)))
    assert not swapped.ids
    np.testing.assert_array_equal(read_object([swapped], "masks").masks[0], MASK)
    transparent = saved(palette_of(~MASK, (200, 0, 0), (9, 9, 200)), transparency=1)
    picture = decode_mask_picture(transparent)
    assert not picture.ids
    np.testing.assert_array_equal(picture.alpha, MASK * 255)


def test_the_greys_of_a_jpeg_are_grey_and_small_ids_in_channels_are_not() -> None:
    tinted = decode_mask_picture(saved(WHITE.convert("RGB"), "JPEG", quality=70))
    assert tinted.lossy
    assert tinted.values.ndim == 2
    assert not decode_mask_picture(saved(WHITE)).lossy
    assert mask_picture(np.where(MASK[..., None], np.uint8([1, 0, 0]), np.uint8(0))).values.ndim == 3
    assert mask_picture(np.where(MASK[..., None], np.uint8([250, 252, 255]), np.uint8(0))).values.ndim == 2


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_frames_with_channels_are_read(channels: int) -> None:
    frame = np.repeat((MASK * np.uint8(255))[..., None], channels, axis=2)
    np.testing.assert_array_equal(read_object([mask_picture(frame)], "masks").masks[0], MASK)


@pytest.mark.parametrize("frame", [np.zeros(3), np.zeros((4, 4, 3)), np.zeros((4, 4, 5), np.uint8)])
def test_other_shapes_are_refused(frame: Any) -> None:
    with pytest.raises(InputError, match=r"expected \[H, W\], or uint8 \[H, W, C\] with up to 4 channels"):
        mask_picture(frame)
