"""Reads masks from folders of pictures, COCO RLE and numpy archives.

What the values mean, `pictures.objects` tells; how files say it, `mask_pictures`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, argument
from ..paths import PathLike
from ..pictures.objects import ObjectId, read_object
from .frames import describe_size, join_ranges, list_images, load_array, open_image, require_path, require_same_size
from .mask_pictures import decode_mask_picture, mask_picture
from .rle import choose_object, read_json_masks

_KINDS = "a folder of mask images, a COCO RLE json or an npz file"


@argument("masks")
def read_masks(
    path: PathLike, object_id: ObjectId | None = None, frame_size: tuple[int, int] | None = None, key: str = "modal"
) -> NDArray[np.bool_]:
    """Reads the masks of one object over a clip, by the rules in the module's docstring: bool [T, H, W].

    Args:
        path: a folder of mask images in natural order (or of one such folder per object, named by its id), a COCO RLE
            json (`amodal.runtime.files.rle` lists the layouts), or an .npz or .npy [T, H, W] of bool or numbers.
        object_id: the object, if the file holds several.
        frame_size: (height, width), for a json without it.
        key: `modal` or `amodal`, for files that hold both (amodal's masks.json, an npz).

    Raises:
        InputError: no such path, damaged, ambiguous (lists the ids), or without that object.
    """
    source = require_path(path, _KINDS)
    if source.is_dir():
        return _read_folder(source, object_id)
    if source.suffix.lower() == ".json":
        return read_json_masks(source, object_id, frame_size, key)
    if source.suffix.lower() not in (".npz", ".npy"):
        raise InputError(f"{source} is not a supported kind of file; give {_KINDS}.")
    array = load_array(source, (key, "masks"))
    return read_object([mask_picture(frame) for frame in array], str(source), object_id).masks


def check_clip(frames: NDArray[Any], masks: NDArray[np.bool_], depth: NDArray[Any] | None = None) -> list[str]:
    """Checks that frames [T, H, W, 3], masks [T, H, W] and depth [T, h, w] belong together; returns warnings to show.

    Raises:
        InputError: the numbers differ, the sizes of frames and masks differ, or no mask shows the object.
    """
    counts = f"There are {len(frames)} frames but"
    if len(frames) != len(masks):
        message = f"{counts} {len(masks)} masks; give one mask per frame (all zero where the object is not seen)."
        raise InputError(message, field="masks")
    if frames.shape[1:3] != masks.shape[1:3]:
        sizes = describe_size(frames.shape[1:3]), describe_size(masks.shape[1:3])
        message = f"The frames are {sizes[0]} but the masks are {sizes[1]}; give them the same size."
        raise InputError(message, field="masks")
    if depth is not None and len(depth) != len(frames):
        raise InputError(f"{counts} {len(depth)} depth maps; give one per frame, or none.", field="depth")
    seen = masks.any(axis=(1, 2))
    if not seen.any():
        raise InputError(
            f"None of the {len(masks)} masks shows the object; give masks that are not zero where it is "
            "seen, or pick another object by its id with `object_id`.",
            field="masks",
        )
    if seen.all():
        return []
    missing = join_ranges(np.flatnonzero(~seen).tolist())
    return [f"The masks show the object in {int(seen.sum())} of {len(masks)} frames; not in frame {missing}."]


def _read_folder(folder: Path, object_id: ObjectId | None) -> NDArray[np.bool_]:
    by_object = _object_folders(folder)
    if by_object:
        return _read_folder(by_object[choose_object(folder, by_object, object_id)], None)
    paths = list_images(folder)
    pictures = [decode_mask_picture(open_image(path)) for path in paths]
    require_same_size(paths, [picture.values.shape[:2] for picture in pictures])
    return read_object(pictures, str(folder), object_id).masks


def _object_folders(folder: Path) -> dict[int, Path]:
    """Returns the folders of masks by object id, as SAM 2 writes them (000, 001, ...); none if `folder` holds files."""
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return {}
    if any(entry.is_file() for entry in entries):
        return {}
    return {int(entry.name): entry for entry in entries if entry.name.isascii() and entry.name.isdecimal()}
