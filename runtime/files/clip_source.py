"""Opens a clip of any length with the masks of its objects, and reads it a part at a time.

Names and counts are settled first. Masks in pictures are then decoded once and kept compressed; frames and depth are
decoded when they are asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, argument
from ..paths import PathLike
from ..pictures.objects import ObjectId, format_id, same_id
from ..progress import Progress, silent
from .clip import ClipFiles, describe_moments
from .clip_depth import ClipDepth
from .depth import open_depth
from .frames import Frames, open_frames
from .listing import join_ranges, require_path
from .mask_store import ONLY, MaskStore, store_pictures
from .masks import MASK_KINDS, TrackMasks, fit_masks, note_covered, object_folders, tracks_of
from .objects import choose_object, join_ids
from .pairing import Pairer
from .pictures import Size, describe_size
from .recent import Recent
from .sequences import Pictures, open_folder, open_sequence
from .tracks import holds_tracks
from .tracks.track import Track

_LOOKED_AT = 16  # masks of an object by which it is noted that it may be the background

Objects = Sequence[ObjectId] | Literal["all"] | None
"""Ids, all of them, or None for the one of `ClipFiles.object_id` or the only one."""


MaskKey = Literal["modal", "amodal"]


class ObjectMasks(Protocol):
    """The masks of all objects of a clip, by the places of its frames."""

    @property
    def ids(self) -> list[ObjectId]:
        """The objects."""
        ...

    def read(self, object_id: ObjectId, numbers: Sequence[int]) -> NDArray[np.bool_]:
        """Returns masks bool [n, h, w] of any size."""
        ...

    def seen(self, object_id: ObjectId) -> list[int]:
        """Returns the frames in which the object is seen."""
        ...


class FileSource:
    """A clip in files; see `amodal.runtime.clips.source.ClipSource`.

    Attributes:
        names: file names of the frames, None for a video.
        fps: frames per second of the frames that are used, where the file says it.
        notes: warnings; reading may add some.
        empty: the objects that are seen in no frame.
    """

    def __init__(self, files: ClipFiles, frames: Frames, chosen: range, masks: ObjectMasks) -> None:
        self._files, self._frames, self._chosen, self._masks = files, frames, chosen, masks
        self.count, self.size = len(chosen), frames.size()
        self.objects = tuple(masks.ids)
        self.names = None if frames.names is None else [frames.names[i] for i in chosen]
        step = files.trim.step(frames.fps)
        self.fps = None if frames.fps is None else frames.fps / step
        self.notes = [*frames.notes, *describe_moments(files.trim, chosen, frames.fps)]
        self._recent = Recent(self._read)
        self._depth: ClipDepth | None = None
        if files.depth is not None:
            with argument("depth"):
                maps = open_depth(files.depth)
                pairing = Pairer(frames, maps, chosen, "depth map").match(files.pair)
            self._depth = ClipDepth(maps, [i for i in pairing.at if i is not None], files.depth_kind, self.size)
            self._note([*maps.notes, *pairing.notes, *self._depth.notes])
        self.has_depth = self._depth is not None
        with argument("masks"):
            self.empty = tuple(o for o in self.objects if not masks.seen(o))

    def again(self) -> FileSource:
        """Returns another reader of the same clip, for another place in it; notes are shared."""
        other = copy.copy(self)
        other._frames = self._frames.again()
        other._recent = Recent(other._read)
        other._depth = None if self._depth is None else self._depth.again()
        return other

    def frames(self, numbers: range) -> NDArray[np.uint8]:
        """See `ClipSource`."""
        result: NDArray[np.uint8] = self._recent.get(numbers)
        self._note(self._frames.notes)
        return result

    def _read(self, numbers: list[int]) -> NDArray[np.uint8]:
        pictures = self._frames.read([self._chosen[number] for number in numbers])
        if pictures.shape[1:3] != self.size:
            raise InputError(
                f"The frames are {describe_size(pictures.shape[1:3])} from frame {self._chosen[numbers[0]]} on after "
                f"{describe_size(self.size)}; expected one size for the whole clip.",
                field="frames",
            )
        return pictures

    def modal(self, object_id: ObjectId, numbers: range) -> NDArray[np.bool_]:
        """See `ClipSource`."""
        with argument("masks"):
            masks, notes = fit_masks(self._masks.read(object_id, numbers), self.size)
        self._note(notes)
        return masks

    def seen(self, object_id: ObjectId) -> list[int]:
        """Returns the frames in which an object is seen."""
        return self._masks.seen(object_id)

    def depth(self, numbers: range) -> NDArray[np.float32]:
        """See `ClipSource`."""
        assert self._depth is not None
        return self._depth.get(numbers)

    def _note_covered(self, object_id: ObjectId, seen: list[int]) -> None:
        if seen:
            some = self._masks.read(object_id, seen[:: -(-len(seen) // _LOOKED_AT)])
            self._note(note_covered(float(some.mean())))

    def _note(self, notes: Sequence[str]) -> None:
        self.notes += [note for note in dict.fromkeys(notes) if note not in self.notes]


def open_clip(
    files: ClipFiles, objects: Objects = None, progress: Progress = silent, key: MaskKey = "modal"
) -> FileSource:
    """Opens a clip and reads the masks of its objects.

    Args:
        files: where it lies; `amodal` is not read.
        objects: which objects.
        progress: called with "masks" while they are read.
        key: which masks are read of files that hold visible and whole ones.

    Raises:
        InputError: anything that cannot be read, does not fit together, or could be read in two ways; an object that is
            not there, or named twice; no object that is seen.
    """
    frames = open_frames(files.frames, files.trim.end)
    chosen = files.trim.choose(frames.count, frames.fps)
    wanted = _wanted(files, objects)
    with argument("masks"):
        masks, notes = _open_masks(files, frames, chosen, wanted, progress, key)
    source = FileSource(files, frames, chosen, masks)
    with argument("masks"):
        source._note(notes)
        _check_seen(source)
    return source


def _wanted(files: ClipFiles, objects: Objects) -> Sequence[ObjectId] | Literal["all"] | None:
    if objects is None and files.object_id is not None:
        return [files.object_id]
    if objects is not None and objects != "all":
        for index, one in enumerate(objects):
            if any(same_id(one, other) for other in objects[:index]):
                raise InputError(f"object {format_id(one)} is named twice; name each once.", field="objects")
    return objects


def _open_masks(
    files: ClipFiles, frames: Frames, chosen: range, objects: Objects, progress: Progress, key: MaskKey
) -> tuple[ObjectMasks, list[str]]:
    path = require_path(files.masks, MASK_KINDS)
    if holds_tracks(path):
        tracks = tracks_of(path, key, files.frames)
        ids = _chosen_ids(path, [ONLY if one is None else one for one in tracks.ids], objects)
        lone = tracks.ids == [None]
        return _pair_tracks(files, frames, chosen, {o: TrackMasks(tracks.object(None if lone else o)) for o in ids})
    folders = object_folders(path) if path.is_dir() else {}
    if folders:
        names = [str(o) for o in _chosen_ids(path, list(folders), objects)]
        sets: dict[ObjectId | None, Pictures] = {_as_number(o): _open_pictures(folders[o], key) for o in names}
    else:
        sets = {None: _open_pictures(path, key)}
    listed = None if folders or objects in (None, "all") else [o for o in objects if o is not None]
    at: dict[ObjectId | None, list[int | None]] = {}
    notes: list[str] = []
    for name, pictures in sets.items():  # all are paired before any is decoded
        pairing = Pairer(frames, pictures, chosen).match(files.pair, files.missing_masks)
        at[name] = pairing.at
        notes += [*pictures.notes, *pairing.notes]
    store = MaskStore(len(chosen))
    for place, (name, pictures) in enumerate(sets.items()):
        report = partial(_report, progress, place, len(sets))
        notes += store_pictures(pictures, at[name], listed, files.mask_kind, report, store, name)
    if objects == "all":
        store.sort()
    if objects is None and len(store.ids) > 1:
        raise InputError(f"{path} holds {len(store.ids)} objects ({join_ids(store.ids)}); pick one with `object_id`.")
    return store, notes


def _open_pictures(path: Path, key: MaskKey) -> Pictures:
    keys = (key, "masks")
    return open_folder(path, keys) if path.is_dir() else open_sequence(path, MASK_KINDS, keys)


def _report(progress: Progress, place: int, count: int, done: int, total: int) -> None:
    progress("masks", "read", place * total + done, count * total)


def _chosen_ids(path: PathLike, known: list[ObjectId], objects: Objects) -> list[ObjectId]:
    if objects == "all":
        return known
    return [choose_object(require_path(path, MASK_KINDS), known, o) for o in ([None] if objects is None else objects)]


def _as_number(name: str) -> ObjectId:
    return int(name) if name.isascii() and name.isdecimal() else name


def _pair_tracks(
    files: ClipFiles, frames: Frames, chosen: range, masks: dict[ObjectId, TrackMasks]
) -> tuple[ObjectMasks, list[str]]:
    at: dict[ObjectId, list[int | None]] = {}
    notes: list[str] = []
    for object_id, one in masks.items():
        pairing = Pairer(frames, one, chosen, numbered=one.numbered).match(files.pair, files.missing_masks)
        at[object_id] = pairing.at
        notes += [*one.notes, *pairing.notes]
    return _Tracks({o: one.track for o, one in masks.items()}, at, frames.size()), notes


class _Tracks:
    """Masks of objects in a file that tells them apart without decoding."""

    def __init__(self, tracks: dict[ObjectId, Track], at: dict[ObjectId, list[int | None]], size: Size) -> None:
        self._tracks, self._at, self._size, self.ids = tracks, at, size, list(tracks)
        self._seen: dict[ObjectId, list[int]] = {}

    def read(self, object_id: ObjectId, numbers: Sequence[int]) -> NDArray[np.bool_]:
        return self._tracks[object_id].read([self._at[object_id][i] for i in numbers], self._size)

    def seen(self, object_id: ObjectId) -> list[int]:
        if object_id not in self._seen:
            there = set(self._tracks[object_id].seen(self._size))
            self._seen[object_id] = [place for place, i in enumerate(self._at[object_id]) if i in there]
        return self._seen[object_id]


def _check_seen(source: FileSource) -> None:
    """Notes the frames in which objects are not seen, and refuses a clip in which none is."""
    if len(source.empty) == len(source.objects):
        raise InputError(
            f"None of the masks of {source.count} frames shows an object; expected one in at least one frame."
        )
    for object_id in source.objects:
        seen = source.seen(object_id)
        name = "the object" if len(source.objects) == 1 else f"object {format_id(object_id)}"
        missing = sorted({*range(source.count)} - {*seen})
        source._note_covered(object_id, seen)
        if not seen:
            source.notes.append(f"The masks show {name} in none of the {source.count} frames; it is left out.")
        elif missing:
            frames = join_ranges(missing)
            source.notes.append(
                f"The masks show {name} in {len(seen)} of {source.count} frames; not in frame {frames}."
            )
