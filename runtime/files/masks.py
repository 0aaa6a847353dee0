"""Reads masks from folders of pictures, COCO RLE and numpy archives.

Without an object id, the object is:

- In grey and colour pictures: `convert("L")` > 128, as in the reference; if the clip's maximum is 1, the value 1.
- In pictures with a grey palette, or the 216-colour web palette of Pillow's `convert("P")`: the same, because they were
  only converted to a palette. The authors' demo masks are of both kinds.
- In pictures with any other palette (DAVIS, VOC, SAM 2), indices are object ids and 0 is the background: the only id,
  whatever its colour; several are an error that lists them.

An object id selects a palette index, or the grey value in pictures without a palette.
"""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, argument
from ..paths import PathLike
from ..pictures.images import binarise
from .frames import describe_size, join_ranges, list_images, load_array, open_image, require_path, require_same_size
from .objects import choose_object, join_ids
from .tracks import holds_tracks, read_tracks

if TYPE_CHECKING:
    from PIL import Image

_KINDS = "a folder of mask images, a COCO RLE json or an npz file"
# JPEG and palette quantisation tint grey by up to this much.
_GREY_TOLERANCE = 8
_WEB_LEVELS = range(0, 256, 51)


@argument("masks")
def read_masks(
    path: PathLike, object_id: int | str | None = None, frame_size: tuple[int, int] | None = None, key: str = "modal"
) -> NDArray[np.bool_]:
    """Reads the masks of one object over a clip, by the rules in the module's docstring: bool [T, H, W].

    Args:
        path: a folder of mask images in natural order (or of one such folder per object, named by its id), a json, xml
            or txt (the modules of `amodal.runtime.files.tracks` list the layouts), or an .npz or .npy [T, H, W] of bool
            or integers.
        object_id: the object, if the file holds several.
        frame_size: (height, width), for a json without it.
        key: `modal` or `amodal`, for files that hold both (amodal's masks.json, an npz).

    Raises:
        InputError: no such path, damaged, ambiguous (lists the ids), or without that object.
    """
    source = require_path(path, _KINDS)
    if holds_tracks(source):
        return _read_tracks(source, object_id, frame_size, key)
    if isinstance(object_id, str):
        object_id = _number(source, object_id)
    if source.is_dir():
        return _read_folder(source, object_id)
    if source.suffix.lower() not in (".npz", ".npy"):
        raise InputError(f"{source} is not a supported kind of file; give {_KINDS}.")
    array = load_array(source, (key, "masks"))
    if array.dtype.kind not in "biu":
        raise InputError(f"{source} holds {array.dtype} values; expected bool or uint8.")
    return _binarise_or_pick(array, object_id, source)


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
            f"None of the {len(masks)} masks shows the object; expected values above 128 "
            "(or 1, if that is the largest); pick an object by its id with `object_id`.",
            field="masks",
        )
    if seen.all():
        return []
    missing = join_ranges(np.flatnonzero(~seen).tolist())
    return [f"The masks show the object in {int(seen.sum())} of {len(masks)} frames; not in frame {missing}."]


def _number(source: Path, object_id: str) -> int:
    if not (object_id.isascii() and object_id.isdecimal()):
        raise InputError(
            f"{source} numbers its objects, so it holds no object {object_id}; give a number as `object_id`."
        )
    return int(object_id)


def _read_tracks(
    source: Path, object_id: int | str | None, frame_size: tuple[int, int] | None, key: str
) -> NDArray[np.bool_]:
    track = read_tracks(source, key).object(object_id)
    if not track.seen(frame_size):
        raise InputError(f"{source} shows the object in no frame; expected it in at least one.")
    return track.read(size=frame_size)


class _Picture(NamedTuple):
    values: NDArray[Any]  # palette indices or grey values [H, W]; of a colour picture, `convert("L")`
    grey: NDArray[Any]  # `convert("L")`
    holds_ids: bool = False  # the palette says that indices are object ids
    coloured: bool = False  # a colour picture without a palette, hence without ids


def _read_folder(folder: Path, object_id: int | None) -> NDArray[np.bool_]:
    by_object = _object_folders(folder)
    if by_object:
        return _read_folder(by_object[choose_object(folder, by_object, object_id)], None)

    paths = list_images(folder)
    pictures = [_picture(open_image(path)) for path in paths]
    require_same_size(paths, [picture.values.shape for picture in pictures])
    if object_id is None and not any(picture.holds_ids for picture in pictures):
        return _binarise_or_pick(np.stack([picture.grey for picture in pictures]), None, folder)
    for path, picture in zip(paths, pictures, strict=True):
        if picture.coloured:
            raise InputError(f"{path} is a colour picture without a palette, so `object_id` finds no ids in it.")
    values = np.stack([picture.values for picture in pictures])
    if object_id is not None:
        return _binarise_or_pick(values, object_id, folder)
    ids = np.unique(values[values != 0]).tolist()
    if ids:
        choose_object(folder, ids, None)
    return cast("NDArray[np.bool_]", values != 0)


def _object_folders(folder: Path) -> dict[int, Path]:
    """Returns the folders of masks by object id, as SAM 2 writes them (000, 001, ...); none if `folder` holds files."""
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return {}
    if any(entry.is_file() for entry in entries):
        return {}
    return {int(entry.name): entry for entry in entries if entry.name.isascii() and entry.name.isdecimal()}


def _picture(image: Image.Image) -> _Picture:
    image.info.pop("transparency", None)  # `convert` would warn of it
    values = np.asarray(image)
    if image.mode == "P":
        palette = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        return _Picture(values, np.asarray(image.convert("L")), holds_ids=not _is_picture_palette(palette))
    if image.mode == "L" or image.mode.startswith("I"):
        return _Picture(values, values)
    grey = np.asarray(image.convert("L"))
    if image.mode == "1":
        return _Picture(values.astype(np.uint8), grey)
    rgb = np.asarray(image.convert("RGB"))
    return _Picture(grey, grey, coloured=bool((rgb != rgb[..., :1]).any()))


def _is_picture_palette(palette: NDArray[np.uint8]) -> bool:
    """Returns whether a palette [N, 3] is grey or holds the web palette, so that its indices are no object ids."""
    grey = (np.ptp(palette, axis=1) <= _GREY_TOLERANCE).all()
    return bool(grey) or set(product(_WEB_LEVELS, repeat=3)) <= set(map(tuple, palette.tolist()))


def _binarise_or_pick(values: NDArray[Any], object_id: int | None, source: Path) -> NDArray[np.bool_]:
    """Returns the object in grey values or, with an id, the pixels of that value."""
    if object_id is not None:
        picked = values == object_id
        if object_id == 0 or not picked.any():
            choose_object(source, np.unique(values[values != 0]).tolist(), object_id)
        return cast("NDArray[np.bool_]", picked)
    masks = binarise(values)
    if not masks.any() and values.any():
        found = np.unique(values[values != 0]).tolist()
        raise InputError(
            f"{source} holds no value above 128, but {join_ids(found)}, which look like object ids; "
            "pick one with `object_id`."
        )
    return masks
