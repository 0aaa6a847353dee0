"""Opens a clip of any length with the masks of its objects, and reads it a part at a time.

Names and counts are settled first. Masks in pictures are then decoded once and kept compressed; frames and depth are
decoded when they are asked for.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, argument
from ..paths import PathLike
from ..pictures.objects import ObjectId, format_id
from ..progress import Progress, silent
from .clip import ClipFiles, describe_moments
from .depth import DepthSource, open_depth
from .frames import Frames, open_frames
from .listing import join_ranges, require_path
from .mask_store import ONLY, MaskStore, store_pictures
from .masks import MASK_KINDS, Masks, TrackMasks, fit_masks, near_ratio, object_folders, open_masks, tracks_of
from .objects import choose_object, join_ids
from .pairing import Pairer
from .pictures import Size, describe_size
from .sequences import Pictures, open_folder, open_sequence
from .tracks import holds_tracks

Objects = Sequence[ObjectId] | Literal["all"] | None
"""Ids, all of them, or None for the one of `ClipFiles.object_id` or the only one."""


class ObjectMasks(Protocol):
    """The masks of all objects of a clip, by the places of its frames."""

    ids: list[ObjectId]

    def read(self, object_id: ObjectId, numbers: range) -> NDArray[np.bool_]:
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
        self._depth: DepthSource | None = None
        self._maps: list[int] = []
        if files.depth is not None:
            with argument("depth"):
                self._depth = open_depth(files.depth)
                pairing = Pairer(frames, self._depth, chosen, "depth map").match(files.pair)
            self._maps = [i for i in pairing.at if i is not None]
            self._note([*self._depth.notes, *pairing.notes])
        self.has_depth = self._depth is not None
        self.empty = tuple(o for o in self.objects if not masks.seen(o))

    def again(self) -> FileSource:
        """Returns another reader of the same clip, for another place in it; notes are shared."""
        other = copy.copy(self)
        other._frames = open_frames(self._files.frames, self._files.trim.end)
        if self._files.depth is not None:
            other._depth = open_depth(self._files.depth)
        return other

    def frames(self, numbers: range) -> NDArray[np.uint8]:
        """See `ClipSource`."""
        return self._frames.read(self._chosen[numbers.start : numbers.stop])

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
        kind = self._files.depth_kind
        with argument("depth"):
            # Inverse depth is turned over by its largest value, which a part of the clip does not know.
            depth, notes = self._depth.relative("relative" if kind == "inverse" else kind, self._maps_of(numbers))
            own = (int(depth.shape[1]), int(depth.shape[2]))
            if not near_ratio(own, self.size) and near_ratio(own[::-1], self.size):
                raise InputError(
                    f"The frames are {describe_size(self.size)} but the depth is {describe_size(own)}; is it of frames "
                    "that were not turned upright? Give depth of the upright frames."
                )
        self._note(notes)
        return -depth if kind == "inverse" else depth

    def _maps_of(self, numbers: range) -> list[int]:
        return self._maps[numbers.start : numbers.stop]

    def _note(self, notes: Sequence[str]) -> None:
        self.notes += [note for note in dict.fromkeys(notes) if note not in self.notes]


def open_clip(files: ClipFiles, objects: Objects = None, progress: Progress = silent) -> FileSource:
    """Opens a clip and reads the masks of its objects.

    Args:
        files: where it lies; `amodal` is not read.
        objects: which objects.
        progress: called with "masks" while they are read.

    Raises:
        InputError: anything that cannot be read, does not fit together, or could be read in two ways; an object that is
            not there, or named twice; no object that is seen.
    """
    frames = open_frames(files.frames, files.trim.end)
    chosen = files.trim.choose(frames.count, frames.fps)
    with argument("masks"):
        masks, notes = _open_masks(files, frames, chosen, _wanted(files, objects), progress)
        source = FileSource(files, frames, chosen, masks)
        source._note(notes)
        _check_seen(source)
    return source


def _wanted(files: ClipFiles, objects: Objects) -> Sequence[ObjectId] | Literal["all"] | None:
    if objects is None and files.object_id is not None:
        return [files.object_id]
    if objects is not None and objects != "all":
        names = [format_id(o) for o in objects]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise InputError(f"object {twice} is named twice; name each once.", field="objects")
    return objects


def _open_masks(
    files: ClipFiles, frames: Frames, chosen: range, objects: Objects, progress: Progress
) -> tuple[ObjectMasks, list[str]]:
    path = require_path(files.masks, MASK_KINDS)
    if holds_tracks(path):
        tracks = tracks_of(path, "modal", files.frames)
        ids = _chosen_ids(path, [ONLY if one is None else one for one in tracks.ids], objects)
        lone = tracks.ids == [None]
        return _each(files, frames, chosen, {o: TrackMasks(tracks.object(None if lone else o)) for o in ids})
    folders = object_folders(path) if path.is_dir() else {}
    if folders:
        ids = [str(o) for o in _chosen_ids(path, list(folders), objects)]
        opened = {_as_number(o): open_masks(folders[o], None, files.mask_kind, frames=files.frames) for o in ids}
        return _each(files, frames, chosen, opened)
    pictures: Pictures = (
        open_folder(path, ("modal", "masks")) if path.is_dir() else open_sequence(path, MASK_KINDS, ("modal", "masks"))
    )
    pairing = Pairer(frames, pictures, chosen).match(files.pair, files.missing_masks)
    listed = None if objects in (None, "all") else [o for o in objects if o is not None]
    every = progress

    def report(done: int, total: int) -> None:
        every("masks", "read", done, total)

    store, notes = store_pictures(pictures, pairing.at, listed, files.mask_kind, report)
    if objects is None and len(store.ids) > 1:
        raise InputError(f"{path} holds {len(store.ids)} objects ({join_ids(store.ids)}); pick one with `object_id`.")
    return _Stored(store), [*pictures.notes, *pairing.notes, *notes]


def _chosen_ids(path: PathLike, known: list[ObjectId], objects: Objects) -> list[ObjectId]:
    if objects == "all":
        return known
    return [choose_object(require_path(path, MASK_KINDS), known, o) for o in ([None] if objects is None else objects)]


def _as_number(name: str) -> ObjectId:
    return int(name) if name.isascii() and name.isdecimal() else name


class _Stored:
    """Masks that were read once."""

    def __init__(self, store: MaskStore) -> None:
        self._store, self.ids = store, store.ids

    def read(self, object_id: ObjectId, numbers: range) -> NDArray[np.bool_]:
        return self._store.read(object_id, numbers)

    def seen(self, object_id: ObjectId) -> list[int]:
        return self._store.seen(object_id)


def _each(
    files: ClipFiles, frames: Frames, chosen: range, masks: dict[ObjectId, Masks]
) -> tuple[ObjectMasks, list[str]]:
    """Pairs masks that are read by object."""
    at: dict[ObjectId, list[int | None]] = {}
    notes: list[str] = []
    for object_id, one in masks.items():
        pairing = Pairer(frames, one, chosen, numbered=one.numbered).match(files.pair, files.missing_masks)
        at[object_id] = pairing.at
        notes += [*one.notes, *pairing.notes]
    return _Separate(masks, at, frames.size()), notes


class _Separate:
    """Masks of objects in a file of their own, or in one that tells them apart without decoding."""

    def __init__(self, masks: dict[ObjectId, Masks], at: dict[ObjectId, list[int | None]], size: Size) -> None:
        self._masks, self._at, self._size, self.ids = masks, at, size, list(masks)
        self._seen: dict[ObjectId, list[int]] = {}

    def read(self, object_id: ObjectId, numbers: range) -> NDArray[np.bool_]:
        at = self._at[object_id][numbers.start : numbers.stop]
        masks = self._masks[object_id]
        if isinstance(masks, TrackMasks):
            return masks.track.read(at, self._size)
        if all(place is None for place in at):
            return np.zeros((len(at), *self._size), np.bool_)
        return masks.read(at, self._size)

    def seen(self, object_id: ObjectId) -> list[int]:
        if object_id not in self._seen:
            masks, at = self._masks[object_id], self._at[object_id]
            if isinstance(masks, TrackMasks):
                there = set(masks.track.seen(self._size))
                self._seen[object_id] = [place for place, i in enumerate(at) if i in there]
            else:
                pieces = (range(i, min(i + 16, len(at))) for i in range(0, len(at), 16))
                self._seen[object_id] = [
                    n.start + int(i) for n in pieces for i in np.flatnonzero(self.read(object_id, n).any(axis=(1, 2)))
                ]
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
        if not seen:
            source.notes.append(f"The masks show {name} in none of the {source.count} frames; it is left out.")
        elif missing:
            frames = join_ranges(missing)
            source.notes.append(
                f"The masks show {name} in {len(seen)} of {source.count} frames; not in frame {frames}."
            )
