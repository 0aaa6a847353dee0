"""Reads and writes COCO run-length masks in json files.

A mask is an RLE, compressed (a string) or not (a list), or a list of polygons. The supported layouts:

- masks.json of amodal: `{"frames": [{"modal": rle, "amodal": rle, ...}, ...]}`;
- a list with one RLE or null per frame, alone or under `masks`, `rles` or `segmentations` (YouTube-VIS), or an object
  that maps frame names to RLEs;
- YouTube-VIS: a list of tracks with `segmentations`, or `{"videos": ..., "annotations": ...}` of such tracks;
- COCO: a list of annotations with `image_id`, or `{"images": ..., "annotations": ...}`.

The id of an object is its track's `track_id`, `object_id`, `instance_id` or `obj_id`, the first of these that there is.
Otherwise it is the `id` of a YouTube-VIS track (or its index in the file), or the `category_id` of a COCO annotation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..paths import natural_key
from .frames import describe_size

Id = TypeVar("Id")
Size = tuple[int, int]
_TRACK_KEYS = ("track_id", "object_id", "instance_id", "obj_id")
_MAX_SIDE = 1 << 15  # otherwise a few bytes of RLE could ask for terabytes of mask
_FARTHEST = 1e6
_LAYOUTS = "one RLE per frame, YouTube-VIS tracks, COCO annotations or a masks.json of amodal"


def read_json_masks(path: Path, object_id: int | str | None, size: Size | None, key: str) -> NDArray[np.bool_]:
    """Reads the masks of one object from a json file; see `masks.read_masks`."""
    try:
        document = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read as json ({error}); expected {_LAYOUTS}.") from error
    tracks = _tracks(path, document, key)
    if object_id is not None and list(tracks) == [None]:
        raise InputError(f"{path} holds a single object without an id; leave out `object_id`.")
    segments = tracks[choose_object(path, tracks, object_id)]
    return _decode_all(path, segments, size or _stored_size(document))


def encode_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Encodes a bool mask [H, W] as COCO's compressed RLE: `size` [height, width] and `counts`, a string."""
    from pycocotools import mask as coco

    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode_rle(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Decodes an RLE, compressed or not, to a bool mask [H, W].

    Raises:
        ValueError: the size is not a pair of positive whole numbers, or the runs do not fill it exactly.
    """
    size, counts = rle.get("size"), rle.get("counts")
    if not (isinstance(size, list) and len(size) == 2 and all(type(n) is int and 0 < n <= _MAX_SIDE for n in size)):
        raise ValueError(f"size is {size}, not [height, width]")
    # pycocotools.decode returns uninitialised memory where the runs end before the mask does (seen with 2.0.11).
    runs = _runs(counts) if isinstance(counts, str) else counts
    if not (isinstance(runs, list) and all(type(n) is int and n >= 0 for n in runs)):
        raise ValueError("counts are neither a string nor a list of whole numbers")
    if sum(runs) != size[0] * size[1]:
        raise ValueError(f"the runs cover {sum(runs)} pixels of {size[0] * size[1]}")
    values = np.arange(len(runs)) % 2 == 1
    return np.repeat(values, runs).reshape(size[1], size[0]).T


def _runs(text: str) -> list[int]:
    """Decodes compressed counts: 5 bits per character, low bits first; from the fourth run on, differences."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"counts hold the character {character!r}")
        value |= (code & 31) << shift
        shift += 5
        if code & 32:
            continue
        if code & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise ValueError("counts are truncated")
    return runs


def _tracks(path: Path, document: Any, key: str) -> dict[Any, list[Any]]:
    """Returns the segments per frame, by object id; None is the id of the only object in a file without ids."""
    if isinstance(document, dict):
        for name in ("segmentations", "masks", "rles"):
            if isinstance(document.get(name), list):
                return {_track_id(path, document): document[name]}
        if isinstance(document.get("annotations"), list):
            images = document.get("images")
            return _annotations(path, document["annotations"], images if isinstance(images, list) else None)
        frames = document.get("frames")
        if isinstance(frames, list) and frames and all(isinstance(frame, dict) for frame in frames):
            if not any(key in frame for frame in frames):
                raise InputError(f"{path} has frames without {key} masks, only {', '.join(map(str, frames[0]))}.")
            return {None: [frame.get(key) for frame in frames]}
        if _is_segment(document) and document:
            return {None: [document]}
        if document and all(value is None or _is_segment(value) for value in document.values()):
            return {None: [document[name] for name in sorted(document, key=natural_key)]}
    elif isinstance(document, list) and document:
        if all(item is None or _is_segment(item) for item in document):
            return {None: document}
        return _annotations(path, document, None)
    raise InputError(f"{path} has none of the supported layouts: {_LAYOUTS}.")


def _is_segment(value: Any) -> bool:
    return isinstance(value, dict) and "size" in value and "counts" in value


def _track_id(path: Path, item: Mapping[str, Any], otherwise: str = "", place: Any = None) -> Any:
    """Returns the id of a track: the first of `_TRACK_KEYS`, else the field `otherwise`, else `place`."""
    name = next((name for name in _TRACK_KEYS if item.get(name) is not None), otherwise)
    return _name(path, name, item.get(name, place))


def _name(path: Path, field: str, value: Any) -> Any:
    """Returns the id of a track or an image; raises `InputError` unless it is a number, text or None."""
    if isinstance(value, list | dict):
        raise InputError(f"{path} has {json.dumps(value)[:40]} as {field}; expected a number or a name.")
    return value


def _annotations(path: Path, items: Sequence[Any], images: Sequence[Any] | None) -> dict[Any, list[Any]]:
    if items and all(isinstance(item, dict) and isinstance(item.get("segmentations"), list) for item in items):
        tracks: dict[Any, list[Any]] = {}
        for i, item in enumerate(items):
            name = _track_id(path, item, "id", i)
            if name in tracks:
                raise InputError(
                    f"{path} holds two tracks of object {name}; expected a track_id that tells them apart."
                )
            tracks[name] = item["segmentations"]
        return tracks
    if not items or not all(isinstance(i, dict) and "image_id" in i and "segmentation" in i for i in items):
        raise InputError(f"{path} has none of the supported layouts: {_LAYOUTS}.")

    by_object: dict[Any, dict[Any, Any]] = {}
    for item in items:
        name, image = _track_id(path, item, "category_id"), _name(path, "image_id", item["image_id"])
        segments = by_object.setdefault(name, {})
        if image in segments:
            found = f"{path} holds two annotations of object {name} for image {image}"
            raise InputError(f"{found}; expected a track_id that tells them apart.")
        segments[image] = item["segmentation"]
    return {
        name: [segments.get(image_id) for image_id in _image_order(path, items, images, segments)]
        for name, segments in by_object.items()
    }


def _image_order(path: Path, items: Sequence[Any], images: Sequence[Any] | None, mine: Iterable[Any]) -> list[Any]:
    """Returns the image ids of the clip in order of time; if images name a video, only those of the object's videos."""
    known = {
        _name(path, "id of an image", image["id"]): image
        for image in images or ()
        if isinstance(image, dict) and "id" in image
    }
    if not known:
        return sorted({item["image_id"] for item in items}, key=lambda name: natural_key(str(name)))
    videos = {str(known[name].get("video_id")) for name in mine if name in known}
    clip = [image for image in known.values() if str(image.get("video_id")) in videos]
    for field in ("frame_id", "frame_index"):
        if all(isinstance(image.get(field), int) for image in clip):
            return [image["id"] for image in sorted(clip, key=lambda image: int(image[field]))]
    return [image["id"] for image in sorted(clip, key=lambda i: natural_key(str(i.get("file_name", i["id"]))))]


def choose_object(source: Path, ids: Iterable[Id], object_id: int | str | None) -> Id:
    """Returns the id of the object to read: the one that is `object_id`, or the only one.

    Raises:
        InputError: no object has that id, or none was chosen of several.
    """
    known = list(ids)
    matching = [name for name in known if object_id is None or str(name) == str(object_id)]
    if object_id is None and len(known) > 1:
        raise InputError(f"{source} holds {len(known)} objects ({join_ids(known)}); pick one with `object_id`.")
    if not matching:
        allowed = join_ids(known) or "nothing here"
        raise InputError(f"{source} holds no object {object_id}; `object_id` can be {allowed}.")
    return matching[0]


def join_ids(ids: Iterable[Any], most: int = 20) -> str:
    """Joins the first `most` ids in natural order into text."""
    names = sorted((str(name) for name in ids), key=natural_key)
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _stored_size(document: Any) -> Size | None:
    """Returns (height, width), if a COCO or YouTube-VIS file has the same for all its images."""
    if not isinstance(document, dict):
        return None
    lists = [document[name] for name in ("images", "videos") if isinstance(document.get(name), list)]
    entries = [entry for one in lists for entry in one if isinstance(entry, dict)]
    stored = [[entry.get("height"), entry.get("width")] for entry in (*entries, document)]
    sizes = {tuple(n if type(n) is int else None for n in size) for size in stored} - {(None, None)}
    height, width = sizes.pop() if len(sizes) == 1 else (None, None)
    return None if height is None or width is None else (height, width)


def _decode_all(path: Path, segments: Sequence[Any], size: Size | None) -> NDArray[np.bool_]:
    masks: list[NDArray[np.bool_] | None] = [None] * len(segments)
    shape: tuple[int, ...] = ()
    for i, segment in enumerate(segments):
        if not segment:
            continue
        try:
            mask = masks[i] = _decode(segment, size)
        except (ValueError, TypeError, IndexError, OverflowError) as error:
            raise InputError(f"{path} has a broken mask in frame {i} ({error}); expected COCO RLE.") from error
        shape = shape or mask.shape
        if mask.shape != shape:
            raise InputError(
                f"{path} has a mask {describe_size(mask.shape)} in frame {i}, but others are "
                f"{describe_size(shape)}; expected one size."
            )
    if not shape:
        raise InputError(f"{path} shows the object in no frame; expected it in at least one.")
    return np.stack([np.zeros(shape, np.bool_) if mask is None else mask for mask in masks])


def _decode(segment: Any, size: Size | None) -> NDArray[np.bool_]:
    if isinstance(segment, dict):
        return decode_rle(segment)
    if size is None:
        raise ValueError("polygons without the size of the images")
    if not all(0 < n <= _MAX_SIDE for n in size):
        raise ValueError(f"polygons in images {describe_size(size)}")
    if not (isinstance(segment, list) and all(isinstance(polygon, list) and len(polygon) >= 6 for polygon in segment)):
        raise ValueError("neither an RLE nor a list of polygons")
    points = [[float(value) for value in polygon] for polygon in segment]
    # pycocotools walks along polygons pixel by pixel in C: NaN or 1e30 would crash the process.
    if not all(abs(value) <= _FARTHEST for polygon in points for value in polygon):
        raise ValueError("a polygon runs far outside the image")
    from pycocotools import mask as coco

    rle = coco.merge(coco.frPyObjects(points, *size))  # not decoded by pycocotools, which warns with numpy 2
    return decode_rle({"size": list(rle["size"]), "counts": rle["counts"].decode("ascii")})
