"""Scenes on disk: folders that `amodal run` reads, and the ground truth."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from ..errors import InputError
from ..files.results import write_frames_png, write_json, write_masks_png
from ..paths import PathLike
from .scene import Scene

SCENE_FORMAT = "amodal-scene"


def write_scene(folder: PathLike, scene: Scene, fps: float = 8.0) -> None:
    """Writes a scene into a folder, such as one of `amodal.runtime.files.atomic.staged_folder`.

    Layout: `frames/*.png`, `masks/*.png` (the visible part), `depth/*.png` (16 bit, nearer is larger),
    `truth/amodal_masks/*.png`, `truth/completed/*.png` (the whole object on white), and `scene.json` with `format`,
    `version`, `seed`, `object_id`, `image_ids`, `fps`, `visibility` (share per frame) and `boxes` (x, y, width and
    height of the whole object in pixels, also beyond the frame).

    Raises:
        InputError: `fps` is no number above 0.
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
