"""The padded-frame protocol: a border around the frame, for objects that leave it.

Diffusion-VAS is evaluated on TAO-Amodal with frames padded by a quarter of their height and width on every side. In the
border, masks are 0 and depth is the nearest of the clip, like that of an occluder. This follows the authors' evaluation
(github.com/Kaihua-Chen/diffusion-vas, `eval`), which differs from their demo:

- Masks and depth are padded at the frame's size, then resized linearly as cv2 does; the demo resizes with PIL.
- Depth is truncated to 8 bits first.
- The decoded picture is resized linearly to the padded size and thresholded there; the demo resizes masks, nearest.

    padding = Padding(height, width)
    seen = model.segment(modal, depth=depth, padding=padding)
    in_frame = padding.crop(seen.masks_full)
    boxes = padding.boxes(seen.masks_full, modal)

Written against the array API: `xp` is numpy, or CuPy on a device.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ..arrays.interop import Array
from ..errors import InputError
from .depth import resize_align_corners
from .images import THRESHOLD, Bools, Checks, Size, binarise, check_values, require_finite_depth, resize_frames

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Padding:
    """A border around frames of one size: `height // 4` rows above and below, `width // 4` columns on either side.

    Attributes:
        height, width: of the frame, in pixels; 4 or more.
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 4:
            size = f"{self.height}x{self.width}"
            raise InputError(f"frames of {size} cannot be padded by a quarter; expected sides of 4 pixels or more.")

    @property
    def rows(self) -> int:
        """Rows added above, and as many below."""
        return self.height // 4

    @property
    def columns(self) -> int:
        """Columns added on the left, and as many on the right."""
        return self.width // 4

    @property
    def size(self) -> Size:
        """(H, W) of the padded frame."""
        return self.height + 2 * self.rows, self.width + 2 * self.columns

    def pad(self, pictures: NDArray[Any], value: Any = None, xp: Any = np) -> NDArray[Any]:
        """Pads pictures [T, H, W, ...] with `value`, or by repeating the edge; raises `InputError` for another size."""
        self._check(pictures, (self.height, self.width))
        around = ((0, 0), (self.rows, self.rows), (self.columns, self.columns), *((0, 0),) * (pictures.ndim - 3))
        padded = xp.pad(pictures, around, "edge") if value is None else xp.pad(pictures, around, constant_values=value)
        return cast("NDArray[Any]", padded)

    def crop(self, pictures: NDArray[Any]) -> NDArray[Any]:
        """Returns a view of the frame in padded pictures [T, H', W', ...]; raises `InputError` for another size."""
        self._check(pictures, self.size)
        return pictures[:, self.rows : self.rows + self.height, self.columns : self.columns + self.width]

    def prepare_modal(
        self, modal: Array, size: Size, xp: Any = np, checks: Checks | None = None
    ) -> NDArray[np.float32]:
        """Prepares raw visible masks, as for `raw`, for the networks: float32 [T, *size] in [-1, 1], edges grey."""
        seen = self.raw(modal, xp, checks)
        each = (xp.asarray(seen[t : t + 1]).astype(np.float32) for t in range(len(seen)))
        return _to_network((self.pad(mask, 0, xp) for mask in each), size, xp)

    def prepare_depth(
        self, depth: Array, size: Size, xp: Any = np, checks: Checks | None = None
    ) -> NDArray[np.float32]:
        """Prepares depth for the networks: float32 [T, *size] in [-1, 1], the border as near as the nearest pixel.

        Args:
            depth: numbers [T, h, w] of any size, nearer is larger; resized to the frame as after the authors' depth
                network, and normalised per clip.
            size, checks: as for `images.prepare_modal`.

        Raises:
            InputError: another shape, no numbers, or NaN.
        """
        if depth.dtype.kind in "iu":
            depth = depth.astype(np.float32)
        maps = resize_align_corners(xp.asarray(depth), (self.height, self.width), xp)
        check_values(maps, require_finite_depth, xp, checks)
        low, high = maps.min(), maps.max()
        span = xp.where(high > low, high - low, np.float32(1))
        levels = (((maps[t : t + 1] - low) / span * 255).astype(np.uint8) / 255.0 for t in range(len(maps)))
        return _to_network((self.pad(level, 1.0, xp) for level in levels), size, xp)

    def raw(self, modal: Array, xp: Any = np, checks: Checks | None = None) -> Bools:
        """Reads raw masks, as `images.binarise`, without moving them: bool [T, height, width].

        Raises:
            InputError: another size, prepared floats, or values that are not the masks of one object.
        """
        if modal.ndim != 3 or modal.dtype.kind not in "biu":
            raise InputError(
                f"padding: masks have shape {modal.shape} and dtype {modal.dtype}; expected raw bool or uint8 masks "
                f"[T, {self.height}, {self.width}]."
            )
        self._check(modal, (self.height, self.width))
        return binarise(modal, "modal", xp, checks)

    def masks(self, pictures: NDArray[np.uint8], modal: Any, xp: Any = np) -> Bools:
        """Returns the amodal masks of the padded frame: bool [T, *self.size].

        Args:
            pictures: uint8 [T, H, W, 3], decoded, of any size.
            modal: raw masks, as for `raw`, which are added to the result.
        """
        whole: Bools = self.pad(xp.asarray(self.raw(modal, xp)), False, xp)
        for t in range(len(whole)):
            resized = resize_frames(pictures[t : t + 1], self.size, xp)[0]
            whole[t] |= resized.sum(axis=-1, dtype=np.int32) > THRESHOLD
        return whole

    def boxes(self, predicted: Bools, modal: Bools) -> Floats:
        """Returns the boxes of padded masks in the frame's pixels; see `protocol_boxes`."""
        return protocol_boxes(predicted, modal, (self.rows, self.columns))

    def _check(self, pictures: NDArray[Any], size: Size) -> None:
        if pictures.shape[1:3] != size:
            found = "x".join(map(str, pictures.shape[1:3])) if pictures.ndim > 2 else f"of shape {pictures.shape}"
            raise InputError(f"padding: pictures are {found}, expected {size[0]}x{size[1]}.")


def _to_network(padded: Iterable[Array], size: Size, xp: Any) -> NDArray[np.float32]:
    """Resizes pictures [1, H, W] in [0, 1] linearly, one after the other: float32 [T, *size] in [-1, 1]."""
    whole = xp.concatenate([(resize_frames(one, size, xp) * 2 - 1).astype(np.float32) for one in padded])
    return cast("NDArray[np.float32]", whole)


def mask_boxes(masks: Bools) -> Floats:
    """Returns the boxes around masks, [T, 4]: x, y, width and height in pixels, zeros for an empty mask."""
    return np.array([cv2.boundingRect(mask.astype(np.uint8)) for mask in masks], np.float64).reshape(-1, 4)


def protocol_boxes(predicted: Bools, modal: Bools, offset: tuple[int, int] = (0, 0)) -> Floats:
    """Returns the predicted boxes of the authors' evaluation on TAO-Amodal.

    A box is the union of those around the predicted and the visible mask, or the other one if one is empty.

    Args:
        predicted: bool [T, h, w], of the frame or of the padded frame.
        modal: bool [T, H, W], of the frame.
        offset: (rows, columns) of the frame's corner in the prediction.

    Returns:
        [T, 4] x, y, width and height in the frame's pixels; they may extend beyond the frame.
    """
    boxes, seen = mask_boxes(predicted), mask_boxes(modal)
    boxes[boxes[:, 2] > 0] -= [offset[1], offset[0], 0, 0]
    low = np.minimum(boxes[:, :2], seen[:, :2])
    united = np.hstack([low, np.maximum(boxes[:, :2] + boxes[:, 2:], seen[:, :2] + seen[:, 2:]) - low])
    alone = np.where(boxes[:, 2:3] > 0, boxes, seen)
    return np.where((boxes[:, 2:3] > 0) & (seen[:, 2:3] > 0), united, alone)
