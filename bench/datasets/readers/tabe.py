"""TABE-51: a folder per video with frames, whole and visible masks, and how much is hidden frame by frame."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from amodal.runtime.errors import InputError
from amodal.runtime.paths import natural_key
from amodal.runtime.pictures.padding import mask_boxes

from ..clip import Bools, Clip, Missing
from ..reading import need, pictures, planes, require

_PLACES = ("data", "TABE-51/data")
_PARTS = ("frames", "gt_masks", "visible_masks")


@dataclass(frozen=True)
class Tabe:
    """The videos below `root`. A clip's id is the video's name, its keys the frames' names.

    Facts: `levels`, the level of occlusion of each frame.
    """

    root: Path

    def clips(self) -> Iterator[Clip]:
        """See `Dataset`."""
        for folder in self._folders():
            yield _clip(folder)

    def _folders(self) -> list[Path]:
        data = require(self.root, _PLACES, "TABE-51")
        folders = [path for path in data.iterdir() if (path / "annos.json").is_file()]
        if not folders:
            raise InputError(f"{data} holds no folder with annos.json; expected TABE-51's videos.", field="root")
        return sorted(folders, key=lambda path: natural_key(path.name))

    def check(self) -> list[Missing]:
        """See `Dataset`."""
        if any((self.root / place).is_dir() for place in _PLACES):
            return []
        return [Missing(_PLACES[0] + "/", "the Google Drive link in github.com/finlay-hudson/TABE", "MIT (the code's)")]

    def annotations(self) -> list[Path]:
        """See `Dataset`."""
        return [folder / "annos.json" for folder in self._folders()]

    def about(self) -> dict[str, Any]:
        """See `Dataset`."""
        return {}


def _clip(folder: Path) -> Clip:
    path = folder / "annos.json"
    try:
        facts = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as json ({error}).", field="root") from error
    need(facts, ("occlusion",), str(path))
    files = {part: sorted((folder / part).glob("*.*"), key=lambda file: natural_key(file.name)) for part in _PARTS}
    counts = {part: len(found) for part, found in files.items()} | {"annos.json": len(facts["occlusion"])}
    if counts["gt_masks"] == 0 or len({counts[key] for key in ("gt_masks", "visible_masks", "annos.json")}) > 1:
        told = ", ".join(f"{count} in {part}" for part, count in counts.items())
        raise InputError(f"{folder} has different numbers of frames ({told}); expected one.", field="root")
    whole = partial(_masks, files["gt_masks"])
    first = planes(files["gt_masks"][:1])
    return Clip(
        id=folder.name,
        keys=tuple(file.stem for file in files["gt_masks"]),
        size=(first.shape[1], first.shape[2]),
        sources={
            "rgb": partial(pictures, files["frames"]),
            "modal": partial(_masks, files["visible_masks"]),
            "amodal": whole,
            "boxes": lambda: mask_boxes(whole()),
        },
        facts={"levels": [frame["level"] for frame in facts["occlusion"]]},
        images=tuple(files["frames"]),
    )


def _masks(files: list[Path]) -> Bools:
    values = planes(files)
    if values.ndim == 4:
        values = values[..., 0]
    return np.asarray(values > 0, np.bool_)
