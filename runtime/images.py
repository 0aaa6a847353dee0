"""From what the caller has to what the networks read, and back."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import InputError
from .masks import binarise

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Size = tuple[int, int]

THRESHOLD = 600  # of 765: the sum of a pixel's channels above which the decoded picture is object (authors' demo.py)


def prepare_modal(modal: Any, size: Size) -> Floats:
    """Visible masks as the networks read them.

    Args:
        modal: [T, h, w]. Raw: bool or integers, where any value above 128 (or, if the maximum is 1, 1) is object, at
            any size; binarised, then resized as uint8 (PIL bilinear), so that edges are grey. Prepared: floats in
            [-1, 1] at (H, W), taken as they are.
        size: (H, W).

    Returns:
        float32 [T, H, W] in [-1, 1].

    Raises:
        InputError: another shape, dtype or range.
    """
    array = _three_axes(modal, "modal")
    if array.dtype == bool or np.issubdtype(array.dtype, np.integer):
        return to_signed(_resize(binarise(array).astype(np.uint8) * 255, size))
    return _prepared(array, size, "modal", "bool or uint8 masks of any size")


def prepare_rgb(rgb: Any, size: Size) -> Floats:
    """Frames as the networks read them.

    Args:
        rgb: raw uint8 [T, h, w, 3] at any size (resized with PIL, bilinear), or prepared floats [T, 3, H, W] in
            [-1, 1].

    Returns:
        float32 [T, 3, H, W] in [-1, 1].

    Raises:
        InputError: another shape, dtype or range.
    """
    array = np.asarray(rgb)
    if array.dtype == np.uint8 and array.ndim == 4 and array.shape[-1] == 3 and 0 not in array.shape:
        return np.ascontiguousarray(to_signed(_resize(array, size)).transpose(0, 3, 1, 2))
    if not np.issubdtype(array.dtype, np.floating) or array.ndim != 4 or array.shape[1] != 3 or 0 in array.shape:
        raise InputError(
            f"rgb has shape {array.shape} and dtype {array.dtype}; expected uint8 [T, h, w, 3], or floats "
            f"[T, 3, {size[0]}, {size[1]}] in [-1, 1]."
        )
    return _prepared(array, size, "rgb", "uint8 [T, h, w, 3] of any size")


def prepare_depth(depth: Any, size: Size) -> Floats:
    """Depth as the networks read it.

    Args:
        depth: [T, h, w] of numbers. Prepared: floats of size (H, W) within [-1, 1] that reach below 0, taken as they
            are. Anything else is relative depth, nearer is larger, at any size: resized (PIL bilinear) and normalised
            per clip to [-1, 1].

    Returns:
        float32 [T, H, W] in [-1, 1].

    Raises:
        InputError: another shape, no numbers, or NaN.
    """
    array = _three_axes(depth, "depth")
    if not (np.issubdtype(array.dtype, np.floating) or np.issubdtype(array.dtype, np.integer)):
        raise InputError(f"depth has dtype {array.dtype}; expected numbers, nearer is larger.")
    array = array.astype(np.float32)
    if not np.isfinite(array).all():
        raise InputError("depth holds NaN or infinity; expected finite numbers, nearer is larger.")
    if array.shape[1:] == tuple(size) and -1.0 <= array.min() < 0.0 and array.max() <= 1.0:
        return array
    from .depth import normalise_clip

    return normalise_clip(_resize(array, size))


def prepare_amodal(amodal: Any, size: Size) -> Bools:
    """Whole-object masks for the second stage: bool [T, H, W] from bool or integer masks of any size (nearest)."""
    array = _three_axes(amodal, "amodal")
    if not (array.dtype == bool or np.issubdtype(array.dtype, np.integer)):
        raise InputError(f"amodal has dtype {array.dtype}; expected the bool masks of `segment`.")
    return resize_masks(binarise(array), size)


def visible_rgb(rgb: Floats, modal: Floats) -> Floats:
    """Frames with everything but the visible object white: [T, 3, H, W] from rgb and prepared modal masks [T, H, W]."""
    return np.where(modal[:, None] > 0, rgb, np.float32(1.0))


def to_signed(array: Bytes) -> Floats:
    """uint8 to [-1, 1]: x / 127.5 - 1."""
    return array.astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def rescale_unsigned(frames: Floats) -> Floats:
    """The reference's quirk: a frame whose smallest value is >= 0 is mapped once more by 2x - 1.

    diffusers' image preprocessing takes such a frame for one in [0, 1]; the authors call it for each frame alone.

    Args:
        frames: [T, C, H, W].
    """
    unsigned = frames.reshape(len(frames), -1).min(axis=1) >= 0
    return np.where(unsigned[:, None, None, None], 2 * frames - 1, frames)


def to_bytes(frames: Floats) -> Bytes:
    """Decoded pictures [T, 3, H, W] as uint8 [T, H, W, 3]: x / 2 + 0.5, clamped, times 255, rounded half to even."""
    unit = np.clip(frames / 2 + np.float32(0.5), 0, 1)
    return np.ascontiguousarray(np.rint(unit * 255).astype(np.uint8).transpose(0, 2, 3, 1))


def threshold(frames: Bytes, modal: Floats) -> Bools:
    """Amodal masks [T, H, W]: channel sum above 600, united with the visible part (> 0 on the [-1, 1] scale)."""
    whole: Bools = (frames.sum(axis=-1, dtype=np.int32) > THRESHOLD) | (modal > 0)
    return whole


def resize_masks(masks: Bools, size: Size) -> Bools:
    """Masks at another size, nearest neighbour as cv2 takes it."""
    import cv2

    if masks.shape[1:] == tuple(size):
        return masks
    height, width = size
    resized = [cv2.resize(m, (width, height), interpolation=cv2.INTER_NEAREST) for m in masks.astype(np.uint8)]
    return np.stack(resized).astype(bool)


def resize_frames(frames: Bytes, size: Size) -> Bytes:
    """uint8 frames [T, h, w, 3] at another size, linear as cv2 takes it."""
    import cv2

    if frames.shape[1:3] == tuple(size):
        return frames
    height, width = size
    return np.stack([cv2.resize(f, (width, height), interpolation=cv2.INTER_LINEAR) for f in frames])


def clip_pixels(frames: Floats, side: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Floats:
    """Frames as CLIP reads them: antialiased resize as in diffusers' SVD pipeline, then CLIP's normalisation.

    Blur and bicubic interpolation are both linear and separable, so each axis is one matrix.

    Args:
        frames: [T, 3, H, W] in [-1, 1].

    Returns:
        float32 [T, 3, side, side].
    """
    rows, columns = resize_matrix(frames.shape[2], side), resize_matrix(frames.shape[3], side)
    unit = (rows @ frames @ columns.T + 1) / 2
    shape = (1, 3, 1, 1)
    shift, scale = np.reshape(mean, shape), np.reshape(std, shape)
    return ((unit - shift.astype(np.float32)) / scale.astype(np.float32)).astype(np.float32)


@lru_cache(maxsize=16)
def resize_matrix(length: int, side: int) -> Floats:
    """Blur and bicubic interpolation along one axis, as a matrix float32 [side, length].

    Gaussian blur with sigma = max((length / side - 1) / 2, 0.001), a kernel of int(max(4 sigma, 3)) taps made odd and
    reflecting borders (diffusers' `_resize_with_antialiasing`), then bicubic interpolation with aligned corners, a =
    -0.75 and repeated borders (torch's `interpolate`).
    """
    sigma = max((length / side - 1.0) / 2.0, 0.001)
    taps = int(max(4.0 * sigma, 3)) | 1
    offsets = np.arange(taps) - taps // 2
    kernel = np.exp(-(offsets**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    blur = np.zeros((length, length))
    period = max(2 * (length - 1), 1)
    for offset, weight in zip(offsets, kernel, strict=True):
        at = np.abs(np.arange(length) + offset) % period
        np.add.at(blur, (np.arange(length), np.minimum(at, period - at)), weight)

    # Positions are rounded to float32 as torch's are: exact ones gave pixels up to 5e-5 away from its own.
    step = np.float32((length - 1) / (side - 1) if side > 1 else 0.0)
    positions = (np.arange(side, dtype=np.float32) * step).astype(np.float64)
    base = np.floor(positions).astype(int)
    bicubic = np.zeros((side, length))
    for tap in range(-1, 3):
        at = np.clip(base + tap, 0, length - 1)
        np.add.at(bicubic, (np.arange(side), at), _cubic(np.abs(positions - (base + tap))))
    return (bicubic @ blur).astype(np.float32)


def _cubic(x: NDArray[np.float64], a: float = -0.75) -> NDArray[np.float64]:
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


def _three_axes(value: Any, name: str) -> NDArray[Any]:
    array = np.asarray(value)
    if array.ndim != 3 or 0 in array.shape:
        raise InputError(f"{name} has shape {array.shape}; expected [T, h, w], none of them 0.")
    return array


def _prepared(array: NDArray[Any], size: Size, name: str, otherwise: str) -> Floats:
    if not np.issubdtype(array.dtype, np.floating):
        raise InputError(f"{name} has dtype {array.dtype}; expected {otherwise}, or prepared floats in [-1, 1].")
    if array.shape[-2:] != tuple(size):
        raise InputError(
            f"{name} is float, hence prepared, but {array.shape[-2]}x{array.shape[-1]} where the bundle has "
            f"{size[0]}x{size[1]}; give {otherwise}, or resize it."
        )
    array = array.astype(np.float32)
    low, high = float(array.min()), float(array.max())
    if not (math.isfinite(low) and math.isfinite(high) and low >= -1.0001 and high <= 1.0001):
        raise InputError(f"{name} is float with values from {low:.4g} to {high:.4g}; expected [-1, 1], or {otherwise}.")
    return array


def _resize(array: NDArray[Any], size: Size) -> NDArray[Any]:
    from PIL import Image

    height, width = size
    if array.shape[1:3] == (height, width):
        return array
    # Pillow itself, because its fixed-point bilinear filter is part of the reference.
    images = (Image.fromarray(frame).resize((width, height), Image.Resampling.BILINEAR) for frame in array)
    return np.stack([np.asarray(image) for image in images])
