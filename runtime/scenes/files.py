"""Scenes on disk: folders that `amodal run` reads, with the truth beside."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InputError
from ..files.frames import PathLike
from ..files.results import write_frames_png, write_json, write_masks_png
from .scene import Scene

SCENE_FORMAT = "amodal-scene"
SCENE_VERSION = 1
SCENE_NAME = "scene.json"


def write_scene(folder: PathLike, scene: Scene, fps: float = 8.0) -> None:
    """Writes a scene, plainly, into a folder that `amodal.runtime.files.atomic.staged_folder` made, or a part of one.

    Layout: `frames/*.png`, `masks/*.png` (the visible part), `depth/*.png` (16 bit, nearer is larger),
    `truth/amodal_masks/*.png`, `truth/completed/*.png` (the whole object on white), and `scene.json` with `format`,
    `version`, `seed`, `object_id`, `image_ids`, `fps`, `visibility` (share per frame) and `boxes` (x, y, width and
    height of the whole object in pixels, beyond the frame too).

    Raises:
        InputError: `fps` is no number above 0.
    """
    if not 0 < fps < math.inf:
        raise InputError(f"fps {fps}: expected a number above 0.", field="fps")
    root = Path(folder)
    write_frames_png(root / "frames", scene.frames)
    write_masks_png(root / "masks", scene.modal)
    _write_depth(root / "depth", scene)
    write_masks_png(root / "truth" / "amodal_masks", scene.amodal)
    write_frames_png(root / "truth" / "completed", scene.whole)
    write_json(root / SCENE_NAME, scene_facts(scene, fps))


def scene_facts(scene: Scene, fps: float = 8.0) -> dict[str, Any]:
    """The content of scene.json. Image ids are unique over all seeds, for scenes of up to 10,000 frames."""
    return {
        "format": SCENE_FORMAT,
        "version": SCENE_VERSION,
        "seed": scene.seed,
        "object_id": 1,
        "image_ids": [scene.seed * 10_000 + index for index in range(len(scene.frames))],
        "fps": fps,
        "visibility": np.round(scene.visibility.astype(np.float64), 4),
        "boxes": np.round(scene.boxes.astype(np.float64), 2),
    }


def _write_depth(folder: Path, scene: Scene) -> None:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for index, depth in enumerate(np.rint(scene.depth * 65535).astype(np.uint16)):
        Image.fromarray(depth).save(folder / f"{index:04d}.png")
