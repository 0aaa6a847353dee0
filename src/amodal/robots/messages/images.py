"""`sensor_msgs/msg/Image` as label images and depth, and whole objects as label images."""

from __future__ import annotations

import array
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.errors import InputError

_LABELS = {"mono8": "u1", "8UC1": "u1", "mono16": "u2", "16UC1": "u2", "32SC1": "i4"}
_DEPTH = {"16UC1": "u2", "32FC1": "f4"}
_HIGHEST = 65535
_SIDE = 65536


def read_labels(message: Any) -> NDArray[Any]:
    """Returns a label image as integers [H, W]: 0 is the background, other values are ids of objects.

    It is a view of the message's buffer, whose bytes may be in either order.

    Raises:
        InputError: the encoding is none of mono8, 8UC1, mono16, 16UC1 and 32SC1, or `step` or the size does not fit the
            data, or a label is below 0 or above 65535.
    """
    labels = _plane(message, _LABELS, "a label image")
    if labels.dtype.kind == "i" and labels.size and (labels.min() < 0 or labels.max() > _HIGHEST):
        raise InputError(f"labels from {labels.min()} to {labels.max()}: expected 0 to {_HIGHEST}.", field="masks")
    return labels


def masks_of(labels: NDArray[Any]) -> dict[int, NDArray[np.bool_]]:
    """Returns the visible mask bool [H, W] of each object in a label image."""
    present = np.flatnonzero(np.bincount(labels.ravel()))  # np.unique sorts, which takes several times as long
    return {int(label): labels == label for label in present if label}


def read_depth(message: Any) -> NDArray[np.float32]:
    """Returns distances in metres, float32 [H, W], from 16UC1 (millimetres) or 32FC1 (metres); 0 and NaN are holes.

    Raises:
        InputError: another encoding, or `step` or the size does not fit the data.
    """
    depth = _plane(message, _DEPTH, "depth")
    if message.encoding == "16UC1":
        return depth.astype(np.float32) / np.float32(1000)
    return depth.astype(np.float32, copy=False)


def _plane(message: Any, encodings: Mapping[str, str], what: str) -> NDArray[Any]:
    code = encodings.get(message.encoding)
    if code is None:
        raise InputError(f"encoding {message.encoding!r} of {what} is unknown; expected {', '.join(encodings)}.")
    kind = np.dtype((">" if message.is_bigendian else "<") + code)
    height, width, step = int(message.height), int(message.width), int(message.step)
    row, buffer = width * kind.itemsize, np.frombuffer(message.data, np.uint8)
    if not (0 < height <= _SIDE and 0 < width <= _SIDE) or step < row or buffer.size < step * (height - 1) + row:
        raise InputError(
            f"{what} of {height}x{width} pixels {message.encoding} with a step of {step} and {buffer.size} bytes; "
            f"expected a step of at least {row} bytes, and that many for each row."
        )
    return np.ndarray((height, width), kind, buffer, strides=(step, kind.itemsize))


def place_in_planes(masks: Mapping[int, NDArray[np.bool_]], planes: int) -> tuple[NDArray[np.uint16], list[int]]:
    """Places whole objects, which overlap, in label images without overlaps.

    Each object, in the order of ids, goes to the first plane in which its pixels are free.

    Returns:
        labels uint16 [planes, H, W], 0 where there is nothing, and the ids for which no plane was free.
    """
    height, width = next(iter(masks.values())).shape
    placed, left_out = np.zeros((planes, height, width), np.uint16), []
    for label, mask in sorted(masks.items()):
        for plane in placed:
            if not plane[mask].any():
                plane[mask] = label
                break
        else:
            left_out.append(label)
    return placed, left_out


def fill_labels(message: Any, header: Any, labels: NDArray[np.uint16]) -> Any:
    """Fills an empty `sensor_msgs/msg/Image` with labels uint16 [H, W] as mono16, and returns it."""
    message.header = header
    message.height, message.width = labels.shape
    message.encoding, message.is_bigendian, message.step = "mono16", 0, 2 * labels.shape[1]
    message.data = array.array("B", labels.astype("<u2", copy=False).tobytes())  # by far the fastest that rclpy takes
    return message
