"""Prepares the caller's pictures for the networks, and turns decoded pictures into results.

Written against the array API: `xp` is the backend's, numpy or CuPy, and results are its arrays. Inputs on the host are
uploaded once and converted a few frames at a time, to take little memory on the device. On the host Pillow and OpenCV
resize; on a device `resampling` computes the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..arrays.interop import Array, namespace_of
from ..arrays.resampling import opencv_linear, opencv_nearest, pillow_bilinear
from ..errors import InputError
from .objects import MaskPicture, read_object
from .reading import advice_on_array

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
Size = tuple[int, int]

Judge = Callable[[float, float], None]
"""Raises `InputError` if the smallest and largest value (NaN if any is NaN) are not as expected."""

THRESHOLD = 600  # of 765: a decoded pixel is object if its channels sum to more (authors' demo.py)


class Checks:
    """Range checks of arrays on a device, read together, so that the host waits once; on the host, done at once."""

    def __init__(self, xp: Any = np) -> None:
        self._xp = xp
        self._pending: list[tuple[Array, Judge]] = []

    def add(self, array: Array, judge: Judge) -> None:
        """Adds a check, or does it if the array is on the host."""
        xp = namespace_of(array, self._xp)
        limits = xp.stack([array.min(), array.max()])
        if xp is np:
            judge(*map(float, limits))
        else:
            self._pending.append((limits.astype(np.float64), judge))

    def raise_pending(self, to_host: Callable[[Array], NDArray[Any]]) -> None:
        """Does the pending checks; if there are any, waits for the device."""
        pending, self._pending = self._pending, []
        if pending:
            fetched = to_host(self._xp.stack([limits for limits, _ in pending]))
            for (_, judge), limits in zip(pending, fetched, strict=True):
                judge(*map(float, limits))


def prepare_modal(modal: Array, size: Size, xp: Any = np, checks: Checks | None = None) -> Floats:
    """Prepares visible masks for the networks: float32 [T, H, W] in [-1, 1].

    Args:
        modal: [T, h, w], numpy's or of `xp`. Raw: bool, integers, or floats in [0, 1] of another size than `size`, read
            by `binarise` and resized as uint8 (PIL bilinear), so that edges are grey. Prepared: floats in [-1, 1] of
            `size`, some below 0, used as they are.
        size: (H, W).
        checks: collects the checks of values on a device; None to wait for them here.

    Raises:
        InputError: another shape, dtype or range, several objects, or values that can be read in two ways.
    """
    _require_three_axes(modal, "modal")
    if is_raw(modal, size, xp):
        grey = binarise(modal, "modal", xp, checks).astype(np.uint8) * np.uint8(255)
        return to_signed(_resize(grey, size, xp))
    return _prepared(modal, size, "modal", "bool or uint8 masks of any size", xp, checks, _require_signed)


def resize_modal(modal: Array, size: Size, xp: Any = np) -> Bytes:
    """Resizes visible masks bool [T, h, w] to grey levels uint8 [T, H, W] (PIL bilinear); visible is 128 and more."""
    return cast("Bytes", _resize(modal.astype(np.uint8) * np.uint8(255), size, xp))


def is_raw(modal: Array, size: Size, xp: Any = np) -> bool:
    """Tells whether masks are raw, not prepared: bool, integers, or floats in host memory of another size."""
    if modal.dtype.kind == "f":
        return namespace_of(modal, xp) is np and modal.shape[-2:] != tuple(size)
    return modal.dtype.kind in "biu"


def _require_signed(low: float, high: float) -> None:
    if low >= 0 and not low == high == 1:
        raise InputError(
            f"modal holds floats from {low:.4g} to {high:.4g}, which can be read in two ways: as a soft mask, where 0 "
            "is background, or as prepared, where -1 is; pass `modal > 0.5` or `2 * modal - 1`."
        )


def prepare_rgb(rgb: Array, size: Size, xp: Any = np, checks: Checks | None = None) -> Floats:
    """Prepares frames for the networks: float32 [T, 3, H, W] in [-1, 1].

    Args:
        rgb: raw uint8 [T, h, w, 3] of any size (PIL bilinear), or prepared floats [T, 3, H, W] in [-1, 1].
        size, checks: as for `prepare_modal`.

    Raises:
        InputError: another shape, dtype or range.
    """
    if rgb.dtype == np.uint8 and rgb.ndim == 4 and rgb.shape[-1] == 3 and 0 not in rgb.shape:
        return cast("Floats", xp.ascontiguousarray(to_signed(_resize(rgb, size, xp)).transpose(0, 3, 1, 2)))
    if rgb.dtype.kind != "f" or rgb.ndim != 4 or rgb.shape[1] != 3 or 0 in rgb.shape:
        raise InputError(
            f"rgb has shape {rgb.shape} and dtype {rgb.dtype}; expected uint8 [T, h, w, 3], or floats "
            f"[T, 3, {size[0]}, {size[1]}] in [-1, 1]."
        )
    return _prepared(rgb, size, "rgb", "uint8 [T, h, w, 3] of any size", xp, checks)


def prepare_depth(depth: Array, size: Size, xp: Any = np, checks: Checks | None = None) -> Floats:
    """Prepares depth for the networks: float32 [T, H, W] in [-1, 1].

    Args:
        depth: numbers [T, h, w]. Prepared: floats of `size` in [-1, 1], some below 0, used as they are. Anything else
            is relative depth of any size, nearer is larger: resized (PIL bilinear) and normalised per clip.
        size, checks: as for `prepare_modal`.

    Raises:
        InputError: another shape, not numbers, or not finite.
    """
    from .depth import normalise_clip

    _require_three_axes(depth, "depth")
    if depth.dtype.kind not in "fiu":
        raise InputError(f"depth has dtype {depth.dtype}; expected numbers, nearer is larger.")
    prepared, floats = depth.shape[1:] == tuple(size), depth.dtype.kind == "f"
    if depth.dtype.itemsize > 4:  # before it is uploaded
        depth = depth.astype(np.float32)
    depth = _resize(depth, size, xp, np.float32)  # keeps NaN and infinity
    if floats:
        check_values(depth, require_finite_depth, xp, checks)
    if not prepared:
        return normalise_clip(depth, xp)
    if xp is np:
        return depth if -1.0 <= depth.min() < 0.0 and depth.max() <= 1.0 else normalise_clip(depth)
    low, high = depth.min(), depth.max()  # chosen on the device, without waiting
    return cast("Floats", xp.where((low >= -1) & (low < 0) & (high <= 1), depth, normalise_clip(depth, xp)))


def resize_depth(depth: Array, size: Size, xp: Any = np) -> Floats:
    """Resizes depth, numbers [T, h, w], to float32 [T, H, W] (PIL bilinear) in its own range.

    Raises:
        InputError: another shape, or not numbers.
    """
    _require_three_axes(depth, "depth")
    if depth.dtype.kind not in "fiu":
        raise InputError(f"depth has dtype {depth.dtype}; expected numbers, nearer is larger.")
    return cast("Floats", _resize(depth.astype(np.float32), size, xp, np.float32))


def prepare_amodal(amodal: Array, size: Size, xp: Any = np, checks: Checks | None = None) -> Bools:
    """Prepares amodal masks for `complete`: bool [T, H, W] from bool or integers of any size (nearest neighbour)."""
    _require_three_axes(amodal, "amodal")
    if amodal.dtype.kind not in "biu":
        raise InputError(f"amodal has dtype {amodal.dtype}; expected the bool masks of `segment`.")
    return resize_masks(xp.asarray(binarise(amodal, "amodal", xp, checks)), size, xp)


def binarise(values: Array, name: str = "modal", xp: Any = np, checks: Checks | None = None) -> Bools:
    """Returns the object in the raw masks of a whole clip, without moving them: bool [T, h, w].

    In host memory they are read as those of files are (`objects.read_object`). On a device, integers must have one
    value besides 0, which is looked at with the other `checks`.

    Args:
        values: [T, h, w] of bool, integers or, in host memory, floats in [0, 1].
        name: of the argument, for messages.

    Raises:
        InputError: several objects, or values that can be read in two ways.
    """
    if values.dtype == np.bool_:
        return cast("Bools", values)
    if namespace_of(values, xp) is np:
        return read_object([MaskPicture(mask) for mask in values], name, advice=advice_on_array(name)).masks
    seen = values != 0
    check_values((seen & (values != values.max())).any().reshape(1), _require_two_values(name), xp, checks)
    return cast("Bools", seen)


def _require_two_values(name: str) -> Judge:
    def judge(_: float, more: float) -> None:
        if more:
            raise InputError(
                f"{name} holds several values besides 0; on a device, expected bool or integers of two values: pass "
                f"one object as bool, such as `{name} == 3`, or a soft mask as `{name} > 128`."
            )

    return judge


def visible_rgb(rgb: Floats, modal: Floats, xp: Any = np) -> Floats:
    """Makes all but the visible object white, in prepared frames [T, 3, H, W] by prepared masks [T, H, W]."""
    return cast("Floats", xp.where(modal[:, None] > 0, rgb, np.float32(1.0)))


def to_signed(array: Bytes) -> Floats:
    """Scales uint8 to [-1, 1]: x / 127.5 - 1."""
    return array.astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def rescale_unsigned(frames: Floats, xp: Any = np) -> Floats:
    """Maps the frames of [T, C, H, W] that have no value below 0 by 2x - 1 a second time, as the reference does.

    diffusers' image preprocessing assumes that such a frame is in [0, 1], and the authors call it frame by frame.
    """
    unsigned = frames.reshape(len(frames), -1).min(axis=1) >= 0
    return cast("Floats", xp.where(unsigned[:, None, None, None], 2 * frames - 1, frames))


def to_bytes(frames: Floats, xp: Any = np) -> Bytes:
    """Converts decoded pictures [T, 3, H, W] to uint8 [T, H, W, 3]: x / 2 + 0.5, clipped, times 255, half to even."""
    unit = frames / 2  # then in place: further copies would be the largest arrays after the decoder
    unit += np.float32(0.5)
    xp.clip(unit, 0, 1, out=unit)
    unit *= np.float32(255)
    return cast("Bytes", xp.ascontiguousarray(xp.rint(unit, out=unit).astype(np.uint8).transpose(0, 2, 3, 1)))


def threshold(frames: Bytes, modal: Floats) -> Bools:
    """Returns amodal masks [T, H, W]: channel sum above 600, or visible (`modal` above 0)."""
    whole: Bools = (frames.sum(axis=-1, dtype=np.int32) > THRESHOLD) | (modal > 0)
    return whole


def resize_masks(masks: Bools, size: Size, xp: Any = np) -> Bools:
    """Resizes masks [T, h, w] to the nearest neighbour, as cv2 does."""
    import cv2

    if masks.shape[1:] == tuple(size):
        return masks
    if xp is not np:
        return cast("Bools", opencv_nearest(masks, size, xp))
    resized = [cv2.resize(m, size[::-1], interpolation=cv2.INTER_NEAREST) for m in masks.astype(np.uint8)]
    return np.stack(resized).astype(bool)


def resize_frames(frames: Array, size: Size, xp: Any = np) -> Array:
    """Resizes frames [T, h, w] or [T, h, w, 3] of uint8 or floats linearly, as cv2 does."""
    import cv2

    if frames.shape[1:3] == tuple(size):
        return frames
    if xp is not np:
        return opencv_linear(frames, size, xp)
    return np.stack([cv2.resize(f, size[::-1], interpolation=cv2.INTER_LINEAR) for f in frames])


def clip_pixels(frames: Floats, side: int, mean: tuple[float, ...], std: tuple[float, ...], xp: Any = np) -> Floats:
    """Prepares frames [T, 3, H, W] in [-1, 1] for CLIP: float32 [T, 3, side, side].

    They are resized with antialiasing as in diffusers' SVD pipeline, then normalised. Blur and bicubic interpolation
    are linear and separable, so each axis is one matrix.
    """
    count, channels, height, width = frames.shape
    rows, columns = (xp.asarray(resize_matrix(length, side)) for length in (height, width))
    shift, scale = (xp.asarray(np.reshape(values, (3, 1, 1)).astype(np.float32)) for values in (mean, std))
    # ((x + 1) / 2 - mean) / std, with the factor in one of the matrices: that saves a pass over the largest arrays.
    wide = (frames.reshape(-1, width) @ columns.T).reshape(count, channels, height, side)
    pixels = (rows * (0.5 / scale)) @ wide
    pixels += (0.5 - shift) / scale
    return cast("Floats", pixels.astype(np.float32, copy=False))


@lru_cache(maxsize=16)
def resize_matrix(length: int, side: int) -> Floats:
    """Returns blur and bicubic interpolation along one axis as a matrix float32 [side, length].

    Gaussian blur with sigma = max((length / side - 1) / 2, 0.001), int(max(4 sigma, 3)) taps made odd and reflecting
    borders (diffusers' `_resize_with_antialiasing`), then bicubic interpolation with aligned corners, a = -0.75 and
    repeated borders (torch's `interpolate`).
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

    # Positions are rounded to float32 as in torch; with exact ones, pixels differed by up to 5e-5.
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


def _require_three_axes(array: Array, name: str) -> None:
    if array.ndim != 3 or 0 in array.shape:
        raise InputError(f"{name} has shape {array.shape}; expected [T, h, w], none of them 0.")


def _prepared(
    array: Array, size: Size, name: str, otherwise: str, xp: Any, checks: Checks | None, also: Judge | None = None
) -> Floats:
    if array.dtype.kind != "f":
        raise InputError(f"{name} has dtype {array.dtype}; expected {otherwise}, or prepared floats in [-1, 1].")
    if array.shape[-2:] != tuple(size):
        raise InputError(
            f"{name} is float, hence prepared, but {array.shape[-2]}x{array.shape[-1]} where the bundle has "
            f"{size[0]}x{size[1]}; give {otherwise}, or resize it."
        )

    def judge(low: float, high: float) -> None:
        if not (low >= -1.0001 and high <= 1.0001):  # also for NaN
            raise InputError(
                f"{name} is float with values from {low:.4g} to {high:.4g}; expected [-1, 1], or {otherwise}."
            )
        if also is not None:
            also(low, high)

    array = xp.asarray(array.astype(np.float32))
    check_values(array, judge, xp, checks)
    return cast("Floats", array)


def check_values(array: Array, judge: Judge, xp: Any, checks: Checks | None) -> None:
    """Adds a check to `checks`; if it is None, does the check now."""
    added = Checks(xp) if checks is None else checks
    added.add(array, judge)
    if checks is None and xp is not np:
        added.raise_pending(xp.asnumpy)


def require_finite_depth(low: float, high: float) -> None:
    """Raises `InputError` if the limits of depth are not finite."""
    if not (math.isfinite(low) and math.isfinite(high)):
        raise InputError("depth holds NaN or infinity; expected finite numbers, nearer is larger.")


def _resize(array: Array, size: Size, xp: Any, dtype: Any = np.uint8) -> Array:
    from PIL import Image

    if array.shape[1:3] == tuple(size):
        return xp.asarray(array).astype(dtype, copy=False)
    if xp is not np:
        return pillow_bilinear(array, size, xp, dtype)
    array = array.astype(dtype, copy=False)
    # By Pillow, because its fixed-point bilinear filter is part of the reference.
    images = (Image.fromarray(frame).resize(size[::-1], Image.Resampling.BILINEAR) for frame in array)
    return np.stack([np.asarray(image) for image in images])
