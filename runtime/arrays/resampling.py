"""Resizes pictures on a device as Pillow and OpenCV do, written against the array API.

Models were trained on these libraries' results, so a device must compute the same; on the host the libraries are
several times faster. Resizing is separable: each row or column of the result is a weighted sum of a few of the source,
added in integers or in the library's order. On a GPU each operation is a separate kernel, so that none are fused.

Sources: `Resample.c` in github.com/python-pillow/Pillow, and `resize.cpp` in github.com/opencv/opencv.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

Array: TypeAlias = Any  # numpy.ndarray or cupy.ndarray
Size = tuple[int, int]
Resampling = Literal["pillow uint8", "pillow float32", "opencv uint8", "opencv float64"]
Taps = tuple[NDArray[np.intp], NDArray[Any]]  # per output position: source indices [n, taps] and weights

_PILLOW_BITS = 32 - 8 - 2  # fraction bits of a weight, for uint8 (PRECISION_BITS)
_OPENCV_BITS = 11  # likewise (INTER_RESIZE_COEF_BITS)
_PIECE = 1 << 22  # values resized at once; each takes up to 24 bytes of working memory


def pillow_bilinear(pictures: Array, size: Size, xp: Any = np, dtype: Any = None) -> Array:
    """Resizes as Pillow's `Resampling.BILINEAR`, antialiased where pictures shrink.

    Bit for bit equal to Pillow before 13, which does columns first. Pillow 13 may do rows first where height shrinks
    more than width, and then differs by a level in places.

    Args:
        pictures: uint8 or float32 [T, h, w] or [T, h, w, C].
        size: (H, W).
        dtype: uint8 or float32, to convert to first; None for the pictures' own.

    Returns:
        That dtype, [T, H, W] or [T, H, W, C].
    """
    dtype = np.dtype(dtype or pictures.dtype)
    whole = dtype == np.uint8

    def resize(piece: Array) -> Array:
        piece = piece.astype(dtype, copy=False)
        for axis in (2, 1):
            if piece.shape[axis] == size[axis - 1]:
                continue
            at, weights = _triangle(piece.shape[axis], size[axis - 1])
            if whole:
                fixed = np.floor(weights * (1 << _PILLOW_BITS) + 0.5).astype(np.int32)
                total = _weighted(piece, axis, (at, fixed), xp)
                total += 1 << (_PILLOW_BITS - 1)
                total >>= _PILLOW_BITS
                piece = xp.clip(total, 0, 255, out=total).astype(np.uint8)
                del total
            else:
                piece = _weighted(piece, axis, (at, weights), xp).astype(np.float32)
        return piece

    return _by_pieces(resize, pictures, size, xp)


def opencv_linear(pictures: Array, size: Size, xp: Any = np) -> Array:
    """Resizes as OpenCV's INTER_LINEAR.

    For uint8 bit for bit equal to OpenCV 5.0 on x86-64. For floats, newer versions of OpenCV round positions
    differently: results differ by up to 2e-5 of the range of the values.

    Args:
        pictures: uint8, float32 or float64 [T, h, w] or [T, h, w, C].
        size: (H, W).

    Returns:
        The same dtype, [T, H, W] or [T, H, W, C].
    """
    (rows, down), (columns, across) = (_linear(pictures.shape[axis], size[axis - 1]) for axis in (1, 2))
    whole = pictures.dtype == np.uint8
    down, across = (
        np.rint(weights * (1 << _OPENCV_BITS)).astype(np.int32) if whole else weights.astype(pictures.dtype)
        for weights in (down, across)
    )

    def resize(piece: Array) -> Array:
        wide = _weighted(piece, 2, (columns, across), xp)
        if not whole:
            return _weighted(wide, 1, (rows, down), xp)
        wide >>= 4
        # Each product is shifted before the two are added, as in OpenCV's vector code.
        total = _weighted(wide, 1, (rows, down), xp, lambda product: product >> 16)
        total += 2
        total >>= 2
        return total.astype(np.uint8)

    return _by_pieces(resize, pictures, size, xp)


def opencv_cubic(pictures: Array, size: Size, xp: Any = np) -> Array:
    """Resizes float64 [T, h, w, C] to [T, H, W, C] as OpenCV's INTER_CUBIC, within 1e-6 of OpenCV 5.0."""

    def resize(piece: Array) -> Array:
        for axis in (2, 1):
            at, weights = _cubic(piece.shape[axis], size[axis - 1])
            piece = _weighted(piece, axis, (at, weights.astype(np.float64)), xp)
        return piece

    return _by_pieces(resize, pictures, size, xp)


def torch_bicubic(pictures: Array, size: Size, xp: Any = np) -> Array:
    """Resizes float32 [T, h, w] to [T, H, W] as torch's `interpolate` with `bicubic`, without antialiasing.

    Corners are not aligned, a = -0.75, borders are repeated. Equal to torch 2.13 but for the rounding of sums; OpenCV's
    INTER_CUBIC rounds positions differently, by up to 1e-4 of the largest value.
    """

    def resize(piece: Array) -> Array:
        for axis in (2, 1):
            piece = _weighted(piece, axis, torch_cubic_taps(piece.shape[axis], size[axis - 1]), xp)
        return piece

    return _by_pieces(resize, pictures, size, xp)


def opencv_nearest(pictures: Array, size: Size, xp: Any = np) -> Array:
    """Resizes [T, h, w, ...] to [T, H, W, ...], equal to OpenCV's INTER_NEAREST."""
    for axis in (2, 1):
        length, side = pictures.shape[axis], size[axis - 1]
        if length != side:
            at = np.minimum(np.floor(np.arange(side) * (1 / (side / length))), length - 1)
            pictures = xp.take(pictures, xp.asarray(at.astype(np.intp)), axis=axis)
    return pictures


def working_bytes(resampling: Resampling, frames: int, before: Size, after: Size, channels: int = 1) -> int:
    """Returns the working memory in bytes of resizing on a device, beside the pictures and the result.

    Args:
        resampling: `pillow_bilinear` of either dtype, `opencv_linear` of uint8, or `opencv_cubic`.
    """
    count = min(frames, _frames_at_once(before, after, channels)) * channels  # of the largest piece
    source, wide, result = (count * h * w for h, w in (before, (before[0], after[1]), after))
    # The source, a tap of it, its product with the weights, and the sum so far.
    if resampling == "pillow uint8":
        return max(source + (1 + 4 + 4) * wide, wide + (1 + 4 + 4) * result)
    if resampling == "pillow float32":  # weights are float64
        return max(4 * source + (4 + 8 + 8) * wide, 4 * wide + (4 + 8 + 8) * result)
    if resampling == "opencv uint8":
        return max(source + (1 + 4 + 4) * wide, source + 4 * wide + (4 + 4 + 4) * result)
    return max(8 * source + (8 + 8 + 8) * wide, 8 * wide + (8 + 8 + 8) * result)


def _frames_at_once(before: Size, after: Size, channels: int) -> int:
    return max(1, _PIECE // (max(before[0], after[0]) * max(before[1], after[1]) * channels))


def _by_pieces(resize: Callable[[Array], Array], pictures: Array, size: Size, xp: Any) -> Array:
    """Resizes a few frames at a time to limit working memory."""
    step = _frames_at_once(pictures.shape[1:3], size, pictures.shape[3] if pictures.ndim == 4 else 1)
    # Uploads pictures on the host piece by piece too.
    pieces = [resize(xp.asarray(pictures[start : start + step])) for start in range(0, len(pictures), step)]
    return pieces[0] if len(pieces) == 1 else xp.concatenate(pieces)


def _weighted(
    pictures: Array, axis: int, taps: Taps, xp: Any, cut: Callable[[Array], Array] = lambda product: product
) -> Array:
    """Sums weighted rows (axis 1) or columns (axis 2), tap after tap, in the weights' dtype."""
    at, weights = xp.asarray(taps[0]), xp.asarray(taps[1])
    shape = [1] * pictures.ndim
    shape[axis] = -1
    total = None
    for tap in range(at.shape[1]):
        product = cut(xp.take(pictures, at[:, tap], axis=axis) * weights[:, tap].reshape(shape))
        if total is None:
            total = product
        else:
            total += product
        del product  # frees it before the next one is allocated
    return total


def _triangle(length: int, side: int) -> Taps:
    """Returns Pillow's float64 weights (`precompute_coeffs`): a triangle as wide as an output pixel in the source."""
    scale = length / side
    width = max(scale, 1.0)
    centre = (np.arange(side) + 0.5) * scale
    first = np.maximum((centre - width + 0.5).astype(np.intp), 0)
    end = np.minimum((centre + width + 0.5).astype(np.intp), length)
    at = first[:, None] + np.arange(int((end - first).max()))
    weights = np.maximum(1.0 - np.abs((at - centre[:, None] + 0.5) * (1.0 / width)), 0.0)
    weights[at >= end[:, None]] = 0.0
    total = np.zeros(side)
    for column in weights.T:  # in Pillow's order of rounding
        total += column
    return np.minimum(at, length - 1), weights / total[:, None]


def _positions(length: int, side: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Returns OpenCV's source index before each output position, and the float32 distance from it."""
    exact = ((np.arange(side) + 0.5) * (1 / (side / length)) - 0.5).astype(np.float32)
    before = np.floor(exact)
    return before.astype(np.intp), exact - before


def _linear(length: int, side: int) -> Taps:
    before, part = _positions(length, side)
    at = np.clip(before[:, None] + np.arange(2), 0, length - 1)
    return at, np.stack([np.float32(1) - part, part], axis=1)


def torch_cubic_taps(length: int, side: int) -> Taps:
    """Returns the source index [side, 4] and the float32 weights of `torch_bicubic` along one axis.

    From `area_pixel_compute_source_index` and `get_cubic_upsample_coefficients` in ATen's `UpSample.h`, in float32.
    """
    half, one, two, a = (np.float32(value) for value in (0.5, 1, 2, -0.75))
    exact = np.float32(length) / np.float32(side) * (np.arange(side, dtype=np.float32) + half) - half
    before = np.floor(exact)
    x = exact - before

    def near(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return ((a + 2) * x - (a + 3)) * x * x + one

    def far(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    weights = np.stack([far(x + one), near(x), near(one - x), far(two - x)], axis=1)
    return np.clip(before.astype(np.intp)[:, None] + np.arange(-1, 3), 0, length - 1), weights


def _cubic(length: int, side: int) -> Taps:
    before, x = _positions(length, side)
    a, one = np.float32(-0.75), np.float32(1)

    def near(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return ((a + 2) * x - (a + 3)) * x * x + one

    far = ((a * (x + one) - 5 * a) * (x + one) + 8 * a) * (x + one) - 4 * a
    weights = np.stack([far, near(x), near(one - x), one - far - near(x) - near(one - x)], axis=1)
    return np.clip(before[:, None] + np.arange(-1, 3), 0, length - 1), weights
