"""Checks pictures and prepares them for the encoder."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...arrays.interop import Array, as_input
from ...arrays.resampling import opencv_linear
from ...errors import InputError
from ...pictures.images import Checks, Size


def read_picture(image: Any, xp: Any, checks: Checks) -> Array:
    """Reads a picture [h, w, 3], on the host or the device, and checks it.

    Args:
        image: RGB, uint8, or floats in [0, 1].
        checks: collects checks of values on a device.

    Raises:
        InputError: another shape, dtype or range.
    """
    array = as_input(image, "image", xp)
    shape = list(array.shape)
    if array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise InputError(
            f"image has shape {shape}; expected RGB [h, w, 3]{_advice(tuple(array.shape))}.", field="image"
        )
    if array.dtype.kind == "f":
        checks.add(array, _require_unit)
    elif array.dtype != np.uint8:
        raise InputError(
            f"image is {array.dtype}; expected uint8, or floats in [0, 1]: divide it by its largest possible value.",
            field="image",
        )
    return array


def prepare_picture(array: Array, size: Size, xp: Any) -> Array:
    """Prepares a picture that was read for the encoder: float32 [3, H, W] of `xp`, RGB in [0, 1].

    It is resized as a whole, bilinear without antialiasing, after the conversion to floats, as EfficientSAM does.
    """
    unit = xp.asarray(array).astype(np.float32)
    if array.dtype == np.uint8:
        unit /= np.float32(255)
    if unit.shape[:2] != tuple(size):
        if xp is np:
            import cv2

            unit = cv2.resize(unit, size[::-1], interpolation=cv2.INTER_LINEAR)
        else:
            unit = opencv_linear(unit[None], size, xp)[0]
    return xp.ascontiguousarray(unit.transpose(2, 0, 1))


def size_of(array: Array) -> Size:
    """Returns (h, w) of a picture that was read."""
    return int(array.shape[0]), int(array.shape[1])


def _require_unit(low: float, high: float) -> None:
    if not (low >= 0 and high <= 1.0001):  # also for NaN
        raise InputError(
            f"image is float with values from {low:.4g} to {high:.4g}; expected [0, 1]: divide it by 255, or convert "
            "it to uint8.",
            field="image",
        )


def _advice(shape: tuple[int, ...]) -> str:
    """Returns what to do about a picture of some other shape."""
    if not shape:
        return ': read the file, `numpy.asarray(PIL.Image.open(path).convert("RGB"))`'
    if 0 in shape:
        return ", none of them 0"
    if len(shape) == 2:
        return ": repeat a grey picture three times, `numpy.repeat(image[..., None], 3, 2)`"
    if len(shape) == 3 and shape[2] == 4:
        return ": leave out the alpha channel, `image[..., :3]`"
    if len(shape) == 3 and shape[2] == 1:
        return ": repeat a grey picture three times, `numpy.repeat(image, 3, 2)`"
    if len(shape) == 3 and shape[0] == 3:
        return ": put the channels last, `image.transpose(1, 2, 0)`"
    if len(shape) == 4:
        return ": one picture at a time; `encode_images` takes several"
    return ""
