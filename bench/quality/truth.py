"""Where the truth is.

- A scene folder: `masks/*.png` (visible), `truth/amodal_masks/*.png`, `truth/completed/*.png`, `frames/*.png`, and
  `scene.json` with `object_id`, `image_ids` and `boxes`.
- A folder of scene folders.
- The authors' annotations for SAIL-VOS: a json list of clips with `image_ids`, `obj_id`, and COCO RLE per frame under
  `segmentation` (whole) and `visible_mask`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from amodal.runtime.errors import InputError, argument
from amodal.runtime.files.frames import require_path
from amodal.runtime.paths import PathLike
from amodal.runtime.scenes.scene import SCENE_FORMAT

from .clips import ClipTruth
from .files import as_boxes, decode_masks, folders_in, load_json, masks_in, rgb_in

_TRUTH = "a scene folder, a folder of scene folders, or an annotations json"
MASKS, COMPLETED = "amodal_masks", "completed"


class TruthSource(Protocol):
    """Where the truth of one clip is."""

    @property
    def name(self) -> str:
        """The clip's name."""
        ...

    def read(self, with_rgb: bool) -> ClipTruth:
        """The truth; without RGB it is faster."""
        ...

    def keys(self) -> list[str]:
        """What the authors' results json calls each frame."""
        ...


@dataclass(frozen=True)
class SceneTruth:
    """A scene folder."""

    folder: Path

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.folder.resolve().name

    def read(self, with_rgb: bool = True) -> ClipTruth:
        """Reads masks and boxes and, if wanted, frames and whole-object RGB where they are there."""
        whole = frames = None
        if with_rgb and (self.folder / "truth" / COMPLETED).is_dir():
            whole = rgb_in(self.folder / "truth" / COMPLETED, "truth")
            frames = rgb_in(self.folder / "frames", "truth") if (self.folder / "frames").is_dir() else None
        amodal = masks_in(self.folder / "truth" / MASKS, "truth")
        modal = masks_in(self.folder / "masks", "truth")
        boxes = self._facts().get("boxes")
        return ClipTruth(self.name, modal, amodal, whole, frames, None if boxes is None else as_boxes(boxes, self.name))

    def keys(self) -> list[str]:
        """`"(image_id, obj_id)"` per frame, from scene.json."""
        facts = self._facts()
        ids, object_id = facts.get("image_ids"), facts.get("object_id")
        if not isinstance(ids, list) or object_id is None:
            raise InputError(
                f"{self.folder / 'scene.json'} has no image_ids and object_id; without them no results json can be "
                "matched with the scene."
            )
        return [_key(image_id, object_id) for image_id in ids]

    def _facts(self) -> dict[str, Any]:
        path = self.folder / "scene.json"
        if not path.is_file():
            return {}
        facts = load_json(path, "truth")
        if not isinstance(facts, dict) or facts.get("format", SCENE_FORMAT) != SCENE_FORMAT:
            raise InputError(f"{path} is no scene of amodal; `truth` expects the format {SCENE_FORMAT!r}.")
        return facts


@dataclass(frozen=True)
class AnnotatedTruth:
    """One clip of the authors' annotations for SAIL-VOS."""

    path: Path
    index: int
    clip: dict[str, Any]

    @property
    def name(self) -> str:
        """Its place in the file."""
        return f"{self.path.name}[{self.index}]"

    def read(self, with_rgb: bool = True) -> ClipTruth:
        """Decodes the masks; there is no RGB."""
        where = f"{self.path} clip {self.index}"
        amodal = decode_masks(self.clip["segmentation"], f"{where}, segmentation")
        return ClipTruth(self.name, decode_masks(self.clip["visible_mask"], f"{where}, visible_mask"), amodal)

    def keys(self) -> list[str]:
        """`"(image_id, obj_id)"` per frame."""
        return [_key(image_id, self.clip["obj_id"]) for image_id in self.clip["image_ids"]]


@argument("truth")
def find_truth(truth: PathLike) -> list[TruthSource]:
    """The clips of `truth`, in natural order.

    Raises:
        InputError: nothing there, or none of the layouts.
    """
    root = require_path(truth, _TRUTH)
    if root.is_file():
        clips = load_json(root, "truth")
        needed = {"segmentation", "visible_mask", "image_ids", "obj_id"}
        if not (isinstance(clips, list) and clips and all(isinstance(c, dict) and needed <= set(c) for c in clips)):
            raise InputError(f"{root} is no list of clips with {', '.join(sorted(needed))}; `truth` expects {_TRUTH}.")
        return [AnnotatedTruth(root, i, clip) for i, clip in enumerate(clips)]
    if (root / "truth" / MASKS).is_dir():
        return [SceneTruth(root)]
    scenes = [SceneTruth(folder) for folder in folders_in(root) if (folder / "truth" / MASKS).is_dir()]
    if not scenes:
        raise InputError(f"{root} holds no truth/{MASKS} folder, nor scenes that do; `truth` expects {_TRUTH}.")
    return list(scenes)


def _key(image_id: Any, object_id: Any) -> str:
    try:
        return str((int(image_id), int(object_id)))
    except (TypeError, ValueError) as error:
        raise InputError(f"image id {image_id!r} and object id {object_id!r} must be whole numbers.") from error
