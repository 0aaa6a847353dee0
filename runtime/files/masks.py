"""Reading the masks people bring: PNG folders, palette ids, COCO RLE, numpy archives.

What counts as the object, when no object id is given:

- Grey and colour pictures: `convert("L")` > 128, as in the reference; if the clip's maximum is 1, then 1.
- Palette pictures whose palette is grey, or is the 216-colour web palette that Pillow's `convert("P")`
  writes: a picture that was squeezed into a palette, read as above. The authors' own demo masks are of both
  kinds.
- Any other palette (DAVIS, VOC, SAM 2): the index is an object id, 0 the background. One id in the clip is
  the object whatever its colour; several are an error that lists them.

With an object id, that is the palette index, or the grey value of a picture without a palette.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, argument
from .frames import (
    PathLike,
    describe_size,
    list_images,
    load_array,
    open_image,
    ranges,
    require_path,
    require_same_size,
)
from .objects import listed, no_such_object, several_objects

if TYPE_CHECKING:
    from PIL import Image

_KINDS = "a folder of mask images, a COCO RLE json or an npz file"
# JPEG and palette quantisation leave a tint this strong on what was grey.
_GREY_TOLERANCE = 8
_WEB_LEVELS = range(0, 256, 51)


def probability_map(samples: Sequence[NDArray[np.bool_]]) -> NDArray[np.float32]:
    """Share of samples that cover each pixel: float32 [T, H, W] in [0, 1], from K masks bool [T, H, W]."""
    return np.asarray(np.mean(np.stack(samples), axis=0, dtype=np.float32))


def binarise(values: NDArray[Any], xp: Any = np) -> NDArray[np.bool_]:
    """The object in raw mask values: any value > 128 or, if the maximum is 1, the value 1.

    Args:
        values: bool or integers of any shape, a whole clip at once (the maximum is the clip's), numpy's or `xp`'s.

    Returns:
        bool, the same shape.
    """
    if values.dtype == np.bool_:
        return cast("NDArray[np.bool_]", values)
    if xp is not np:  # without a branch, which would wait for the device
        values = values.astype(np.int16) if values.dtype == np.int8 else values  # which has no 128
        return cast("NDArray[np.bool_]", (values > 128) | ((values == 1) & (values.max() == 1)))
    binary = values.size > 0 and values.max() == 1
    return cast("NDArray[np.bool_]", values == 1 if binary else values > 128)


@argument("masks")
def read_masks(
    path: PathLike,
    object_id: int | None = None,
    frame_size: tuple[int, int] | None = None,
    key: str = "modal",
) -> NDArray[np.bool_]:
    """Masks of one object over a clip; the module's docstring has the rules.

    Args:
        path: a folder of mask images in natural order (or of one such folder per object, named by its id), a
            COCO RLE json (`amodal.runtime.files.rle` has the layouts), or an .npz / .npy [T, H, W] of bool or
            integers.
        object_id: which object, where the file holds several.
        frame_size: (height, width) for a json that does not say it.
        key: `modal` or `amodal`, in files that hold both (our masks.json, an npz).

    Returns:
        bool [T, H, W], True where the object is.

    Raises:
        InputError: nothing there, damaged, ambiguous (the ids are listed), or without that object.
    """
    source = require_path(path, _KINDS)
    if source.is_dir():
        return _read_folder(source, object_id)
    if source.suffix.lower() == ".json":
        from .rle import read_json_masks

        return read_json_masks(source, object_id, frame_size, key)
    if source.suffix.lower() not in (".npz", ".npy"):
        raise InputError(f"{source} is of a kind that is not read; give {_KINDS}.")
    array = load_array(source, (key, "masks"))
    if array.dtype.kind not in "biu":
        raise InputError(f"{source} holds {array.dtype} values; expected bool or uint8.")
    return _binarise_or_pick(array, object_id, source)


def check_clip(frames: NDArray[Any], masks: NDArray[np.bool_], depth: NDArray[Any] | None = None) -> list[str]:
    """Whether frames, masks and depth belong together.

    Args:
        frames: [T, H, W, 3].
        masks: bool [T, H, W].
        depth: [T, h, w] of any size, or None.

    Returns:
        Warnings to show, each a sentence; empty when all is well.

    Raises:
        InputError: the numbers differ, the sizes of frames and masks differ, or no mask shows the object.
    """
    if len(frames) != len(masks):
        raise InputError(
            f"There are {len(frames)} frames but {len(masks)} masks; "
            "give one mask per frame (all zero where the object is not seen).",
            field="masks",
        )
    if frames.shape[1:3] != masks.shape[1:3]:
        raise InputError(
            f"The frames are {describe_size(frames.shape[1:3])} but the masks are "
            f"{describe_size(masks.shape[1:3])}; give them the same size.",
            field="masks",
        )
    if depth is not None and len(depth) != len(frames):
        raise InputError(
            f"There are {len(frames)} frames but {len(depth)} depth maps; give one per frame, or none.",
            field="depth",
        )
    seen = masks.any(axis=(1, 2))
    if not seen.any():
        raise InputError(
            f"None of the {len(masks)} masks shows the object; expected values above 128 "
            "(or 1, if that is the largest); pick an object by its id with `object_id`.",
            field="masks",
        )
    if seen.all():
        return []
    missing = ranges(np.flatnonzero(~seen).tolist())
    return [f"The masks show the object in {int(seen.sum())} of {len(masks)} frames; not in frame {missing}."]


@dataclass(frozen=True)
class _Picture:
    """One mask file: its raw values, and how they become grey."""

    values: NDArray[Any]  # palette indices or grey values [H, W]; of a colour picture, `convert("L")`
    to_grey: NDArray[np.uint8] | None  # palette index -> grey, as `convert("L")` has it
    holds_ids: bool  # the palette says that the indices are objects
    coloured: bool  # a colour picture without a palette: no ids in it

    @property
    def grey(self) -> NDArray[Any]:
        return self.values if self.to_grey is None else self.to_grey[self.values]


def _read_folder(folder: Path, object_id: int | None) -> NDArray[np.bool_]:
    by_object = _object_folders(folder)
    if by_object:
        if object_id is None and len(by_object) > 1:
            raise several_objects(folder, by_object)
        if object_id is not None and object_id not in by_object:
            raise no_such_object(folder, object_id, by_object)
        return _read_folder(by_object[next(iter(by_object)) if object_id is None else object_id], None)

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
    if len(ids) > 1:
        raise several_objects(folder, ids)
    return cast("NDArray[np.bool_]", values != 0)


def _object_folders(folder: Path) -> dict[int, Path]:
    """SAM 2 writes one folder of masks per object, named 000, 001, ...; empty if `folder` holds images "
    "itself."""
    try:
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    except OSError:
        return {}
    if any(entry.is_file() for entry in entries):
        return {}
    return {int(entry.name): entry for entry in entries if entry.name.isascii() and entry.name.isdecimal()}


def _picture(image: Image.Image) -> _Picture:
    if image.mode == "P":
        palette = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
        return _Picture(np.asarray(image), _grey_of_palette(image), not _is_picture_palette(palette), False)
    if image.mode == "1":
        return _Picture(np.asarray(image).astype(np.uint8), np.asarray([0, 255], np.uint8), False, False)
    if image.mode == "L" or image.mode.startswith("I"):
        return _Picture(np.asarray(image), None, False, False)
    rgb = np.asarray(image.convert("RGB"))
    return _Picture(np.asarray(image.convert("L")), None, False, bool((rgb != rgb[..., :1]).any()))


def _grey_of_palette(image: Image.Image) -> NDArray[np.uint8]:
    """What `convert("L")` makes of each of the 256 indices: asked of Pillow itself, so that it rounds the "
    "same."""
    from PIL import Image

    ramp = Image.fromarray(np.arange(256, dtype=np.uint8)[None])
    ramp.putpalette(image.getpalette("RGB") or [])
    return np.asarray(ramp.convert("L")).reshape(256)


def _is_picture_palette(palette: NDArray[np.uint8]) -> bool:
    levels = palette.astype(int)
    if (levels.max(axis=1) - levels.min(axis=1) <= _GREY_TOLERANCE).all():
        return True
    web = {(r, g, b) for r in _WEB_LEVELS for g in _WEB_LEVELS for b in _WEB_LEVELS}
    return web <= {(r, g, b) for r, g, b in levels.tolist()}


def _binarise_or_pick(values: NDArray[Any], object_id: int | None, source: Path) -> NDArray[np.bool_]:
    """The object in grey values or, with an id, the pixels of exactly that value."""
    if object_id is not None:
        picked = values == object_id
        if object_id == 0 or not picked.any():
            raise no_such_object(source, object_id, np.unique(values[values != 0]).tolist())
        return cast("NDArray[np.bool_]", picked)
    masks = binarise(values)
    if not masks.any() and values.any():
        found = np.unique(values[values != 0]).tolist()
        raise InputError(
            f"{source} holds no value above 128, but {listed(found)}, which look like object ids; "
            "pick one with `object_id`."
        )
    return masks
