"""Writes the results of a run: PNGs of masks, frames and cut-outs, masks.json, result.json.

All files go into a folder of `amodal.runtime.files.atomic.staged_folder`, which also turns OSErrors into messages.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..paths import UNDECODED, PathLike, displayed
from .rle import encode_rle


def png_names(count: int, names: Sequence[str] | None = None) -> list[str]:
    """Returns file names for `count` pictures: those of the input frames with the suffix .png, else 0000.png and so on.

    If two inputs differ only in their suffix (a.jpg, a.png), it is kept (a.jpg.png, a.png.png).

    Raises:
        ValueError: `names` has another length.
    """
    if names is None:
        return [f"{i:04d}.png" for i in range(count)]
    if len(names) != count:
        raise ValueError(f"{len(names)} names for {count} pictures")
    stems = [Path(name).stem for name in names]
    if len(set(stems)) < count:
        stems = [Path(name).name for name in names]
    return [f"{stem}.png" for stem in stems]


def write_masks_png(folder: PathLike, masks: NDArray[np.bool_], names: Sequence[str] | None = None) -> list[Path]:
    """Writes masks bool [T, H, W] as grey PNGs of 0 and 255, which `read_masks` reads; otherwise `write_frames_png`."""
    return write_frames_png(folder, masks.astype(np.uint8) * np.uint8(255), names)


def write_frames_png(
    folder: PathLike, frames: NDArray[np.uint8 | np.uint16], names: Sequence[str] | None = None
) -> list[Path]:
    """Writes pictures as PNGs into a folder, which is made if need be; returns their paths.

    Args:
        frames: uint8 [T, H, W, 3] RGB or [T, H, W, 4] RGBA, or uint8 or uint16 [T, H, W] grey.
        names: the input frames' names, see `png_names`.
    """
    from PIL import Image

    root = Path(folder)
    root.mkdir(parents=True, exist_ok=True)
    paths = [root / name for name in png_names(len(frames), names)]
    for path, picture in zip(paths, frames, strict=True):
        Image.fromarray(picture).save(path)
    return paths


def cut_out(frames: NDArray[np.uint8], masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Returns frames uint8 [T, H, W, 3] as uint8 [T, H, W, 4] that are opaque in masks bool [T, H, W], 0 elsewhere."""
    return np.concatenate([frames * masks[..., None], masks[..., None] * np.uint8(255)], axis=-1)


def write_masks_json(
    path: PathLike, modal: NDArray[np.bool_], amodal: NDArray[np.bool_], names: Sequence[str] | None = None
) -> None:
    """Writes masks.json: COCO RLE per frame of masks bool [T, H, W], which `read_masks` reads.

    Layout: `{"format", "version", "frames": [{"index", "name", "modal": m, "amodal": m}, ...]}`, with `name` only for
    input frames that have names, and m = `{"size": [height, width], "counts": str, "area": pixels, "bbox": [x, y,
    width, height]}`.

    Raises:
        ValueError: lengths that differ.
    """
    labels = [{} for _ in modal] if names is None else [{"name": name} for name in names]
    frames = [
        {"index": i, **label, "modal": described_rle(seen), "amodal": described_rle(whole)}
        for i, (label, seen, whole) in enumerate(zip(labels, modal, amodal, strict=True))
    ]
    write_json(path, {"format": "amodal-masks", "version": 1, "frames": frames})


def described_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Encodes a mask bool [H, W], with `area` in pixels and `bbox` [x, y, width, height]."""
    from pycocotools import mask as coco

    rle = encode_rle(mask)
    return {**rle, "area": int(coco.area(rle)), "bbox": [int(value) for value in coco.toBbox(rle)]}


def write_json(path: PathLike, value: Any) -> None:
    """Writes `json_text(value)` and a newline in UTF-8."""
    text = json_text(value)
    Path(path).write_text(text + "\n", encoding="utf-8")


def json_text(value: Any) -> str:
    """Formats json, indented by two spaces; numpy scalars and arrays become numbers and lists, paths strings.

    Bytes of a file name that are no UTF-8 become text such as `\\xe9`, which every reader of json takes.

    Raises:
        TypeError: a value that json cannot hold.
        ValueError: NaN or infinity.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False, default=_plain)
    return UNDECODED.sub(lambda found: json.dumps(displayed(found[0]))[1:-1], text)


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} cannot be written as json")
