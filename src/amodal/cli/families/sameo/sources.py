"""The pictures of a run with the boxes or the visible masks of their objects, one picture at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from amodal.cli.console import settings_from
from amodal.runtime.errors import InputError, argument
from amodal.runtime.files.clip import ClipFiles, describe_moments
from amodal.runtime.files.clip_source import FileSource, open_clip
from amodal.runtime.files.detection_images import (
    find_frames,
    find_pictures,
    read_image_list,
    require_listed_size,
)
from amodal.runtime.files.detections import Detections, find_boxes, read_detections
from amodal.runtime.files.frames import Frames, open_frames
from amodal.runtime.files.pictures import Size
from amodal.runtime.files.results import png_names
from amodal.runtime.files.trimming import Trim
from amodal.runtime.pictures.object_ids import format_id
from amodal.runtime.progress import Progress


@dataclass(frozen=True)
class Picture:
    """A picture uint8 [h, w, 3] with N objects.

    Attributes:
        place: among the pictures of the source.
        name: of the pictures that are written for it.
        objects: which of the source's objects are in it, int64 [N]: detections, or objects with masks.
        boxes: x1, y1, x2, y2, float64 [N, 4]; None with masks.
        modal: visible masks, bool [N, h, w]; None with boxes.
    """

    place: int
    name: str
    frame: NDArray[np.uint8]
    objects: NDArray[np.int64]
    boxes: NDArray[np.float64] | None
    modal: NDArray[np.bool_] | None


class Source(Protocol):
    """What both kinds have in common.

    Attributes:
        count: pictures that are read. objects: how many there are. notes: warnings.
        is_clip: whether the pictures are one size and in order, and shown as a video.
        fps: frames per second, where the file says it.
    """

    count: int
    notes: list[str]
    is_clip: bool
    fps: float | None

    @property
    def names(self) -> Sequence[str]:
        """Names of the pictures that are written."""

    def label(self, index: int) -> str:
        """Returns an object's name for people."""

    def pictures(self) -> Iterator[Picture]:
        """Reads the pictures, in order."""


class Boxes:
    """Pictures with the boxes of a detector; those of a folder without boxes are not read."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        with argument("images"):
            self.frames: Frames = open_frames(options["images"], single=True)
        found = read_detections(options["detections"])
        self.listed = None if options["images_json"] is None else read_image_list(options["images_json"])
        self.detections: Detections = found.above(options["min_score"])
        if not self.detections.images:
            raise InputError(
                f"{found.path} has no box with a score of {options['min_score']:g} or more, of {len(found.images)}.",
                field="min_score",
            )
        trim = settings_from(Trim, options)
        chosen = trim.choose(self.frames.count, self.frames.fps)
        fps = self.frames.fps
        self.is_clip, self.fps = self.frames.names is None, None if fps is None else fps / trim.step(fps)
        at = self._within(chosen, np.array(self._places(options), np.int64))
        self._used = list(chosen) if self.is_clip else np.unique(at).tolist()
        self.count = len(self._used)
        places, first = np.unique(at, return_index=True)
        sizes = {place: self._size(place, index) for place, index in zip(places.tolist(), first.tolist(), strict=True)}
        self._boxes = find_boxes(self.detections, [sizes[place] for place in at.tolist()], options["box_format"])
        order = np.argsort(at, kind="stable")
        starts = np.searchsorted(at[order], self._used)
        self._groups = np.split(order, starts)[1:]
        self.names = self._names()
        self.notes = [*self.frames.notes, *describe_moments(trim, chosen, fps), *self.detections.notes]
        if self.count < len(chosen):
            self.notes.append(f"{len(chosen) - self.count} of {len(chosen)} pictures have no boxes.")

    def _within(self, chosen: range, at: NDArray[np.int64]) -> NDArray[np.int64]:
        """Leaves out detections of pictures that are not used; returns the places `at` of the others."""
        kept = np.isin(at, chosen)
        if not kept.any():
            raise InputError(
                f"none of the {len(at)} boxes is of the {len(chosen)} pictures from {chosen.start} on that are used; "
                "choose others with `start`, `stop` and `stride`.",
                field="start",
            )
        self.detections = self.detections.only(kept)
        return at[kept]

    def _places(self, options: Mapping[str, Any]) -> list[int]:
        names = self.frames.names
        if names is not None and options["first_id"] is not None:
            raise InputError("--first-id is for a video; the pictures of a folder have names.")
        if names is not None:
            return find_pictures(self.detections, names, self.listed)
        if self.listed is not None:
            raise InputError("--images-json is for a folder of pictures; the frames of a video have no names.")
        return find_frames(self.detections, self.frames.count, options["first_id"])

    def _size(self, place: int, index: int) -> Size:
        """Returns the size of a picture, for which detection `index` is."""
        with argument("images"):
            size = self.frames.file_size(place)
        if self.listed is not None and self.frames.names is not None:
            image = self.detections.images[index]
            require_listed_size(self.listed, image, self.frames.names[place], size)
        return size

    def _names(self) -> list[str]:
        names = None if self.frames.names is None else [self.frames.names[place] for place in self._used]
        return png_names(self.count, names)

    def label(self, index: int) -> str:
        """See `Source`."""
        category = self.detections.categories[index]
        known: Mapping[Any, str] = (self.listed and self.listed.categories) or {}
        return str(known.get(category, f"category {category}"))

    def pictures(self) -> Iterator[Picture]:
        """See `Source`."""
        for place, number in enumerate(self._used):
            with argument("images"):
                frame = self.frames.read([number])[0]
            group = np.asarray(self._groups[place], np.int64)
            yield Picture(place, self.names[place], frame, group, self._boxes[group], None)


class Masks:
    """A clip with visible masks."""

    is_clip = True

    def __init__(self, options: Mapping[str, Any], progress: Progress) -> None:
        files = settings_from(ClipFiles, options, frames=options["images"], trim=settings_from(Trim, options))
        clip: FileSource = open_clip(files, options["objects"] or "all", progress)
        self.clip, self.count, self.fps, self.notes = clip, clip.count, clip.fps, clip.notes
        self.objects = tuple(one for one in clip.objects if one not in clip.empty)
        self.names = png_names(clip.count, clip.names)

    def label(self, index: int) -> str:
        """See `Source`."""
        return format_id(self.objects[index]) if len(self.objects) > 1 else "object"

    def pictures(self) -> Iterator[Picture]:
        """See `Source`."""
        for place in range(self.count):
            here = range(place, place + 1)
            frame = self.clip.frames(here)[0]
            modal = np.stack([self.clip.modal(one, here)[0] for one in self.objects])
            yield Picture(place, self.names[place], frame, np.arange(len(modal)), None, modal)


def open_source(options: Mapping[str, Any], progress: Progress) -> Boxes | Masks:
    """Opens the pictures and objects of a run; raises `InputError` for what does not fit together."""
    return Boxes(options) if options["masks"] is None else Masks(options, progress)
