"""The objects of a file of masks, and their masks frame by frame."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ..objects import choose_object, join_ids
from ..pictures import describe_size
from .naming import file_name
from .segments import Segment, Size, require_size

Id = int | str | None


@dataclass(frozen=True)
class Timeline:
    """The frames that a file speaks of, in order.

    Attributes:
        count: how many they are.
        names: one per frame, file names or decimal frame numbers; None if the file only has an order.
        numbered: whether `names` are 0-based indices into the video, rather than names of files.
        size: (height, width), where the file states it.
        video: name of the video, in a file that may hold several.
        labels: what to call the frames in messages, where they have no `names`.
    """

    count: int
    names: Sequence[str] | None = None
    numbered: bool = False
    size: Size | None = None
    video: str | None = None
    labels: Sequence[str] | None = None

    def is_of(self, video: str) -> bool:
        """Returns whether the video is called `video`, by itself or within its folder."""
        return self.video is not None and video in (self.video, file_name(self.video))

    def name(self, entry: int) -> str:
        """Returns what to call a frame in a message."""
        names = self.names or self.labels
        return names[entry] if names else str(entry)


@dataclass(frozen=True)
class Track:
    """One object over the frames of `timeline`.

    Attributes:
        path: the file or folder.
        id: as the file has it; None if it has none.
        segments: by position in the timeline; the object is not seen in frames without one.
        refusal: why its masks cannot be used, if so: a clause that follows the name of the file.
        notes: what the reader decided that a user may want to know, one sentence each.
    """

    path: Path
    id: Id
    timeline: Timeline
    segments: Mapping[int, Segment]
    refusal: str = ""
    notes: Sequence[str] = ()

    @property
    def names(self) -> list[str] | None:
        """The names of the timeline."""
        return None if self.timeline.names is None else list(self.timeline.names)

    @property
    def numbered(self) -> bool:
        """Whether `names` are 0-based indices into the video."""
        return self.timeline.numbered

    @property
    def count(self) -> int:
        """The number of frames of the timeline."""
        return self.timeline.count

    def size(self, fallback: Size | None = None) -> Size | None:
        """Returns the (height, width) of the masks: what they state, else what the file states, else `fallback`."""
        for entry, segment in self.segments.items():
            with _naming(self, entry):
                size = segment.size()
            if size is not None:
                return self._not_turned(size)
        return self.timeline.size or fallback

    def _not_turned(self, size: Size) -> Size:
        """Refuses sizes that are those of the images with width and height exchanged."""
        stated = self.timeline.size
        if stated is not None and size != stated and size == stated[::-1]:
            raise InputError(
                f"{self.path} has masks {describe_size(size)} for images {describe_size(stated)}; expected the size of "
                "an RLE to be [height, width], and the images not to be turned."
            )
        return size

    def seen(self, size: Size | None = None) -> list[int]:
        """Returns the positions in the timeline where the mask is not empty, in order.

        Every mask of the object is checked, but no RLE is decoded. Polygons count as seen if neither the file nor
        `size` (height, width) says how large the images are.

        Raises:
            InputError: a mask is broken.
        """
        known = self.size(size)
        seen = []
        for entry in sorted(self.segments):
            with _naming(self, entry):
                if not self.segments[entry].is_empty(known):
                    seen.append(entry)
        return seen

    def masks(self, at: Sequence[int | None], size: Size | None = None) -> Iterator[NDArray[np.bool_]]:
        """Yields bool [H, W] for each position in the timeline; an empty mask for None and where nothing is seen.

        Args:
            at: positions in the timeline, in the order of the frames.
            size: (height, width) of the frames, for files that do not state it.

        Raises:
            InputError: a mask is broken or of another size than the others, or no size is known.
        """
        known = self.size(size)
        for entry in at:
            segment = None if entry is None else self.segments.get(entry)
            if segment is not None and entry is not None:
                with _naming(self, entry):
                    mask = segment.decode(known)
                yield self._require_size(mask, entry, known)
            else:
                yield self._empty(known)

    def read(self, at: Sequence[int | None] | None = None, size: Size | None = None) -> NDArray[np.bool_]:
        """Returns the masks that `masks` yields, of the whole timeline if `at` is None: bool [T, H, W]."""
        masks = list(self.masks(range(self.count) if at is None else at, size))
        if not masks:
            raise InputError(f"{self.path} has no frames; expected at least one.")
        return np.stack(masks)

    def _empty(self, size: Size | None) -> NDArray[np.bool_]:
        try:
            return np.zeros(require_size(size, "empty masks"), np.bool_)
        except ValueError as error:
            raise InputError(f"{self.path} has {error}; expected their height and width.") from error

    def _require_size(self, mask: NDArray[np.bool_], entry: int, size: Size | None) -> NDArray[np.bool_]:
        if size is not None and mask.shape != size:
            raise InputError(
                f"{self.path} has a mask {describe_size(mask.shape)} in frame {self.timeline.name(entry)}, but others "
                f"are {describe_size(size)}; expected one size."
            )
        return mask


@dataclass(frozen=True)
class Tracks:
    """The objects of a file or folder of masks.

    Attributes:
        path: the file or folder.
        layout: what it is ("COCO annotations").
        objects: in the order of the file.
        notes: those of every object.
    """

    path: Path
    layout: str
    objects: Sequence[Track]
    notes: Sequence[str] = ()

    @property
    def ids(self) -> list[Id]:
        """The ids of the objects, each once; [None] for the one object of a file without ids."""
        return list({str(track.id): track.id for track in self.objects}.values())

    @property
    def videos(self) -> list[str]:
        """The names of the videos, if there are several."""
        names = list(dict.fromkeys(track.timeline.video or "" for track in self.objects))
        return names if len(names) > 1 else []

    def object(self, object_id: int | str | None = None) -> Track:
        """Returns the object whose id has the text of `object_id`, or the only one, with all notes.

        Raises:
            InputError: no such object, several of them, or one whose masks cannot be used.
        """
        if object_id is not None and self.ids == [None]:
            raise InputError(f"{self.path} holds a single object without an id; leave out `object_id`.")
        chosen = choose_object(self.path, self.ids, object_id)
        tracks = [track for track in self.objects if str(track.id) == str(chosen)]
        if len(tracks) > 1 and not self.videos:
            raise InputError(f"{self.path} holds {len(tracks)} objects {chosen}; expected ids that tell them apart.")
        if len(tracks) > 1:
            videos = join_ids(track.timeline.video for track in tracks)
            which = "its object" if chosen is None else f"object {chosen}"
            raise InputError(
                f"{self.path} shows {which} in {len(tracks)} videos ({videos}); name the folder of frames after one of "
                "them, or save that video's masks alone."
            )
        if tracks[0].refusal:
            raise InputError(f"{self.path} {tracks[0].refusal}.")
        return replace(tracks[0], notes=[*self.notes, *tracks[0].notes])


@contextmanager
def _naming(track: Track, entry: int) -> Iterator[None]:
    """Turns the errors of a broken mask into one that names file and frame."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, TypeError, OverflowError) as error:
        expected = track.segments[entry].expected
        name = track.timeline.name(entry)
        raise InputError(f"{track.path} has a broken mask in frame {name} ({error}); expected {expected}.") from error
