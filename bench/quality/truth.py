"""Finds the truth on disk, in one of these layouts.

- A scene folder: `masks/*.png` (visible), `truth/amodal_masks/*.png`, `truth/completed/*.png`, `frames/*.png`, and
  `scene.json` with `object_id`, `image_ids` and `boxes`.
- A folder of scene folders.
- The authors' annotations for SAIL-VOS: a json list of clips with `image_ids`, `obj_id`, and COCO RLE per frame under
  `segmentation` (whole) and `visible_mask`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from amodal.runtime.errors import InputError, argument
from amodal.runtime.files.frames import read_frames
from amodal.runtime.files.listing import require_path
from amodal.runtime.files.masks import read_masks
from amodal.runtime.files.rle import decode_rle
from amodal.runtime.paths import PathLike, natural_key
from amodal.runtime.scenes.scene import SCENE_FORMAT

from .clips import Bools, ClipTruth, Floats

_EXPECTED = "a scene folder, a folder of scene folders, or an annotations json"
_ANNOTATED = {"segmentation", "visible_mask", "image_ids", "obj_id"}
MASKS, COMPLETED = "amodal_masks", "completed"


@dataclass(frozen=True)
class TruthSource:
    """The truth of one clip on disk.

    Attributes:
        name: the scene folder's, or the clip's place in the annotations.
        read: reads it, with RGB if the argument is True and there are any.
        keys: the key of each frame in the authors' results json, `"(image_id, obj_id)"`.
        masks: folder of the whole-object masks; None in annotations.
    """

    name: str
    read: Callable[[bool], ClipTruth]
    keys: Callable[[], list[str]]
    masks: Path | None = None


@argument("truth")
def find_truth(truth: PathLike) -> list[TruthSource]:
    """The clips of `truth`, in natural order; raises `InputError` if there are none in one of the layouts."""
    root = require_path(truth, _EXPECTED)
    if root.is_file():
        clips = load_json(root, "truth")
        if not (isinstance(clips, list) and clips and all(isinstance(c, dict) and set(c) >= _ANNOTATED for c in clips)):
            needed = ", ".join(sorted(_ANNOTATED))
            raise InputError(f"{root} is no list of clips with {needed}; `truth` expects {_EXPECTED}.")
        return [_annotation(root, i, clip) for i, clip in enumerate(clips)]
    folders = [root] if (root / "truth" / MASKS).is_dir() else folders_in(root)
    scenes = [_scene(folder) for folder in folders if (folder / "truth" / MASKS).is_dir()]
    if not scenes:
        raise InputError(f"{root} holds no truth/{MASKS} folder, nor scenes that do; `truth` expects {_EXPECTED}.")
    return scenes


def _scene(folder: Path) -> TruthSource:
    name = folder.resolve().name
    return TruthSource(name, partial(_read_scene, folder, name), partial(_scene_keys, folder), folder / "truth" / MASKS)


def _read_scene(folder: Path, name: str, with_rgb: bool) -> ClipTruth:
    whole = frames = None
    with argument("truth"):
        if with_rgb and (folder / "truth" / COMPLETED).is_dir():
            whole = read_frames(folder / "truth" / COMPLETED)
            frames = read_frames(folder / "frames") if (folder / "frames").is_dir() else None
        amodal, modal = read_masks(folder / "truth" / MASKS), read_masks(folder / "masks")
    boxes = _scene_facts(folder).get("boxes")
    return ClipTruth(name, modal, amodal, whole, frames, None if boxes is None else as_boxes(boxes, name))


def _scene_keys(folder: Path) -> list[str]:
    facts = _scene_facts(folder)
    ids, object_id = facts.get("image_ids"), facts.get("object_id")
    if not isinstance(ids, list) or object_id is None:
        raise InputError(
            f"{folder / 'scene.json'} has no image_ids and object_id; they are needed to match a results json with the "
            "scene."
        )
    return _keys(ids, object_id)


def _scene_facts(folder: Path) -> dict[str, Any]:
    path = folder / "scene.json"
    if not path.is_file():
        return {}
    facts = load_json(path, "truth")
    if not isinstance(facts, dict) or facts.get("format", SCENE_FORMAT) != SCENE_FORMAT:
        raise InputError(f"{path} is no scene of amodal; `truth` expects the format {SCENE_FORMAT!r}.")
    return facts


def _annotation(path: Path, index: int, clip: dict[str, Any]) -> TruthSource:
    name, where = f"{path.name}[{index}]", f"{path} clip {index}"

    def read(with_rgb: bool) -> ClipTruth:
        whole, visible = (decode_masks(clip[k], f"{where}, {k}") for k in ("segmentation", "visible_mask"))
        return ClipTruth(name, visible, whole)

    return TruthSource(name, read, lambda: _keys(clip["image_ids"], clip["obj_id"]))


def _keys(image_ids: list[Any], object_id: Any) -> list[str]:
    keys = []
    for image_id in image_ids:
        try:
            keys.append(str((int(image_id), int(object_id))))
        except (TypeError, ValueError) as error:
            raise InputError(f"image id {image_id!r} and object id {object_id!r} must be whole numbers.") from error
    return keys


def decode_masks(rles: Any, where: str) -> Bools:
    """Decodes COCO RLEs, one per frame, to bool [T, H, W]; errors name `where` and the frame."""
    masks: list[Bools] = []
    for i, rle in enumerate(rles if isinstance(rles, list) else [rles]):
        try:
            if not isinstance(rle, dict):
                raise ValueError(f"{type(rle).__name__} where an RLE should be")
            masks.append(decode_rle(rle))
        except ValueError as error:
            raise InputError(f"{where}: frame {i} has a broken mask ({error}); expected COCO RLE.") from error
        if masks[i].shape != masks[0].shape:
            raise InputError(f"{where}: frame {i} has a mask of another size than frame 0; expected one size.")
    if not masks:
        raise InputError(f"{where}: there are no masks; expected one per frame.")
    return np.stack(masks)


def as_boxes(values: Any, where: str) -> Floats:
    """Lists of x, y, width and height as float64."""
    try:
        return np.asarray(values, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: the boxes are no lists of four numbers; expected x, y, width, height.") from error


def load_json(path: Path, field: str) -> Any:
    """The content of a json file; errors name the argument `field`."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as json ({error}).", field=field) from error


def folders_in(root: Path) -> list[Path]:
    """The folders in a folder, in natural order, without hidden ones."""
    try:
        entries = [entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    except OSError as error:
        raise InputError(f"{root} cannot be opened as a folder ({error.strerror}).") from error
    return sorted(entries, key=lambda entry: natural_key(entry.name))
