"""The padded-frame protocol: room around the frame, for objects that leave it.

Diffusion-VAS is evaluated on TAO-Amodal with frames padded by a quarter of their height and width on every side, where
masks are 0 and depth is the nearest there is (Chen et al. 2025; the authors' evaluation code).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from .errors import InputError

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Padding:
    """Room around frames of one size: `height // 4` rows above and below, `width // 4` columns on either side.

    Attributes:
        height, width: of the frame, in pixels; 4 or more.
    """

    height: int
    width: int

    def __post_init__(self) -> None:
        if min(self.height, self.width) < 4:
            raise InputError(
                f"frames of {self.height}x{self.width} cannot be padded by a quarter; expected sides of 4 pixels or "
                "more."
            )

    @property
    def rows(self) -> int:
        """Rows added above, and below."""
        return self.height // 4

    @property
    def columns(self) -> int:
        """Columns added on the left, and on the right."""
        return self.width // 4

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the padded frame."""
        return self.height + 2 * self.rows, self.width + 2 * self.columns

    def pad(self, pictures: NDArray[Any], value: Any) -> NDArray[Any]:
        """Pictures [T, H, W, ...] with `value` around them.

        Raises:
            InputError: pictures of another size.
        """
        self._check(pictures, (self.height, self.width))
        around = ((0, 0), (self.rows, self.rows), (self.columns, self.columns), *((0, 0),) * (pictures.ndim - 3))
        return np.pad(pictures, around, constant_values=value)

    def crop(self, pictures: NDArray[Any]) -> NDArray[Any]:
        """The frame's part of padded pictures [T, H', W', ...]; a view.

        Raises:
            InputError: pictures of another size.
        """
        self._check(pictures, self.size)
        return pictures[:, self.rows : self.rows + self.height, self.columns : self.columns + self.width]

    def boxes(self, predicted: Bools, modal: Bools) -> Floats:
        """Boxes of padded masks, in the frame's pixels; see `protocol_boxes`."""
        return protocol_boxes(predicted, modal, (self.rows, self.columns))

    def _check(self, pictures: NDArray[Any], size: tuple[int, int]) -> None:
        if pictures.shape[1:3] != size:
            found = "x".join(map(str, pictures.shape[1:3]))
            raise InputError(f"padding: pictures are {found}, expected {size[0]}x{size[1]}.")


def pad_depth(depth: NDArray[Any]) -> NDArray[Any]:
    """Depth [T, h, w] of any size with a quarter of it on every side, as near as the nearest of the clip."""
    return Padding(*(int(n) for n in depth.shape[1:])).pad(depth, depth.max())


def mask_boxes(masks: Bools) -> Floats:
    """[T, 4] x, y, width and height in pixels of the box around each mask; zeros where it is empty."""
    boxes = np.zeros((len(masks), 4))
    for box, mask in zip(boxes, masks, strict=True):
        if mask.any():
            box[:] = cv2.boundingRect(mask.astype(np.uint8))
    return boxes


def protocol_boxes(predicted: Bools, modal: Bools, offset: tuple[int, int] = (0, 0)) -> Floats:
    """Predicted boxes as Diffusion-VAS takes them for TAO-Amodal.

    The box of the predicted mask, less the padding; the visible mask's if it is empty; united with the visible mask's.

    Args:
        predicted: bool [T, h, w], of the frame or of the padded frame.
        modal: bool [T, H, W], of the frame.
        offset: (rows, columns) of the frame's corner in the prediction.

    Returns:
        [T, 4] x, y, width and height in the frame's pixels; negative or beyond the frame where the prediction is.
    """
    boxes, seen = mask_boxes(predicted), mask_boxes(modal)
    boxes[boxes[:, 2] > 0] -= [offset[1], offset[0], 0, 0]
    low = np.minimum(boxes[:, :2], seen[:, :2])
    united = np.hstack([low, np.maximum(boxes[:, :2] + boxes[:, 2:], seen[:, :2] + seen[:, 2:]) - low])
    alone = np.where(boxes[:, 2:3] > 0, boxes, seen)
    return np.where((boxes[:, 2:3] > 0) & (seen[:, 2:3] > 0), united, alone)
