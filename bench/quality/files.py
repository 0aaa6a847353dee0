"""Folders, RLE and json of predictions and truths, with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from amodal.runtime.errors import InputError
from amodal.runtime.files.rle import decode_rle
from amodal.runtime.paths import natural_key

from .clips import Bools, Floats


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
