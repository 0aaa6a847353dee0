"""A window around a small object, so that more of its pixels reach the networks.

Diffusion-VAS is evaluated on MOVi-B and MOVi-D in windows around the visible object, enlarged by 100 % (section 4.2 of
the paper). Here one window serves the whole clip, so that motion stays motion, and it has the frame's ratio of sides:
the networks then see the object enlarged, under the same distortion as in the whole frame. At the frame's border a
window is moved, not shrunk.

    crop = Crop.around(modal)
    seen = model.segment(crop.cut(modal), depth=crop.cut_depth(depth))
    drawn = model.complete(crop.cut(frames), crop.cut(modal), seen.masks, seed=seen.noise)
    masks = crop.paste(seen.masks_full, False)
    completed = crop.paste(drawn.frames_full, 255)

Whatever of the object lies outside the window is lost; `crop.cut_off` finds the frames where that is likely.
`find_shrunk` finds those in which an object is too small without a crop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .images import Bools, Size, prepare_modal

ENLARGEMENT = 2.0  # window to box, along the side that decides: the published 100 %
SMALL = 1 / 4  # share of the frame below which `Crop.auto` takes a box for small
FEWEST_PIXELS = 16  # visible ones that tell a shape: a 4x4 square


@dataclass(frozen=True)
class Crop:
    """A window of the frame.

    Attributes:
        frame: (H, W) of the frames in pixels.
        y, x: the window's upper left pixel.
        height, width: of the window, in pixels.
    """

    frame: Size
    y: int
    x: int
    height: int
    width: int

    @classmethod
    def around(cls, masks: Bools, scale: float = ENLARGEMENT) -> Crop:
        """Returns the window around the object's boxes in all frames together.

        Args:
            masks: bool [T, H, W].
            scale: the window's height or width, whichever is relatively larger, in those of the box; 1 or more. The
                window is never larger than the frame.

        Raises:
            InputError: not bool [T, H, W], no pixel set, or a scale out of range.
        """
        if not 1 <= scale < math.inf:
            raise InputError(f"`crop={scale:g}`: expected a window of 1 or more times the object's box.", field="crop")
        left, top, wide, high = _box(masks)
        frame = (int(masks.shape[1]), int(masks.shape[2]))
        share = min(scale * max(high / frame[0], wide / frame[1]), 1.0)
        size = [min(math.ceil(share * length - 1e-9), length) for length in frame]
        centre = (top + high / 2, left + wide / 2)
        y, x = (
            min(max(round(c - side / 2), 0), length - side) for c, side, length in zip(centre, size, frame, strict=True)
        )
        return cls(frame, y, x, *size)

    @classmethod
    def auto(cls, masks: Bools) -> Crop | None:
        """Returns the window around a small object; None if its boxes cover a quarter of the frame, or the window all.

        Arguments and errors are those of `around`.
        """
        _, _, wide, high = _box(masks)
        crop = cls.around(masks)
        small = wide * high < SMALL * masks.shape[1] * masks.shape[2]
        return crop if small and crop.size != crop.frame else None

    @property
    def size(self) -> Size:
        """(height, width) of the window."""
        return self.height, self.width

    def cut(self, pictures: NDArray[Any]) -> NDArray[Any]:
        """Returns a view of the window in pictures [T, H, W, ...]; raises `InputError` for another size."""
        _require_size(pictures, self.frame)
        return pictures[:, self.y : self.y + self.height, self.x : self.x + self.width]

    def cut_depth(self, depth: NDArray[Any]) -> NDArray[Any]:
        """Returns the window of depth [T, h, w] on the host, which may have another size than the frames.

        Depth of the frames' size is a view. Any other is resized linearly, to float32 [T, height, width].
        """
        if depth.shape[1:] == self.frame or depth.ndim != 3:
            return self.cut(depth)
        from PIL import Image

        down, across = depth.shape[1] / self.frame[0], depth.shape[2] / self.frame[1]
        at, to = (self.x, self.y), (self.x + self.width, self.y + self.height)
        box = (at[0] * across, at[1] * down, to[0] * across, to[1] * down)
        images = (Image.fromarray(one) for one in depth.astype(np.float32))
        resized = (one.resize(self.size[::-1], Image.Resampling.BILINEAR, box) for one in images)
        return np.stack([np.asarray(one) for one in resized])

    def paste(self, pictures: NDArray[Any], value: Any, xp: Any = np) -> NDArray[Any]:
        """Returns frames [T, H, W, ...] of `value` with the window's pictures in their place.

        Args:
            pictures: [T, height, width, ...], of the window.
            value: False for masks, 255 for RGB: the networks draw the object on white.
            xp: the arrays' namespace, numpy or CuPy.

        Raises:
            InputError: pictures of another size.
        """
        _require_size(pictures, self.size)
        rows = (self.y, self.frame[0] - self.y - self.height)
        columns = (self.x, self.frame[1] - self.x - self.width)
        around = ((0, 0), rows, columns, *((0, 0),) * (pictures.ndim - 3))
        return cast("NDArray[Any]", xp.pad(pictures, around, constant_values=value))

    def cut_off(self, masks: Bools) -> list[int]:
        """Returns the frames in which the window's masks [T, height, width] reach its edge inside the frame."""
        _require_size(masks, self.size)
        inside = (self.y > 0, self.x > 0, self.y + self.height < self.frame[0], self.x + self.width < self.frame[1])
        edges = (masks[:, 0], masks[:, :, 0], masks[:, -1], masks[:, :, -1])
        reached = [edge.any(axis=1) for edge, within in zip(edges, inside, strict=True) if within]
        return np.flatnonzero(np.any(reached, axis=0)).tolist() if reached else []


def find_shrunk(modal: Bools, size: Size, fewest: int = FEWEST_PIXELS) -> list[int]:
    """Returns the frames in which resizing makes the object's visible pixels fewer, and fewer than `fewest`.

    Args:
        modal: bool [T, h, w], visible pixels.
        size: (H, W) of the networks' pictures.

    Raises:
        InputError: the object is seen, but not a pixel of it is left in any frame.
    """
    seen, left = (masks.sum(axis=(1, 2)) for masks in (modal, prepare_modal(modal, size) > 0))
    if seen.any() and not left.any():
        raise InputError(
            f"the object has at most {int(seen.max())} visible pixels in a frame, and none of them is left when masks "
            f"of {modal.shape[1]}x{modal.shape[2]} are resized to the networks' {size[0]}x{size[1]}; run on a window "
            'around the object (`crop="auto"`).',
            field="masks",
        )
    return np.flatnonzero((left < seen) & (left < fewest)).tolist()


def _box(masks: Bools) -> tuple[int, int, int, int]:
    """Returns x, y, width and height of the box around all masks of a clip."""
    if masks.dtype != np.bool_ or masks.ndim != 3:
        raise InputError(f"masks to crop around are {masks.dtype} {list(masks.shape)}; expected bool [T, H, W].")
    x, y, wide, high = cv2.boundingRect(np.asarray(masks.any(axis=0), np.uint8))
    if not wide:
        raise InputError(f"none of the {len(masks)} masks shows an object to crop around.", field="masks")
    return x, y, wide, high


def _require_size(pictures: NDArray[Any], size: Size) -> None:
    if pictures.shape[1:3] != size:
        found = "x".join(map(str, pictures.shape[1:3])) if pictures.ndim > 2 else f"of shape {list(pictures.shape)}"
        raise InputError(f"crop: pictures are {found}, expected {size[0]}x{size[1]}.")
