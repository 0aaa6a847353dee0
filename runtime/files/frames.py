"""Reads the frames of a clip as 8-bit RGB.

Pictures of 8 bits are converted by Pillow's `convert("RGB")`, as in the reference. Deeper ones are scaled by what the
file holds, the whole clip alike: 16 bits by the smallest of 8, 10, 12, 14 and 16 bits into which its largest value
fits, floats by 1, 255 or 65535. Whatever is not the full range of the file's type is said in the notes.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import copy

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, argument
from ..paths import PathLike
from .pictures import Picture, Size, is_turned, picture_size
from .sequences import ArrayFolder, Folder, Pictures, as_array, open_sequence, reader_of
from .video import Most

_KINDS = "a folder of images or a video file"
_KEYS = ("frames", "rgb", "images", "video")
_BITS = (8, 10, 12, 14, 16)
_FLAT = 1 / 16  # share of the range below which deep frames, of a thermal camera for instance, look grey all over
_FLOAT_RANGES = (1.0, 255.0, 65535.0)


class Frames:
    """The frames of a clip, which are decoded when they are read.

    Attributes:
        names: file names in order, None if there is only an order.
        count: number of frames.
        stated: number of frames that a video's header states.
        cut: whether counting ended where no further frame was wanted.
        fps: frames per second, where the file says it.
        notes: warnings to show.
    """

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self.path, self.names, self.count, self.fps = pictures.path, pictures.names, pictures.count, pictures.fps
        self.stated, self.cut = getattr(pictures, "stated", self.count), getattr(pictures, "cut", False)
        self.notes = list(pictures.notes)
        if isinstance(pictures, Folder) and is_turned(pictures.files[0]):
            self.notes.append(
                f"{pictures.path} holds pictures that are turned as their EXIF orientation says; masks and depth must "
                "be of the upright pictures."
            )
        self._full: float | None = None  # the value that becomes 255, in deep pictures

    def size(self) -> Size:
        """Returns (height, width); decodes no picture whose header says it."""
        with argument("frames"):
            return self._pictures.size()

    def file_size(self, number: int) -> Size:
        """Returns (height, width) of one of several pictures, which need not be alike; errors as of `size`."""
        if isinstance(self._pictures, Folder) and not isinstance(self._pictures, ArrayFolder):
            return picture_size(self._pictures.files[number])
        return self.size()

    def again(self) -> Frames:
        """Returns another reader of the same frames, for another place in them."""
        other = copy(self)
        other._pictures = reader_of(self._pictures)
        return other

    def read(self, at: Iterable[int] | None = None) -> NDArray[np.uint8]:
        """Reads the frames of these numbers, which rise; None for all: uint8 [T, H, W, 3], RGB.

        Raises:
            InputError: a damaged file, pictures of different sizes, or values that are no brightness.
        """
        with argument("frames"):
            numbers = list(range(self.count) if at is None else at)
            return np.stack([self._to_rgb(picture) for picture in self._pictures.read(numbers)])

    def _to_rgb(self, picture: Picture) -> NDArray[np.uint8]:
        if not isinstance(picture, np.ndarray) and not picture.mode.startswith(("I", "F")):
            picture.info.pop("transparency", None)  # `convert` would warn of it
            return np.asarray(picture.convert("RGB"))
        values = as_array(picture)
        if values.dtype != np.uint8:
            self._full = self._full or self._find_full()
            scaled = np.clip(values.astype(np.float32) * np.float32(255 / self._full), 0, 255)
            values = np.rint(scaled).astype(np.uint8)
        return np.repeat(values[..., None], 3, axis=2) if values.ndim == 2 else values[..., :3]

    def _find_full(self) -> float:
        """Returns the value of white in the whole clip, and notes it unless it is the type's own."""
        low, high, dtype = np.inf, 0.0, np.dtype(np.bool_)
        for picture in self._pictures.read(range(self.count)):
            values = as_array(picture)
            low, high = (float(limit) for limit in (np.minimum(low, values.min()), np.maximum(high, values.max())))
            dtype = np.promote_types(dtype, values.dtype)
        if dtype.kind not in "fiu" or not (low >= 0 and np.isfinite(high)):
            raise InputError(
                f"{self.path} holds {dtype} values from {low:g} to {high:g}, which are no brightness; expected values "
                "that are not negative, NaN or infinite."
            )
        ranges = _FLOAT_RANGES if dtype.kind == "f" else [2.0**bits - 1 for bits in _BITS]
        full = next((full for full in ranges if high <= full * 1.0001), None)
        if full is None:
            raise InputError(
                f"{self.path} holds {dtype} values up to {high:g}; expected at most 65535 in frames, scale them first."
            )
        if high - low < _FLAT * full:
            self.notes.append(
                f"{self.path} uses {low:g} to {high:g} of 0 to {full:g}: frames hardly have contrast; scale "
                "them first if that is not meant."
            )
        if full != (1.0 if dtype.kind == "f" else 65535.0):
            self.notes.append(f"{self.path} holds {dtype} values up to {high:g}; {full:g} is taken as white.")
        return full


@argument("frames")
def open_frames(path: PathLike, most: Most = None, single: bool = False) -> Frames:
    """Opens the frames of a clip: a folder of pictures, a video, a moving picture or stack, or a numpy file.

    Args:
        most: returns, from the frame rate, after how many frames a video is not counted further.
        single: whether the file of a single picture is taken, too.

    Raises:
        InputError: no such path, or no frames there.
    """
    pictures = open_sequence(path, _KINDS, _KEYS, most, single=single)
    return Frames(pictures)


def read_frames(path: PathLike) -> NDArray[np.uint8]:
    """Reads all frames of a clip; see `open_frames` and `Frames.read`."""
    return open_frames(path).read()
