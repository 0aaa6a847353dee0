"""Pictures in the order of a clip, none of which is decoded before it is asked for.

A folder of pictures or of numpy files with one array each, a video, a moving picture (GIF, WebP, AVIF, PNG) or stack
(TIFF), or a numpy file with the whole clip. Masks, frames and depth are read through these.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..paths import PathLike
from .arrays import ARRAY_SUFFIXES, load_array
from .listing import IMAGE_SUFFIXES, folder_entries, list_files, require_path
from .pictures import UNREADABLE, Picture, Size, open_picture, picture_size, require_same_size, size_of, unreadable
from .video import VIDEO_SUFFIXES, Most, Video

if TYPE_CHECKING:
    from PIL import Image

Opener = Callable[[Path], Picture]
_STACKS = (".gif", ".tif", ".tiff", ".webp", ".avif", ".png", ".apng")


class Pictures(Protocol):
    """What all of them have in common."""

    path: Path
    notes: list[str]  # warnings to show

    @property
    def names(self) -> Sequence[str] | None:
        """File names in order; None where there is only an order."""

    @property
    def count(self) -> int:
        """Number of frames."""

    @property
    def fps(self) -> float | None:
        """Frames per second, where the file says it."""

    def size(self) -> Size:
        """Returns (height, width)."""

    def read(self, at: Iterable[int]) -> Iterator[Picture]:
        """Yields the pictures of these numbers, which rise; raises `InputError` for one of another size."""


class Folder:
    """One picture per file."""

    fps: float | None = None

    def __init__(self, path: Path, opener: Opener = open_picture) -> None:
        listing = list_files(path, IMAGE_SUFFIXES)
        self._open, self.path, self.files, self.notes = opener, path, listing.files, listing.notes
        self.names: Sequence[str] | None = [file.name for file in self.files]
        self.count = len(self.files)

    def size(self) -> Size:
        """See `Pictures`."""
        return picture_size(self.files[0])

    def read(self, at: Iterable[int]) -> Iterator[Picture]:
        """See `Pictures`."""
        files = [self.files[i] for i in at]
        return _alike(files, (self._open(file) for file in files))


class OnePicture(Folder):
    """One file with one picture, as a folder that holds nothing else."""

    def __init__(self, path: Path, opener: Opener = open_picture) -> None:
        self._open, self.path, self.files, self.notes = opener, path, [path], []
        self.names, self.count = [path.name], 1


class ArrayFolder(Folder):
    """One numpy file with one array [H, W] or [H, W, channels] per frame."""

    def __init__(self, path: Path, keys: tuple[str, ...]) -> None:
        listing = list_files(path, ARRAY_SUFFIXES, "array")
        self.path, self.files, self.notes, self._keys = path, listing.files, listing.notes, keys
        self.names = [file.name for file in self.files]
        self.count = len(self.files)

    def size(self) -> Size:
        """See `Pictures`."""
        return size_of(self._load(self.files[0]))

    def read(self, at: Iterable[int]) -> Iterator[Picture]:
        """See `Pictures`."""
        files = [self.files[i] for i in at]
        return _alike(files, (self._load(file) for file in files))

    def _load(self, file: Path) -> NDArray[Any]:
        array = load_array(file, self._keys, "any")
        while array.ndim > 2 and array.shape[0] == 1:  # [1, H, W], as networks return it
            array = array[0]
        if array.ndim == 3 and array.shape[2] == 1:
            array = array[..., 0]
        if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
            raise InputError(f"{file} holds an array of shape {list(array.shape)}; expected one frame, [H, W].")
        return array


class Stack:
    """A moving picture or a stack in one file, as Pillow reads it."""

    names: Sequence[str] | None = None

    def __init__(self, path: Path) -> None:
        self.path, self.notes = path, []  # type: Path, list[str]
        with _image(path) as image:
            self.count = int(getattr(image, "n_frames", 1))
            self._size = (image.height, image.width)
            image.load()  # WebP and AVIF say how long a picture is shown when it is decoded
            duration = image.info.get("duration", 0)
        self.fps = 1000 / duration if duration else None
        if self.count == 1:
            raise InputError(f"{path} is a single image; give its folder, or a video file.")

    def size(self) -> Size:
        """See `Pictures`."""
        return self._size

    def read(self, at: Iterable[int]) -> Iterator[Picture]:
        """See `Pictures`."""
        numbers = list(at)
        return _alike([f"frame {i} of {self.path}" for i in numbers], self._decode(numbers))

    def _decode(self, numbers: list[int]) -> Iterator[Image.Image]:
        from PIL import GifImagePlugin

        for number in numbers:
            usual = GifImagePlugin.LOADING_STRATEGY
            # Otherwise the first picture of a GIF keeps its palette, whose indices may be ids, and the others lose it.
            GifImagePlugin.LOADING_STRATEGY = GifImagePlugin.LoadingStrategy.RGB_AFTER_DIFFERENT_PALETTE_ONLY
            try:
                with _image(self.path) as image:
                    image.seek(number)
                    picture = image.copy()
                    picture.format = image.format
                    yield picture
            finally:
                GifImagePlugin.LOADING_STRATEGY = usual


class Array:
    """The arrays [T, ...] of one numpy file."""

    names: Sequence[str] | None = None
    fps: float | None = None

    def __init__(self, path: Path, keys: tuple[str, ...]) -> None:
        self.path, self._keys, self.notes = path, keys, []  # type: Path, tuple[str, ...], list[str]

    @cached_property
    def array(self) -> NDArray[Any]:
        """[T, H, W], or [T, H, W, 3 or 4]."""
        array = load_array(self.path, self._keys, "any")
        if array.ndim == 4 and array.shape[3] in (3, 4):
            return array
        return load_array(self.path, self._keys)

    @property
    def count(self) -> int:
        """Number of frames."""
        return len(self.array)

    def size(self) -> Size:
        """See `Pictures`."""
        return int(self.array.shape[1]), int(self.array.shape[2])

    def read(self, at: Iterable[int]) -> Iterator[Picture]:
        """See `Pictures`."""
        return (self.array[i] for i in at)


def open_sequence(
    path: PathLike,
    expected: str,
    keys: tuple[str, ...] = (),
    most: Most = None,
    opener: Opener = open_picture,
    single: bool = False,
) -> Folder | ArrayFolder | Stack | Array | Video:
    """Opens the pictures at `path`.

    Args:
        expected: what to give, for messages: "a folder of images or a video file".
        keys: names of the array in an npz with several.
        most: returns, from the frame rate, after how many frames a video is not counted further.
        opener: opens the pictures of a folder.
        single: whether the file of a single picture is taken.

    Raises:
        InputError: no such path, nothing readable there, or a single picture without `single`.
    """
    source = require_path(path, expected)
    if source.is_dir():
        return open_folder(source, keys, opener)
    suffix = source.suffix.lower()
    if single and suffix in IMAGE_SUFFIXES and not (suffix in _STACKS and _count(source) > 1):
        return OnePicture(source, opener)
    if suffix in ARRAY_SUFFIXES:
        return Array(source, keys)
    if suffix in _STACKS:
        return Stack(source)
    if suffix in IMAGE_SUFFIXES:  # OpenCV would read frame_000.jpg as the first of a numbered series
        raise InputError(f"{source} is a single image; give its folder, or a video file.")
    if suffix in VIDEO_SUFFIXES:
        return Video(source, most)
    try:
        return Video(source, most)  # OpenCV knows more than are listed
    except InputError as error:
        raise InputError(f"{source} is not a supported kind of file; give {expected}.") from error


def open_folder(folder: Path, keys: tuple[str, ...], opener: Opener = open_picture) -> Folder | ArrayFolder:
    """Opens a folder of pictures or, if it holds none, of numpy files."""
    suffixes = [entry.suffix.lower() for entry in folder_entries(folder) if entry.is_file()]
    images, arrays = (sum(suffix in kinds for suffix in suffixes) for kinds in (IMAGE_SUFFIXES, ARRAY_SUFFIXES))
    if images and arrays:
        raise InputError(f"{folder} holds {images} images and {arrays} numpy files; give a folder with one kind alone.")
    return ArrayFolder(folder, keys) if arrays else Folder(folder, opener)


def reader_of(pictures: Pictures) -> Pictures:
    """Returns pictures that are read independently of `pictures`, without opening or counting them anew."""
    return pictures.again() if isinstance(pictures, Video) else pictures


def _alike(names: Sequence[Any], pictures: Iterable[Picture]) -> Iterator[Picture]:
    """Yields the pictures; raises `InputError` for the first whose size differs from that of the first."""
    first: Size | None = None
    for name, picture in zip(names, pictures, strict=True):
        first = first or size_of(picture)
        require_same_size([names[0], name], [first, size_of(picture)])
        yield picture


def _count(path: Path) -> int:
    with _image(path) as image:
        return int(getattr(image, "n_frames", 1))


@contextmanager
def _image(path: Path) -> Iterator[Image.Image]:
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                yield image
    except InputError:
        raise
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        raise unreadable(path, error) from error


def as_array(picture: Picture) -> NDArray[Any]:
    """Returns the values of a picture without any conversion: [H, W] or [H, W, channels], in native byte order."""
    values = np.asarray(picture)
    return values.astype(values.dtype.newbyteorder("="), copy=False)
