"""Finds the picture of each detection among the files of a folder, or the frame of it in a video."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import InputError, argument
from ..paths import PathLike, displayed, stem_of
from .detections import Detections, ImageId, categories_of, read_json, require_categories
from .listing import require_path
from .pictures import Size, describe_size

_LAST_NUMBER = re.compile(r"(?:^|\D)(\d{1,18})$", re.ASCII)
_LISTED = "COCO annotations with `images`: [{id, file_name}]"


@dataclass(frozen=True)
class ImageList:
    """The images and categories of a COCO file.

    Attributes:
        path: the file.
        names: file names by id. sizes: (height, width) by id, where the file has them.
        categories: names by id; None if the file has none.
    """

    path: PathLike
    names: Mapping[ImageId, str]
    sizes: Mapping[ImageId, Size] = field(default_factory=dict)
    categories: Mapping[ImageId, str] | None = None


@argument("images_json")
def read_image_list(path: PathLike) -> ImageList:
    """Reads the images of a COCO file.

    Raises:
        InputError: no such file, no json, or an image without an id or a file name.
    """
    file = require_path(path, _LISTED)
    document = read_json(file, _LISTED)
    images = document.get("images") if isinstance(document, dict) else None
    if not isinstance(images, list) or not images:
        raise InputError(f"{file} lists no images; expected {_LISTED}.")
    names: dict[ImageId, str] = {}
    sizes: dict[ImageId, Size] = {}
    for index, image in enumerate(images):
        named = isinstance(image, dict) and isinstance(image.get("file_name"), str)
        if not named or not isinstance(image.get("id"), int | str):
            raise InputError(f"image {index} of {file} has no id or no file_name; expected {_LISTED}.")
        if names.setdefault(image["id"], image["file_name"]) != image["file_name"]:
            raise InputError(f"{file} lists two images with the id {image['id']}; expected one id for each.")
        if all(isinstance(image.get(side), int) and image[side] > 0 for side in ("height", "width")):
            sizes[image["id"]] = (image["height"], image["width"])
    return ImageList(file, names, sizes, categories_of(document))


def find_pictures(detections: Detections, names: Sequence[str], listed: ImageList | None = None) -> list[int]:
    """Returns, for each detection, the place of its picture among the files `names`.

    By `listed`, if it is given; else by the `file_name` of the detections; else by the id: text is the name of a file,
    with or without its suffix, and a number is the one that the name of a file ends with (42 is
    `COCO_val2014_000000000042.jpg`).

    Raises:
        InputError: a picture that is not there, or that could be one of two; an image or a category that `listed` has
            not; only some detections with a file name.
    """
    if listed is not None:
        _require_listed(detections, listed)
        places = _by_name(names, "images_json")
        return _look_up(detections, [listed.names[image] for image in detections.images], places)
    with_names = [name for name in detections.files if name is not None]
    if with_names and len(with_names) < len(detections.files):
        lacking = next(i for i, name in enumerate(detections.files) if name is None)
        raise InputError(f"{detections.name(lacking)} has no file_name, others have; give all of them one, or none.")
    if with_names:
        return _look_up(detections, with_names, _by_name(names, "detections"))
    by_name, by_number = _by_name(names, "detections"), _by_number(names)
    return _look_up(detections, detections.images, lambda image: (by_name if _is_text(image) else by_number)(image))


def find_frames(detections: Detections, count: int, first: int | None = None) -> list[int]:
    """Returns, for each detection, the frame of a video of `count` frames, counted from 0.

    Args:
        first: the id of the first frame, 0 or 1. None for what the ids say: 0 if there is a frame 0, 1 if there is one
            of the number `count`; otherwise it could be either, which is refused.

    Raises:
        InputError: ids that are no numbers of frames, or that could be counted from 0 and from 1.
    """
    ids = [int(image) if isinstance(image, int) or image.isdecimal() else None for image in detections.images]
    if None in ids:
        index = ids.index(None)
        raise InputError(f"{detections.name(index)} names no frame of a video; expected a number as image_id.")
    numbers = [number for number in ids if number is not None]
    if first is None:
        if 0 not in numbers and count not in numbers:
            raise InputError(
                f"the image_ids of {detections.path} can be read in two ways, as frames of a video that are counted "
                "from 0 or from 1: they hold neither 0 nor the number of frames. Say which: `first_id=0` or "
                "`first_id=1`.",
                field="detections",
            )
        first = 0 if 0 in numbers else 1
    for index, number in enumerate(numbers):
        if not first <= number < first + count:
            raise InputError(
                f"{detections.name(index)} is for a frame that is not there; the video has the frames {first} to "
                f"{first + count - 1}.",
                field="detections",
            )
    return [number - first for number in numbers]


def require_listed_size(listed: ImageList | None, image: ImageId, name: str, size: Size) -> None:
    """Raises `InputError` if the list says another (height, width) of an image than its file has."""
    said = None if listed is None else listed.sizes.get(image)
    if listed is not None and said is not None and said != size:
        raise InputError(
            f"{displayed(name)} is {describe_size(size)}, but {listed.path} says {describe_size(said)}; boxes would "
            "not fit, so give the picture that was annotated.",
            field="images",
        )


def _require_listed(detections: Detections, listed: ImageList) -> None:
    for index, image in enumerate(detections.images):
        if image not in listed.names:
            raise InputError(
                f"{detections.name(index)} is for an image that {listed.path} does not list; give the file with its "
                "images.",
                field="images_json",
            )
    if listed.categories is not None:
        with argument("images_json"):
            require_categories(detections, listed.categories, listed.path)


def _look_up(detections: Detections, wanted: Sequence[ImageId], place: Callable[[Any], int | None]) -> list[int]:
    found = [place(one) for one in wanted]
    if None not in found:
        return [one for one in found if one is not None]
    index = found.index(None)
    others = len({str(one) for one, at in zip(wanted, found, strict=True) if at is None}) - 1
    more = f"; {others} more {'images are' if others > 1 else 'image is'} missing" if others else ""
    name = displayed(str(wanted[index]))
    what = f"the picture {name}" if _is_text(wanted[index]) else f"a picture whose name ends with the number {name}"
    raise InputError(
        f"{detections.name(index)} needs {what}, which is not in `images`{more}. Give the folder with it, or "
        "`images_json` with the file name of each image.",
        field="images",
    )


def _by_name(names: Sequence[str], field: str) -> Callable[[ImageId], int | None]:
    """Finds the place of a file by its path, its name or its stem, the first of these that there is."""
    tables = [_table(zip(map(key, names), range(len(names)), strict=True)) for key in (str, _base, stem_of)]

    def place(name: ImageId) -> int | None:
        for table, key in zip(tables, (str(name), _base(str(name)), str(name)), strict=True):
            at = table.get(key, [])
            if len(at) > 1:
                raise InputError(
                    f"{displayed(str(name))} can be read as {names[at[0]]} and as {names[at[1]]}; give names with "
                    "their suffixes.",
                    field=field,
                )
            if at:
                return at[0]
        return None

    return place


def _by_number(names: Sequence[str]) -> Callable[[ImageId], int | None]:
    """Finds the place of a file by the number that its name ends with."""
    numbered = [(found and int(found[1]), at) for at, name in enumerate(names) for found in [_last(name)]]
    table = _table(numbered)

    def place(number: ImageId) -> int | None:
        at = table.get(int(number), [])
        if len(at) > 1:
            raise InputError(
                f"image {number} can be read as {names[at[0]]} and as {names[at[1]]}, whose names both end with it; "
                "give `images_json` with the file name of each image.",
                field="detections",
            )
        return at[0] if at else None

    return place


def _table(pairs: Iterable[tuple[Any, int]]) -> dict[Any, list[int]]:
    table: dict[Any, list[int]] = {}
    for key, at in pairs:
        table.setdefault(key, []).append(at)
    return table


def _base(name: str) -> str:
    return name.replace("\\", "/").rsplit("/", 1)[-1]


def _last(name: str) -> re.Match[str] | None:
    return _LAST_NUMBER.search(stem_of(name))


def _is_text(image: ImageId) -> bool:
    return isinstance(image, str) and not image.isdecimal()
