"""Draws scenes, videos in which one object is partly hidden, with ground truth, and writes them to disk."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files.results import write_frames_png, write_json, write_masks_png
from ..paths import PathLike
from .shapes import Outline
from .textures import SIDE, scenery
from .world import Thing, World, make_world, zoomed_out

Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

SCENE_FORMAT = "amodal-scene"

_SUBPIXEL = 4  # bits after the point in cv2's polygons
_REACH = 0.6  # a surface covers [-0.6, 0.6] of a thing's coordinates


@dataclass(frozen=True)
class Scene:
    """A clip of one object, with ground truth.

    Attributes:
        frames: uint8 [T, H, W, 3] RGB.
        modal: bool [T, H, W], visible pixels.
        amodal: bool [T, H, W], the whole object within the frame.
        depth: float32 [T, H, W] in [0, 1], nearer is larger.
        whole: uint8 [T, H, W, 3], the whole object alone, on white.
        boxes: float32 [T, 4], x, y, width and height of the whole object in pixels, also beyond the frame.
        seed: of `make_scene`.
    """

    frames: Bytes
    modal: Bools
    amodal: Bools
    depth: Floats
    whole: Bytes
    boxes: Floats
    seed: int

    @property
    def visibility(self) -> Floats:
        """Visible share of the object's pixels in the frame, float32 [T]."""
        area = self.amodal.sum(axis=(1, 2))
        return np.asarray(self.modal.sum(axis=(1, 2)) / np.maximum(area, 1), np.float32)


def make_scene(
    seed: int, frames: int = 8, size: tuple[int, int] = (64, 128), zoom: float = 1.0, pace: int | None = None
) -> Scene:
    """Makes a scene, the same for the same arguments; sizes of one aspect ratio show the same world.

    Args:
        seed: at least 0.
        frames: T.
        size: (H, W) in pixels, at least 16.
        zoom: 1 or more; 4 shows the same things at a quarter of their size, somewhere in a wider view.
        pace: see `make_world`; 8 lets things move in a long clip as they do in one of 8 frames.

    Raises:
        InputError: an argument out of range.
    """
    world, rng = _make_world(seed, frames, size, zoom, pace)
    height, width = size
    pictures, depth = _background(world, rng, frames, size)
    whole = np.full((frames, height, width, 3), 255, np.uint8)
    for thing in world.behind:
        _paint(thing, pictures, depth)
    amodal = _paint(world.target, pictures, depth, whole)
    modal = amodal.copy()
    for thing in world.before:
        modal &= ~_paint(thing, pictures, depth)
    low, high = (corner * height for corner in _corners(world.target.parts()))
    boxes = np.concatenate([low, high - low], axis=1).astype(np.float32)
    return Scene(pictures, modal, amodal, depth, whole, boxes, seed)


class Things(NamedTuple):
    """All things of a scene, farthest first: masks bool [K, T, H, W], and depth and frames as in `Scene`.

    The things before and behind the object are as many as the scene has; some may be outside of the frame.
    """

    modal: Bools
    amodal: Bools
    depth: Floats
    frames: Bytes


def make_things(
    seed: int, frames: int = 8, size: tuple[int, int] = (64, 128), zoom: float = 1.0, pace: int | None = None
) -> Things:
    """Makes the scene of `make_scene`, for the same arguments, with the truth of everything that moves in it."""
    world, rng = _make_world(seed, frames, size, zoom, pace)
    pictures, depth = _background(world, rng, frames, size)
    amodal = np.stack([_paint(thing, pictures, depth) for thing in (*world.behind, world.target, *world.before)])
    modal = amodal.copy()
    for index in range(len(modal)):
        modal[:index] &= ~amodal[index]
    return Things(modal, amodal, depth, pictures)


def write_scene(folder: PathLike, scene: Scene, fps: float = 8.0) -> None:
    """Writes a scene into a folder, such as one of `amodal.runtime.files.atomic.staged_folder`.

    Layout: `frames/*.png`, `masks/*.png` (the visible part), `depth/*.png` (16 bit, nearer is larger),
    `truth/amodal_masks/*.png`, `truth/completed/*.png` (the whole object on white), and `scene.json` with `format`,
    `version`, `seed`, `object_id`, `image_ids`, `fps`, `visibility` (share per frame) and `boxes` (as in `Scene`).

    Raises:
        InputError: `fps` is not a number above 0.
    """
    if not 0 < fps < math.inf:
        raise InputError(f"fps {fps}: expected a number above 0.", field="fps")
    root = Path(folder)
    write_frames_png(root / "frames", scene.frames)
    write_masks_png(root / "masks", scene.modal)
    write_frames_png(root / "depth", np.rint(scene.depth * 65535).astype(np.uint16))
    write_masks_png(root / "truth" / "amodal_masks", scene.amodal)
    write_frames_png(root / "truth" / "completed", scene.whole)
    facts = {
        "format": SCENE_FORMAT,
        "version": 1,
        "seed": scene.seed,
        "object_id": 1,
        # Unique over all seeds, for scenes of up to 10,000 frames.
        "image_ids": [scene.seed * 10_000 + index for index in range(len(scene.frames))],
        "fps": fps,
        "visibility": np.round(scene.visibility.astype(np.float64), 4),
        "boxes": np.round(scene.boxes.astype(np.float64), 2),
    }
    write_json(root / "scene.json", facts)


def _make_world(
    seed: int, frames: int, size: tuple[int, int], zoom: float, pace: int | None
) -> tuple[World, np.random.Generator]:
    """Draws the world of a scene; also returns the numbers that draw its background. See `make_scene`."""
    height, width = size
    if seed < 0 or frames < 1 or min(size) < 16:
        raise InputError(
            f"scene with seed {seed}, {frames} frames of {height}x{width}: expected a seed of 0 or more, 1 frame or "
            "more, and sides of 16 pixels or more."
        )
    if not 1 <= zoom < math.inf:
        raise InputError(f"`zoom={zoom}`: expected a number of 1 or more.", field="zoom")
    if pace is not None and pace < 1:
        raise InputError(f"`pace={pace}`: expected frames, 1 or more.", field="pace")
    rng = np.random.default_rng([seed, frames])
    world = make_world(rng, frames, width / height, pace)
    while not _is_recognisable(world):
        world = make_world(rng, frames, width / height, pace)
    if zoom > 1:
        room = np.array([width / height, 1.0]) * (1 - 1 / zoom)
        world = zoomed_out(world, zoom, np.random.default_rng([seed, 1]).uniform(0, room))
    return world, rng


def _is_recognisable(world: World) -> bool:
    """Returns whether some frame shows a third of the object; with less, nobody could know its shape."""
    size = (32, 80)  # fixed, so that a seed is the same world at every size

    def masks(thing: Thing) -> Bools:
        parts = [part * size[0] - 0.5 for part in thing.parts()]
        return np.stack([_alpha([part[t] for part in parts], size) >= 128 for t in range(len(thing.pose))])

    whole = masks(world.target)
    seen = whole & ~np.any([masks(thing) for thing in world.before], axis=0)
    shares = seen.sum(axis=(1, 2)) / np.maximum(whole.sum(axis=(1, 2)), 1)
    return bool(shares.max() >= 1 / 3)


def _background(world: World, rng: np.random.Generator, frames: int, size: tuple[int, int]) -> tuple[Bytes, Floats]:
    height, width = size
    # Drawn at one resolution for all sizes, so that the random numbers are the same.
    canvas = scenery(rng, (96, round(96 * width / height)))
    zoom = 1.25 * height / 96
    pictures = np.empty((frames, height, width, 3), np.uint8)
    for picture, (x, y) in zip(pictures, world.drift * height - 0.125 * height, strict=True):
        shift = np.array([[zoom, 0, x], [0, zoom, y]])
        cv2.warpAffine(canvas, shift, (width, height), dst=picture, borderMode=cv2.BORDER_REFLECT_101)
    floor = np.linspace(0, rng.uniform(0.05, 0.2), height, dtype=np.float32)
    return pictures, np.broadcast_to(floor[None, :, None], (frames, height, width)).copy()


def _paint(thing: Thing, pictures: Bytes, depth: Floats, alone: Bytes | None = None) -> Bools:
    """Paints a thing into all frames and returns its pixels, bool [T, H, W]."""
    frames, height, width = depth.shape
    parts = [part * height - 0.5 for part in thing.parts()]
    mask = np.zeros((frames, height, width), bool)
    low, high = _corners(parts)
    for t in range(frames):
        left, top = np.clip(np.floor(low[t]) - 1, 0, [width, height]).astype(int)
        right, bottom = np.clip(np.ceil(high[t]) + 2, 0, [width, height]).astype(int)
        if right <= left or bottom <= top:
            continue
        alpha = _alpha([part[t] - [left, top] for part in parts], (bottom - top, right - left))
        colours = _colours(thing, t, height, (left, top), alpha.shape)
        weight = alpha[..., None].astype(np.uint16)
        for canvas in (pictures, alone):
            if canvas is not None:
                under = canvas[t, top:bottom, left:right]
                under[:] = (under * (255 - weight) + colours * weight + 127) // 255
        inside = alpha >= 128
        mask[t, top:bottom, left:right] = inside
        y, x = np.mgrid[top:bottom, left:right].astype(np.float32) / height
        centre, (slope_x, slope_y) = thing.pose[t, :, 2], thing.slope
        near = np.clip(thing.near + slope_x * (x - centre[0]) + slope_y * (y - centre[1]), 0, 1)
        np.copyto(depth[t, top:bottom, left:right], near, where=inside, casting="same_kind")
    return mask


def _alpha(parts: list[Any], size: tuple[int, int]) -> Bytes:
    """Returns how much polygons cover each pixel, uint8 [h, w], smooth at the edges."""
    alpha = np.zeros(size, np.uint8)
    for part in parts:
        # Far outside the frame, cv2's fixed-point coordinates would overflow.
        points = np.rint(np.clip(part, -4000, 4000) * (1 << _SUBPIXEL)).astype(np.int32)
        cv2.fillPoly(alpha, [points], 255, cv2.LINE_AA, _SUBPIXEL)
    return alpha


def _colours(thing: Thing, t: int, height: int, corner: tuple[int, int], size: tuple[int, ...]) -> Bytes:
    """Warps the thing's surface into a window of the frame: uint8 [h, w, 3]."""
    # From pixels of the window to coordinates of the frame, those of the thing, and pixels of the surface.
    back, centre = np.linalg.inv(thing.pose[t, :, :2]), thing.pose[t, :, 2]
    scale = SIDE / (2 * _REACH)
    linear = scale * back / height
    at_corner = (np.asarray(corner) + 0.5) / height - centre
    offset = scale * (back @ at_corner + _REACH) - 0.5
    window = (size[1], size[0])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    matrix = np.column_stack([linear, offset])
    return np.asarray(cv2.warpAffine(thing.surface, matrix, window, flags=flags, borderMode=cv2.BORDER_REFLECT_101))


def _corners(parts: Outline) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Returns the lowest and highest (x, y) of an outline in each frame, [T, 2] each."""
    return np.min([part.min(axis=1) for part in parts], axis=0), np.max([part.max(axis=1) for part in parts], axis=0)
