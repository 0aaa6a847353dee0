"""Turns decoded pictures and arrays into what `pictures.objects.read_object` reads.

- Pictures with a grey palette, or the 216-colour web palette of Pillow's `convert("P")`, were only converted to a
  palette: the colours count. The authors' demo masks are of both kinds.
- In pictures with any other palette (DAVIS, VOC, SAM 2), indices are ids of objects and 0 is the background. If another
  index is black, or one in use is transparent, the palette is in no such order, and the colours count.
- Colours that are grey up to 8 levels, as after JPEG, are grey.
"""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..pictures.objects import MaskPicture

if TYPE_CHECKING:
    from PIL import Image

# JPEG and palette quantisation tint grey by up to this much.
_TINT = 8
_WEB_LEVELS = range(0, 256, 51)
_LOSSY = ("JPEG", "MPO", "JPEG2000", "AVIF")


def decode_mask_picture(image: Image.Image, lossy: bool | None = None) -> MaskPicture:
    """Decodes an opened picture of masks; the caller has applied its orientation.

    Args:
        lossy: whether it was compressed with loss; None to tell by the format, which copies of an image do not have.
    """
    lossy = image.format in _LOSSY if lossy is None else lossy
    transparent = image.info.get("transparency") is not None
    if image.mode == "P":
        palette = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        values = np.asarray(image)
        if _numbers_objects(image, palette, values):
            alpha = np.asarray(image.convert("RGBA"))[..., 3] if transparent else None
            return MaskPicture(values, alpha, True, palette)
        # Dithered greys are as uneven as compressed ones, and up to a step of the web palette from grey.
        dithered = not _is_grey(palette)
        rgb = np.asarray(image.convert("RGB"))
        alpha = np.asarray(image.convert("RGBA"))[..., 3] if transparent else None
        return MaskPicture(_grey_or_colours(rgb, 51 if dithered else _TINT), alpha, lossy=lossy or dithered)
    if image.mode.startswith(("I", "F")):
        values = np.asarray(image)
        return MaskPicture(values.astype(values.dtype.newbyteorder("="), copy=False), lossy=lossy)
    if image.mode in ("1", "L") and not transparent:
        return MaskPicture(np.asarray(image), lossy=lossy)
    if transparent or image.mode not in ("RGB", "RGBA", "LA"):
        keeps_alpha = transparent or image.mode in ("PA", "La", "RGBa")
        image = image.convert("RGBA" if keeps_alpha else "RGB")
    return mask_picture(np.asarray(image), lossy)


def mask_picture(array: NDArray[Any], lossy: bool = False) -> MaskPicture:
    """Wraps one frame of masks.

    Args:
        array: [H, W] of bool, integers or floats; or uint8 [H, W, C] with 1 (grey), 2 (grey and alpha), 3 (RGB) or 4
            (RGBA) channels.
        lossy: whether it was compressed with loss, as the frames of a video.

    Raises:
        InputError: another shape or dtype.
    """
    channels = array.shape[2] if array.ndim == 3 else 1
    if array.ndim not in (2, 3) or channels not in (1, 2, 3, 4) or (channels > 1 and array.dtype != np.uint8):
        raise InputError(
            f"A frame of masks has shape {list(array.shape)} and dtype {array.dtype}; expected [H, W], or uint8 "
            "[H, W, C] with up to 4 channels."
        )
    if array.ndim == 2 or channels == 1:
        return MaskPicture(array.reshape(array.shape[:2]), lossy=lossy)
    alpha = array[..., -1] if channels in (2, 4) else None
    return MaskPicture(array[..., 0] if channels == 2 else _grey_or_colours(array[..., :3]), alpha, lossy=lossy)


def _grey_or_colours(rgb: NDArray[np.uint8], most: int = _TINT) -> NDArray[np.uint8]:
    """Returns colours [H, W, 3]; grey [H, W], as the reference converts it, if tinted by `most` levels."""
    from PIL import Image

    red, green, blue = (np.ascontiguousarray(rgb[..., i]) for i in range(3))
    if np.array_equal(red, green) and np.array_equal(red, blue):
        return red
    high, low = np.maximum(np.maximum(red, green), blue), np.minimum(np.minimum(red, green), blue)
    # Ids written into channels, such as (1, 0, 0), are not tinted black.
    if (high - low).max() > most or high.max() <= 2 * _TINT:
        return rgb
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).convert("L"))


def _numbers_objects(image: Image.Image, palette: NDArray[np.uint8], values: NDArray[np.uint8]) -> bool:
    """Returns whether indices are ids of objects, and 0 is the background."""
    if _is_grey(palette) or set(product(_WEB_LEVELS, repeat=3)) <= set(map(tuple, palette.tolist())):
        return False
    used = np.unique(values)
    used = used[(used > 0) & (used < len(palette))]
    if palette[0].any() and (~palette[used].any(axis=1)).any():
        return False
    transparency = image.info.get("transparency")
    if isinstance(transparency, bytes):
        return all(transparency[index] == 255 for index in used.tolist() if index < len(transparency))
    return transparency is None or transparency not in used


def _is_grey(palette: NDArray[np.uint8]) -> bool:
    return bool((np.ptp(palette, axis=1) <= _TINT).all())
