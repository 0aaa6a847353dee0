"""Opens the masks of one object over a clip, whatever they are stored in.

Pictures, videos and arrays are read by `amodal.runtime.pictures.objects`, json and XML by
`amodal.runtime.files.tracks`. Nothing is decoded before `read`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, argument
from ..paths import PathLike
from ..pictures.images import resize_masks
from ..pictures.objects import MaskKind, MaskPicture, ObjectId, read_object
from .listing import folder_entries, join_ranges, require_path
from .mask_pictures import decode_mask_picture, mask_picture
from .objects import choose_object
from .pictures import Picture, Size, describe_size
from .sequences import Pictures, as_array, open_folder, open_sequence
from .tracks import Track, Tracks, holds_tracks, read_tracks
from .video import Video

_MOST_COVERED = 0.8  # share of the picture above which masks may be those of the background
MASK_KINDS = "a folder of mask images, a video, COCO RLE json or an npz file"


class Masks(Protocol):
    """The masks of one object."""

    path: Path
    count: int
    numbered: bool  # names are numbers of frames in the video, counted from 0
    notes: list[str]  # warnings; `read` may add some

    @property
    def names(self) -> Sequence[str] | None:
        """File names or numbers in order; None where there is only an order."""

    def read(self, at: Sequence[int | None], size: Size | None) -> NDArray[np.bool_]:
        """Reads masks of these numbers, empty ones for None: bool [T, H, W] of the file's own size.

        Args:
            size: (H, W) of the frames, for files that do not say theirs.

        Raises:
            InputError: damaged, of several sizes, or it cannot be said which object is meant.
        """


class PictureMasks:
    """Masks as pictures: of one object, or of several by their values."""

    numbered = False

    def __init__(self, pictures: Pictures, object_id: ObjectId | None, kind: MaskKind) -> None:
        self._pictures, self._object_id, self._kind = pictures, object_id, kind
        self.path, self.names, self.count = pictures.path, pictures.names, pictures.count
        self.notes = list(pictures.notes)

    def read(self, at: Sequence[int | None], size: Size | None) -> NDArray[np.bool_]:
        """See `Masks`."""
        wanted = sorted({i for i in at if i is not None})
        lossy = isinstance(self._pictures, Video)
        pictures = [read_mask_picture(picture, lossy) for picture in self._pictures.read(wanted)]
        found = read_object(pictures, str(self.path), self._object_id, self._kind)
        self.notes += found.notes
        place = {number: i for i, number in enumerate(wanted)}
        masks = np.zeros((len(at), *found.masks.shape[1:]), np.bool_)
        for i, number in enumerate(at):
            if number is not None:
                masks[i] = found.masks[place[number]]
        return masks


class TrackMasks:
    """Masks of one object of a json or XML file."""

    def __init__(self, track: Track) -> None:
        self.track = track
        self.path, self.names, self.count, self.numbered = track.path, track.names, track.count, track.numbered
        self.notes = list(track.notes)

    def read(self, at: Sequence[int | None], size: Size | None) -> NDArray[np.bool_]:
        """See `Masks`."""
        if not self.track.seen(size):  # checks every mask of the object, and decodes none
            raise InputError(f"{self.path} shows the object in no frame; expected it in at least one.")
        return self.track.read(at, size)


@argument("masks")
def open_masks(
    path: PathLike,
    object_id: ObjectId | None = None,
    kind: MaskKind = "auto",
    key: str = "modal",
    frames: PathLike | None = None,
) -> Masks:
    """Opens the masks of one object.

    Args:
        path: a folder of mask pictures or numpy files (or of one such folder per object, named by its id), a video,
            moving picture or stack of masks, json or XML (`amodal.runtime.files.tracks` lists the layouts), or a numpy
            file [T, H, W].
        object_id: the object, if there are several.
        kind: how values are read, see `amodal.runtime.pictures.objects`.
        key: `modal` or `amodal`, for files that hold both (amodal's masks.json, an npz).
        frames: where the frames are; in a file of several videos, theirs is the one of that name.

    Raises:
        InputError: no such path, no masks there, or no such object.
    """
    source = require_path(path, MASK_KINDS)
    if holds_tracks(source):
        return TrackMasks(tracks_of(source, key, frames).object(object_id))
    if source.is_dir():
        return _open_folder(source, object_id, kind, key)
    return PictureMasks(open_sequence(source, MASK_KINDS, (key, "masks")), object_id, kind)


def tracks_of(path: Path, key: str, frames: PathLike | None) -> Tracks:
    """Reads a file of tracks; in one of several videos, that with the name of `frames`."""
    return read_tracks(path, key, None if frames is None else Path(frames).name)


def read_masks(
    path: PathLike,
    object_id: ObjectId | None = None,
    frame_size: Size | None = None,
    key: str = "modal",
    kind: MaskKind = "auto",
) -> NDArray[np.bool_]:
    """Reads all masks of one object in their order: bool [T, H, W]; see `open_masks` and `Masks.read`."""
    with argument("masks"):
        masks = open_masks(path, object_id, kind, key)
        return masks.read(range(masks.count), frame_size)


def fit_masks(masks: NDArray[np.bool_], size: Size) -> tuple[NDArray[np.bool_], list[str]]:
    """Resizes masks [T, h, w] to the frames' (H, W) by the nearest neighbour, and says so.

    Raises:
        InputError: they have another ratio than the frames.
    """
    own = (int(masks.shape[1]), int(masks.shape[2]))
    if own == tuple(size):
        return masks, []
    if not same_ratio(own, size):
        turned = " (are the masks of frames that were not turned upright?)" * same_ratio(own[::-1], size)
        raise InputError(
            f"The frames are {describe_size(size)} but the masks are {describe_size(own)}, which is another shape of "
            f"picture{turned}; give masks of the frames' size."
        )
    note = f"The masks are {describe_size(own)} and were resized to the frames, {describe_size(size)}."
    return resize_masks(masks, size), [note]


def same_ratio(a: Size, b: Size) -> bool:
    """Returns whether two pictures (height, width) have one ratio: exactly, or up to a pixel of the smaller one."""
    small, large = sorted((a, b))
    rows, columns = small[1] * large[0] / large[1], small[0] * large[1] / large[0]
    return abs(rows - small[0]) <= 1 or abs(columns - small[1]) <= 1


def near_ratio(a: Size, b: Size) -> bool:
    """Returns whether the ratios of two pictures differ by less than 3 %, as those of networks' inputs do."""
    return same_ratio(a, b) or abs(a[0] * b[1] / (a[1] * b[0]) - 1) < 0.03


def check_seen(masks: NDArray[np.bool_]) -> list[str]:
    """Returns a warning that names the frames in which masks [T, H, W] do not show the object.

    Raises:
        InputError: no mask shows it.
    """
    seen = masks.any(axis=(1, 2))
    if not seen.any():
        raise InputError(
            f"None of the {len(masks)} masks shows the object; expected it in at least one, pick one by `object_id` if "
            "there are several.",
        )
    notes = note_covered(float(masks[seen].mean()))
    if seen.all():
        return notes
    missing = join_ranges(np.flatnonzero(~seen).tolist())
    return [*notes, f"The masks show the object in {int(seen.sum())} of {len(masks)} frames; not in frame {missing}."]


def note_covered(share: float) -> list[str]:
    """Returns a warning if masks cover so large a share of the picture that they may be those of the background."""
    if share <= _MOST_COVERED:
        return []
    return [f"The masks cover {100 * share:.0f} % of the picture; if that is the background, invert them."]


def _open_folder(folder: Path, object_id: ObjectId | None, kind: MaskKind, key: str) -> Masks:
    by_object = object_folders(folder)
    if by_object:
        if isinstance(object_id, str) and object_id.isascii() and object_id.isdecimal():
            object_id = int(object_id)
        return open_masks(by_object[choose_object(folder, by_object, object_id)], None, kind, key)
    return PictureMasks(open_folder(folder, (key, "masks")), object_id, kind)


def object_folders(folder: Path) -> dict[str, Path]:
    """Returns the folders of masks by object id, as SAM 2 writes them (000, 001, ...); none if `folder` holds files."""
    entries = folder_entries(folder)
    if any(entry.is_file() for entry in entries):
        return {}
    folders: dict[str, Path] = {}
    for entry in entries:
        name = str(int(entry.name)) if entry.name.isascii() and entry.name.isdecimal() else entry.name
        if name in folders:
            raise InputError(f"{folder} holds {folders[name].name} and {entry.name}, one number for two objects.")
        folders[name] = entry
    return folders


def read_mask_picture(picture: Picture, lossy: bool) -> MaskPicture:
    """Decodes a picture of masks; `lossy` is of those that do not say it themselves, as of a video."""
    if isinstance(picture, np.ndarray):
        return mask_picture(as_array(picture), lossy)
    return decode_mask_picture(picture)
