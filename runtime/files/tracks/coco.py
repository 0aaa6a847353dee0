"""COCO annotations, with the ids of CVAT and Detectron2's results, and the tracks of YouTube-VIS.

- COCO: `{"images": [...], "annotations": [{"image_id", "category_id", "segmentation"}]}`, or the annotations alone, as
  in Detectron2's `coco_instances_results.json` (cocodataset.org/#format-data).
- CVAT's COCO export keeps the id of a track in `attributes.track_id` (cvat `dataset_manager/bindings.py`).
- YouTube-VIS: annotations with one of `segmentations` per frame, and `videos` with `file_names`
  (youtube-vos.org/dataset/vis), alone in its results.

The id of an object is its `track_id`, `object_id`, `instance_id` or `obj_id`, the first of these that there is, also
within `attributes`. Otherwise it is the `id` of a YouTube-VIS track (or its index in the file), or the `category_id` of
a COCO annotation. Data sets of amodal masks keep the visible mask apart: `visible_mask`, `visible_segm`, `i_segm`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ...errors import InputError
from ...paths import natural_key
from .gathering import ONE_ID_EACH, common_size, gather, read_id, read_track_id, sparse, whole
from .naming import file_name
from .segments import CocoSegment, Segment
from .track import Id, Timeline, Track, Tracks

_VISIBLE = ("visible_mask", "visible_segm", "i_segm")
_WHOLE = ("amodal_segm", "a_segm")


def read_coco(path: Path, document: Any, key: str) -> Tracks | None:
    """Reads COCO annotations or YouTube-VIS tracks; returns None for other layouts."""
    held = document if isinstance(document, dict) else {}
    items = held.get("annotations", document)
    if not isinstance(items, list) or not items or not all(isinstance(item, dict) for item in items):
        return None
    if all(isinstance(item.get("segmentations"), list) for item in items):
        return Tracks(path, "YouTube-VIS tracks", _read_tracks(path, items, _dicts(held.get("videos"))))
    if not all("image_id" in item for item in items):
        return None
    if not any(_mask_of(item, key) for item in items) and any(item.get("bbox") for item in items):
        which = "TAO-Amodal" if any("amodal_bbox" in item for item in items) else "COCO"
        raise InputError(f"{path} holds the boxes of {which}, not masks; give annotations with a segmentation.")
    if not any(_field_of(item, key) in item for item in items):
        return None
    images = {
        read_id(path, "id of an image", image["id"]): image for image in _dicts(held.get("images")) if "id" in image
    }
    used, notes = _with_ids(path, items)
    fields = {_field_of(item, key) for item in items}
    if fields - {"segmentation"}:
        notes.append(f"{path} has several masks of each object; {', '.join(sorted(fields))} is read as the {key} mask.")
    timelines = _timelines(path, items, images, _dicts(held.get("videos")))
    shown = _shown(path, used, timelines, images, key)
    return Tracks(path, "COCO annotations", gather(path, shown, ONE_ID_EACH, "image"), notes)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _field_of(item: Mapping[str, Any], key: str) -> str:
    """Returns the field with the mask that is asked for, in data sets that hold the visible and the whole mask."""
    names = _VISIBLE if key == "modal" else _WHOLE
    return next((name for name in names if item.get(name) is not None), "segmentation")


def _mask_of(item: Mapping[str, Any], key: str) -> Any:
    return item.get(_field_of(item, key))


def _with_ids(path: Path, items: Sequence[dict[str, Any]]) -> tuple[list[tuple[Id, dict[str, Any]]], list[str]]:
    """Returns annotations with the id of their object, and notes; without any track ids, these are the categories'."""
    named = [(read_track_id(path, item), item) for item in items]
    tracked: list[tuple[Id, dict[str, Any]]] = [(name, item) for name, item in named if name is not None]
    if not tracked:
        return [(read_id(path, "category_id", item.get("category_id")), item) for item in items], []
    left = len(items) - len(tracked)
    # The number of a category would be taken for that of a track.
    notes = [f"{path} has {left} annotations without a track_id, which are left out."] if left else []
    return tracked, notes


def _shown(
    path: Path,
    used: Sequence[tuple[Id, dict[str, Any]]],
    timelines: Mapping[Id, tuple[Timeline, int]],
    images: Mapping[Id, dict[str, Any]],
    key: str,
) -> Iterator[tuple[Timeline, Id, int, Segment]]:
    for name, item in used:
        image = read_id(path, "image_id", item["image_id"])
        timeline, entry = timelines[image]
        yield timeline, name, entry, CocoSegment(_mask_of(item, key) or [], common_size([images.get(image)]))


def _timelines(
    path: Path, items: Sequence[dict[str, Any]], images: Mapping[Id, dict[str, Any]], videos: Sequence[dict[str, Any]]
) -> dict[Id, tuple[Timeline, int]]:
    """Returns the timeline of its video and the position in it, for each id of an image."""
    mentioned = list(dict.fromkeys(read_id(path, "image_id", item["image_id"]) for item in items))
    if not images:
        mentioned.sort(key=lambda name: natural_key(str(name)))
        texts = [str(name) for name in mentioned]
        spoken = not all(isinstance(name, int) for name in mentioned)
        unnamed = Timeline(len(texts), texts if spoken else None, labels=texts)
        return {name: (unnamed, i) for i, name in enumerate(mentioned)}
    unknown = [name for name in mentioned if name not in images]
    if unknown:
        raise InputError(
            f"{path} annotates image {unknown[0]}, which is not among its images; expected every image there."
        )
    titles = {str(video.get("id")): str(video.get("name", video.get("id"))) for video in videos}
    by_video: dict[str, list[Id]] = {}
    for name, image in images.items():
        by_video.setdefault(str(image.get("video_id")), []).append(name)
    found: dict[Id, tuple[Timeline, int]] = {}
    for video, members in by_video.items():
        title = titles.get(video, video) if len(by_video) > 1 else None
        timeline, ordered = _timeline(path, [images[name] for name in members], title)
        found.update({image["id"]: (timeline, i) for i, image in enumerate(ordered)})
    return found


def _timeline(path: Path, clip: Sequence[dict[str, Any]], video: str | None) -> tuple[Timeline, list[dict[str, Any]]]:
    """Returns the timeline of a video's images, and the images in its order."""
    size = common_size(clip)
    numbers: dict[str, list[int]] = {}
    for field in ("frame_id", "frame_index"):
        values = [number for image in clip if (number := whole(image.get(field))) is not None]
        if len(set(values)) == len(clip):
            numbers[field] = values
    order = next(iter(numbers), None)
    if order is not None:
        ordered = sorted(clip, key=lambda image: int(image[order]))
    else:
        ordered = sorted(clip, key=lambda image: natural_key(str(image.get("file_name", image["id"]))))
    names = [image.get("file_name") for image in ordered]
    if all(isinstance(name, str) and name for name in names):
        twice = next((name for name, count in Counter(names).items() if count > 1), None)
        if twice is not None:
            raise InputError(f"{path} lists two images named {twice}; expected names that tell the frames apart.")
        return Timeline(len(ordered), [str(name) for name in names], False, size, video), ordered
    if order is not None and min(numbers[order]) >= 0:
        return Timeline(len(ordered), [str(int(image[order])) for image in ordered], True, size, video), ordered
    labels = [str(image["id"]) for image in ordered]
    return Timeline(len(ordered), None, False, size, video, labels), ordered


def _read_tracks(path: Path, items: Sequence[dict[str, Any]], videos: Sequence[dict[str, Any]]) -> list[Track]:
    known = {str(video.get("id")): video for video in videos}
    several = len({str(item.get("video_id")) for item in items}) > 1
    tracks: dict[tuple[str | None, str], Track] = {}
    for i, item in enumerate(items):
        name = read_track_id(path, item)
        name = read_id(path, "id", item.get("id", i)) if name is None else name
        video = known.get(str(item.get("video_id")), {})
        title = _title(video, str(item.get("video_id"))) if several else None
        segments = item["segmentations"]
        timeline, refusal = _video_timeline(video, title, len(segments), name)
        if (title, str(name)) in tracks:
            refusal = f"holds two tracks of object {name}; {ONE_ID_EACH}"
        tracks[title, str(name)] = Track(path, name, timeline, sparse(segments, CocoSegment), refusal)
    return list(tracks.values())


def _title(video: Mapping[str, Any], otherwise: str) -> str:
    """Returns the name of a video: its own, or that of the folder of its files, or its id."""
    named = video.get("name", video.get("video_name"))
    if isinstance(named, str) and named:
        return named
    files = video.get("file_names")
    first = str(files[0]).replace("\\", "/") if isinstance(files, list) and files else ""
    return file_name(first.rpartition("/")[0]) or otherwise


def _video_timeline(video: Mapping[str, Any], title: str | None, count: int, name: Id) -> tuple[Timeline, str]:
    size = common_size([video])
    files = video.get("file_names")
    if not (isinstance(files, list) and files and all(isinstance(file, str) for file in files)):
        return Timeline(count, None, False, size, title), ""
    if len(files) != count:
        return Timeline(count, None, False, size, title), (
            f"has {count} masks of object {name} for a video of {len(files)} files; expected one or null per file"
        )
    return Timeline(count, files, False, size, title), ""
