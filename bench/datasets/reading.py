"""Reads large json as a stream, RLEs, polygons and pictures of data sets."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from amodal.runtime.errors import InputError
from amodal.runtime.files.rle import decode_rle

from .clip import Bools, Clip

_HASHED_WHOLE = 1 << 20  # bytes read at a time


def stream(path: Path, prefix: str, pairs: bool = False) -> Iterator[Any]:
    """Yields the items below `prefix` of a json file, in the memory of one item: `item` for those of a list.

    Args:
        pairs: whether they are the (key, value) pairs of an object instead.

    Raises:
        InputError: the file cannot be read or is no json; NaN is named, which json does not have.
    """
    import ijson

    try:
        with path.open("rb") as file:
            reader = ijson.kvitems if pairs else ijson.items
            yield from reader(file, prefix, use_float=True)
    except (ijson.JSONError, OSError, ValueError) as error:
        reason = "it holds NaN or infinity" if _holds_nan(error) else (str(error).split("\n") or [""])[0]
        raise InputError(f"{path} cannot be read as json ({reason}); expected a complete file without NaN.") from error


def _holds_nan(error: Exception) -> bool:
    text = str(error)
    return any(word in text for word in ("NaN", "Infinity"))


def digest(paths: Iterable[Path]) -> str:
    """SHA-256 over the contents of files in this order, in hex."""
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while block := file.read(_HASHED_WHOLE):
                total.update(block)
        total.update(b"\0")
    return total.hexdigest()


def require(root: Path, places: Sequence[str], what: str) -> Path:
    """Returns the first of `places` that exists below `root`; raises `InputError` that says what was looked for."""
    for place in places:
        if (root / place).exists():
            return root / place
    looked = " or ".join(places)
    reason = "does not exist" if not root.exists() else f"holds no {looked}"
    raise InputError(f"{root} {reason}; `root` expects the folder of {what}, which has {looked}.", field="root")


def need(entry: Any, names: Sequence[str], where: str) -> None:
    """Raises `InputError` unless a clip or annotation has these fields: it is of another release otherwise."""
    lacking = [name for name in names if not (isinstance(entry, dict) and name in entry)]
    if lacking:
        raise InputError(
            f"{where} has no {', '.join(lacking)}; these annotations are of another release or another data set."
        )


def masks_of(rles: Sequence[Any], where: str) -> Bools:
    """Decodes COCO RLEs of one size to bool [T, H, W]; errors name `where`."""
    masks: list[Bools] = []
    for place, rle in enumerate(rles):
        try:
            masks.append(decode_rle(rle))
        except (ValueError, AttributeError, TypeError) as error:
            raise InputError(f"{where}: mask {place} is broken ({error}); expected COCO RLE.") from error
    if len({mask.shape for mask in masks}) > 1:
        raise InputError(f"{where}: the masks have several sizes; expected one.")
    if not masks:
        raise InputError(f"{where}: there are no masks; expected at least one.")
    return np.stack(masks)


def mask_of(segmentation: Any, size: tuple[int, int], where: str) -> Bools:
    """A mask [H, W] of a segmentation in one of COCO's ways: RLE, a list of polygons, or one flat polygon.

    Polygons are filled by COCO's own rule (`frPyObjects`).
    """
    from pycocotools import mask as coco

    if isinstance(segmentation, dict):
        first: Bools = masks_of([segmentation], where)[0]
        return first
    flat = bool(segmentation) and not isinstance(segmentation[0], list)
    try:
        polygons = [segmentation] if flat else segmentation
        if not polygons:
            return np.zeros(size, np.bool_)
        merged = coco.merge(coco.frPyObjects(polygons, *size))
        return np.asarray(coco.decode(merged)).astype(np.bool_)
    except Exception as error:
        raise InputError(f"{where}: the polygon is broken ({error}); expected lists of x, y.") from error


def pictures(files: Sequence[Path]) -> NDArray[np.uint8]:
    """Reads pictures of one size, uint8 [T, H, W, 3] RGB; raises `InputError` for one that is missing or broken."""
    frames = []
    for file in files:
        picture = cv2.imread(str(file), cv2.IMREAD_COLOR)
        if picture is None:
            raise InputError(f"{file} is missing or no picture; expected a frame of the data set.", field="root")
        frames.append(picture[..., ::-1])
    return np.stack(frames)


def planes(files: Sequence[Path]) -> NDArray[Any]:
    """Reads pictures of numbers as they are stored ([T, H, W]): palettes as indices, tiffs as floats."""
    from PIL import Image

    arrays = []
    for file in files:
        try:
            with Image.open(file) as picture:
                arrays.append(np.asarray(picture))
        except (OSError, ValueError) as error:
            raise InputError(f"{file} is missing or no picture ({error}).", field="root") from error
    return np.stack(arrays)


def refuse_twice(clips: Iterable[Clip]) -> Iterator[Clip]:
    """Yields the clips; raises `InputError` when an id comes a second time."""
    seen: set[str] = set()
    for clip in clips:
        if clip.id in seen:
            raise InputError(f"the annotations hold the clip {clip.id} twice; expected every id once.", field="root")
        seen.add(clip.id)
        yield clip
