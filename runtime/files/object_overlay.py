"""Draws the results of several objects for people: a colour for each, and a picture in which a seam would be seen."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from .overlay import HIDDEN, VISIBLE, Colour, Frames, Masks, outline

PALETTE: tuple[Colour, ...] = (
    *((0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (213, 94, 0), (86, 180, 233), (240, 228, 66)),
    *((51, 34, 136), (136, 204, 238), (153, 153, 51), (136, 34, 85), (68, 170, 153), (221, 204, 119), (170, 68, 153)),
)
"""Okabe and Ito's colours, then Tol's muted ones, which differ for any colour vision; later objects begin anew."""
_PAPER, _INK, _LINE, _MARK = (255, 255, 255), (40, 44, 52), (205, 208, 214), (120, 124, 132)
_MOST_LANES, _MOST_COLUMNS = 12, 8000
LANE = 96
"""Pixels of a lane's height: the frame's width, in as many parts."""


def colour_of(index: int) -> Colour:
    """Returns the colour of an object by its place."""
    return PALETTE[index % len(PALETTE)]


def draw_objects(
    frame: Frames, modal: Sequence[Masks], whole: Sequence[Masks], order: Sequence[int], completed: Sequence[Frames]
) -> Frames:
    """Draws a frame with the whole objects outlined, and their hidden parts hatched: uint8 [H, W, 3].

    Args:
        frame: uint8 [H, W, 3].
        modal, whole: bool [H, W] of each object.
        order: places of the objects, front to back.
        completed: uint8 [H, W, 3] of each object, or none.
    """
    grey = frame.astype(np.float32).mean(axis=-1, keepdims=True)
    picture = 255 - 0.42 * (255 - (0.35 * frame + 0.65 * grey))
    height, width = frame.shape[:2]
    stripe = max(8, round(max(height, width) / 50))
    rows, columns = np.mgrid[:height, :width]
    for index in reversed(order):
        hidden = whole[index] & ~modal[index]
        if completed:
            picture[hidden] = completed[index][hidden]
        slant = rows + columns if index % 2 else rows - columns
        tint = np.where(slant % stripe < stripe * 0.35, 0.75, 0.3)[hidden][:, None]
        picture[hidden] = (1 - tint) * picture[hidden] + tint * np.asarray(colour_of(index), np.float32)
    for index in reversed(order):
        seen = modal[index]
        picture[seen] = 0.7 * frame[seen] + 0.3 * np.asarray(colour_of(index), np.float32)
    canvas = np.ascontiguousarray(np.rint(picture).astype(np.uint8))
    for index in reversed(order):
        outline(canvas, whole[index], colour_of(index))
    return canvas


def draw_mask_colours(modal: Sequence[Masks], whole: Sequence[Masks], order: Sequence[int]) -> Frames:
    """Draws the masks of objects bool [H, W], hidden parts paler: uint8 [H, W, 3]."""
    picture = np.full((*modal[0].shape, 3), 238, np.uint8)
    for index in reversed(order):
        colour = np.asarray(colour_of(index), np.float32)
        picture[whole[index]] = np.rint(0.45 * colour + 0.55 * 255).astype(np.uint8)
    for index in reversed(order):
        picture[modal[index]] = colour_of(index)
    return picture


def lane_of(visible: Masks, whole: Masks) -> NDArray[np.uint8]:
    """Returns how much of each part of the frame's width an object covers, visible and whole: uint8 [2, LANE].

    255 stands for the whole height of the frame.
    """
    edges = np.linspace(0, visible.shape[1], LANE + 1)
    at = np.minimum(edges[:-1].astype(int), visible.shape[1] - 1)
    shares = [
        np.add.reduceat(mask.mean(axis=0), at) / np.diff([*at, mask.shape[1]]).clip(1) for mask in (visible, whole)
    ]
    lanes: NDArray[np.uint8] = np.rint(255 * np.sqrt(np.stack(shares).clip(0, 1))).astype(np.uint8)
    return lanes


def draw_strip(
    lanes: NDArray[np.uint8],
    change: NDArray[np.float32],
    names: Sequence[str],
    blocks: Sequence[int],
    windows: Sequence[int],
) -> Image.Image:
    """Draws objects over time, so that a seam would be seen: a lane for each, a column of pixels for a frame.

    In a lane, the frame's width runs down: blue where the object is visible, red where it is hidden, the darker the
    more of the column. Above are bars: how much of the whole object changed since the frame before, at the lane's
    height for all of it. Block borders are long marks, window borders short ones.

    Args:
        lanes: uint8 [N, K, 2, LANE] of `lane_of`.
        change: float32 [N, K] in [0, 1].
        names: of the objects; those after the twelfth are left out.
        blocks, windows: the first frames of blocks and of windows.
    """
    count, shown = len(lanes), min(lanes.shape[1], _MOST_LANES)
    every = -(-count // _MOST_COLUMNS)
    scale = max(1, min(8, 800 // count))
    pad = -count % every
    lanes = np.pad(lanes, ((0, pad), (0, 0), (0, 0), (0, 0))).reshape(-1, every, *lanes.shape[1:]).max(axis=1)
    change = np.pad(change, ((0, pad), (0, 0))).reshape(-1, every, change.shape[1]).max(axis=1)
    left, top, bars, gap = 90, 22, 40, 14
    across, down = len(lanes) * scale, top + shown * (bars + LANE + gap) + 8
    sheet = Image.new("RGB", (left + across + 10, down), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(14)
    for index in range(shown):
        y = top + index * (bars + LANE + gap)
        draw.text((8, y + bars + LANE // 2), names[index][:10], _INK, font, anchor="lm")
        sheet.paste(_lane(lanes[:, index], scale), (left, y + bars))
        for at, value in enumerate(change[:, index]):
            high = round(float(min(value, 1)) * (bars - 2))
            draw.rectangle((left + at * scale, y + bars - 1 - high, left + (at + 1) * scale - 1, y + bars - 1), _INK)
    for frames, length, colour in ((windows, 5, _MARK), (blocks, 12, (213, 94, 0))):
        for frame in frames:
            x = left + frame // every * scale
            draw.line((x, top - length, x, top), colour)
            for index in range(shown):
                y = top + index * (bars + LANE + gap) + bars + LANE
                draw.line((x, y, x, y + length), colour)
    return sheet


def _lane(lane: NDArray[np.uint8], scale: int) -> Image.Image:
    visible, whole = (lane[:, part].T.astype(np.float32)[..., None] / 255 for part in (0, 1))
    hidden = np.sqrt((whole**2 - visible**2).clip(0))
    paper = np.asarray(_PAPER, np.float32)
    picture = paper + visible * (np.asarray(VISIBLE) - paper)
    picture = picture + hidden * (np.asarray(HIDDEN) - picture)
    return Image.fromarray(np.repeat(np.rint(picture).astype(np.uint8), scale, axis=1))
