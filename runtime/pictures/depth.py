"""Prepares frames for Depth Anything V2, and its output for `segment`.

The steps of the authors' demo (`rgb_to_depth` in github.com/Kaihua-Chen/diffusion-vas, calling `infer_image`
of github.com/DepthAnything/Depth-Anything-V2), and the functions here:

    prepared RGB [-1, 1] -> uint8            `quantise_frames`
    uint8 RGB -> network input               `prepare_depth_input`
    network input -> relative depth [T,h,w]  the bundle's `depth` component
    relative depth back at the frames' size  `resize_align_corners`
    one clip of it to [-1, 1]                `normalise_clip`

Two quirks of the demo change the masks, so they are kept: dark values lose one level (`quantise_frames`), and the
channels are swapped (`prepare_depth_input`, where they can be had in their own order).

Written against the array API: `xp` is numpy or CuPy. On a device, values are not checked, so nothing waits for them.
"""

from __future__ import annotations

from typing import Any, Literal, cast, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from ..arrays.resampling import opencv_cubic
from ..errors import InputError

DepthChannels = Literal["demo", "rgb"]
"""Order of the channels that the depth network is given: blue first, as the authors' demo does, or red first, as their
evaluation does and the network was trained."""

DEPTH_SIDE = 518
"""Shorter side of the network's input in pixels: the authors' `input_size` (37 patches, as trained)."""
DEPTH_MULTIPLE = 14
"""DINOv2's patch side, of which both sides of the network's input are multiples."""
DEPTH_MEAN = (0.485, 0.456, 0.406)
DEPTH_STD = (0.229, 0.224, 0.225)
"""ImageNet statistics in the network's own channel order, for values in [0, 1] (authors' `image2tensor`)."""


def depth_input_size(
    height: int, width: int, side: int = DEPTH_SIDE, multiple: int = DEPTH_MULTIPLE
) -> tuple[int, int]:
    """Returns the depth network's input size (h, w) for a frame, at least 1x1; 256x512 becomes 518x1036.

    As the authors' `Resize` with keep_aspect_ratio, "lower_bound" and ensure_multiple_of: the frame is scaled until
    both sides are at least `side`; each is rounded to the nearest multiple (ties to even), or up if that is below
    `side`.
    """
    if min(height, width, side, multiple) < 1:
        raise InputError(f"Frames of {height}x{width} with side {side} and multiple {multiple}: expected 1 or more.")
    scale = max(side / height, side / width)

    def fit(length: float) -> int:
        nearest = round(length / multiple) * multiple
        return nearest if nearest >= side else int(np.ceil(length / multiple)) * multiple

    return fit(scale * height), fit(scale * width)


def quantise_frames(prepared: NDArray[np.float32], xp: Any = np) -> NDArray[np.uint8]:
    """Converts prepared RGB float32 [T, 3, H, W] in [-1, 1] back to uint8 [T, H, W, 3], as the authors' demo does.

    Quirk: the demo computes `((x + 1) / 2 * 255).astype(uint8)` in float32, which truncates: after scaling to [-1, 1]
    and back, the values 1 to 63 are one lower, the others unchanged.

    Raises:
        InputError: another dtype, shape or range.
    """
    if prepared.dtype != np.float32 or prepared.ndim != 4 or prepared.shape[1] != 3:
        raise InputError(f"Prepared RGB is {_form(prepared)}; expected float32 [T, 3, H, W].")
    if xp is np and not (prepared.size and prepared.min() >= -1 and prepared.max() <= 1):  # also false for NaN
        raise InputError("Prepared RGB is empty or has values outside [-1, 1].")
    scaled = (prepared + np.float32(1)) / np.float32(2) * np.float32(255)
    return cast("NDArray[np.uint8]", xp.ascontiguousarray(scaled.astype(np.uint8).transpose(0, 2, 3, 1)))


def check_channels(channels: str | None) -> None:
    """Raises `InputError` unless `channels` is None or one of the two orders."""
    if channels is not None and channels not in get_args(DepthChannels):
        raise InputError(f"depth_channels {channels!r} is unknown; expected demo or rgb.", field="depth_channels")


def prepare_depth_input(
    rgb: NDArray[np.uint8], *, side: int = DEPTH_SIDE, channels: DepthChannels = "demo", xp: Any = np
) -> NDArray[np.float32]:
    """Prepares uint8 RGB frames [T, H, W, 3] for the depth network, as the authors' `infer_image` does.

    Per frame, in float64 until the last step: order the channels, divide by 255, resize with OpenCV's INTER_CUBIC (no
    antialiasing; the result may leave [0, 1]), subtract the mean, divide by the deviation, cast to float32.

    Quirk: `infer_image` expects BGR and swaps to RGB, but the Diffusion-VAS demo passes RGB. So the demo's masks come
    from a depth network whose first channel was blue (`demo`). The published evaluation passes BGR, and its first
    channel was red (`rgb`).

    Returns:
        float32 [T, 3, h, w] with (h, w) = `depth_input_size(H, W, side)`; 6.4 MB per frame of 256x512.

    Raises:
        InputError: another dtype or shape, or an unknown order.
    """
    check_channels(channels)
    if rgb.dtype != np.uint8 or rgb.ndim != 4 or rgb.shape[-1] != 3 or rgb.size == 0:
        raise InputError(f"Frames for the depth network are {_form(rgb)}; expected uint8 [T, H, W, 3].")
    size = depth_input_size(rgb.shape[1], rgb.shape[2], side)
    images = (rgb[..., ::-1] if channels == "demo" else rgb) / 255.0
    if xp is np:
        images = np.stack([cv2.resize(image, size[::-1], interpolation=cv2.INTER_CUBIC) for image in images])
    else:
        images = opencv_cubic(images, size, xp)
    mean, std = xp.asarray(np.array(DEPTH_MEAN)), xp.asarray(np.array(DEPTH_STD))
    pixels = ((images - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)
    return cast("NDArray[np.float32]", xp.ascontiguousarray(pixels))


def resize_align_corners(depth: NDArray[np.floating[Any]], size: tuple[int, int], xp: Any = np) -> NDArray[np.float32]:
    """Resizes bilinearly with aligned corners: torch's `interpolate(..., align_corners=True)`.

    Output position i of n reads input position i * (in - 1) / (n - 1). The two axes are interpolated one after the
    other, in float32 as in torch.

    Args:
        depth: float [T, h, w].
        size: (H, W), each at least 1.

    Returns:
        float32 [T, H, W]; `depth` itself if it already is float32 of that size.

    Raises:
        InputError: another dtype, shape or size.
    """
    if depth.dtype.kind != "f" or depth.ndim != 3 or depth.size == 0 or min(size) < 1:
        raise InputError(f"Depth is {_form(depth)}, to be resized to {list(size)}; expected float [T, h, w].")
    result = depth.astype(np.float32, copy=False)
    for axis, length in ((2, size[1]), (1, size[0])):
        if result.shape[axis] != length:
            result = _interpolate_axis(result, axis, length, xp)
    return result


def _interpolate_axis(values: NDArray[np.float32], axis: int, length: int, xp: Any) -> NDArray[np.float32]:
    last = values.shape[axis] - 1
    step = np.float32(last) / np.float32(length - 1) if length > 1 else np.float32(0)
    position = np.arange(length, dtype=np.float32) * step
    low = np.minimum(position.astype(np.int64), last)
    shape = [1] * values.ndim
    shape[axis] = length
    weight = xp.asarray((position - low.astype(np.float32)).reshape(shape))
    high = np.minimum(low + 1, last)
    result: NDArray[np.float32] = xp.take(values, xp.asarray(low), axis=axis) * (1 - weight)
    result += xp.take(values, xp.asarray(high), axis=axis) * weight
    return result


def normalise_clip(depth: NDArray[Any], xp: Any = np) -> NDArray[np.float32]:
    """Scales the depth of a clip [T, H, W] to float32 in [-1, 1], by the smallest and largest value, as the reference.

    A constant clip, for which the reference divides zero by zero, becomes -1 (far).

    Args:
        depth: float or integer, any range, nearer is larger. float16 and float32 are normalised in float32 as in the
            reference, float64 and integers in float64.

    Raises:
        InputError: another dtype or shape, or a value that is not finite.
    """
    if depth.dtype.kind not in "fiu" or depth.ndim != 3 or depth.size == 0:
        raise InputError(f"Depth is {_form(depth)}; expected numbers [T, H, W].")
    values = depth.astype(np.float32 if depth.dtype in (np.float16, np.float32) else np.float64, copy=False)
    low, high = values.min(), values.max()
    if xp is np and not (np.isfinite(low) and np.isfinite(high)):
        raise InputError("Depth has values that are not finite; replace them first.")
    span = xp.where(high > low, high - low, values.dtype.type(1))
    return cast("NDArray[np.float32]", ((values - low) / span * 2 - 1).astype(np.float32, copy=False))


def invert_distances(distances: NDArray[np.float32], xp: Any = np) -> NDArray[np.float32]:
    """Turns a network's distances [T, H, W] into relative depth: 1 / z, with z at least 1/1000 of the clip's largest.

    Half precision rounds small distances to 0, and one such pixel would be all that the clip's range shows.
    """
    far = distances.max()
    return cast("NDArray[np.float32]", 1 / xp.maximum(distances, xp.where(far > 0, far * np.float32(1e-3), 1)))


def _form(array: NDArray[Any]) -> str:
    return f"{array.dtype} {list(array.shape)}"
