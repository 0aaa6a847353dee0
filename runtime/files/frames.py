"""Reads frames from folders of images and video files, and arrays from numpy files.

Each problem is an `InputError` of one sentence that names the path and what was expected, and the argument at fault in
its `field`.
"""

from __future__ import annotations

import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, argument, first_line
from ..paths import PathLike, natural_key

if TYPE_CHECKING:
    from PIL import Image

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")
# What Pillow and numpy raise for files that are damaged, or of another kind than their suffix.
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, KeyError, struct.error, zlib.error, zipfile.BadZipFile)


def join_ranges(numbers: Iterable[int], most: int = 8) -> str:
    """Joins whole numbers into text such as `0, 3-7, 9`, shortened after `most` groups."""
    groups: list[list[int]] = []
    for number in sorted(numbers):
        if groups and number == groups[-1][1] + 1:
            groups[-1][1] = number
        else:
            groups.append([number, number])
    text = [str(a) if a == b else f"{a}-{b}" if b > a + 1 else f"{a}, {b}" for a, b in groups[:most]]
    return ", ".join(text) + (", ..." if len(groups) > most else "")


def require_path(path: PathLike, expected: str) -> Path:
    """Returns `path` as a `Path`; raises `InputError` if it does not exist or may not be read."""
    if not os.fspath(path):
        raise InputError(f"The path is empty; expected {expected}.")
    found = Path(path)
    try:
        fault = "" if found.exists() else "does not exist"
    except OSError as error:
        fault = f"cannot be read ({error.strerror})"
    if not fault and not os.access(found, os.R_OK):
        fault = "may not be read (permission denied)"
    if fault:
        raise InputError(f"{found} {fault}; expected {expected}.")
    return found


def list_images(folder: PathLike) -> list[Path]:
    """Lists the images of a folder in natural order; raises `InputError` if there is no folder or no image in it.

    Hidden files and files of other kinds are left out.
    """
    root = require_path(folder, "a folder of images")
    try:
        entries = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
        files = [entry for entry in entries if entry.is_file()]
        folders = sum(entry.is_dir() for entry in entries)
    except OSError as error:
        raise InputError(f"{root} cannot be opened as a folder ({error.strerror}); give a folder of images.") from error
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not images and folders:
        what = "a folder" if folders == 1 else f"{folders} folders"
        raise InputError(f"{root} holds {what} and no images; give the one with the images.")
    if not images:
        held = f"holds {len(files)} files, none of them an image" if files else "is an empty folder"
        kinds = ", ".join(suffix[1:] for suffix in IMAGE_SUFFIXES)
        raise InputError(f"{root} {held}; expected images ({kinds}).")
    return sorted(images, key=lambda image: natural_key(image.name))


def frame_names(path: PathLike) -> list[str] | None:
    """Returns the file names of the images that `read_frames` reads, in its order; None for a video."""
    return [image.name for image in list_images(path)] if Path(path).is_dir() else None


def open_image(path: Path) -> Image.Image:
    """Opens an image and decodes it; raises `InputError` if it is no image, truncated or not readable."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # before it raises, Pillow also warns ("Truncated File Read")
            with Image.open(path) as image:
                image.load()
                return image
    except PermissionError as error:
        raise InputError(f"{path} may not be read (permission denied).") from error
    except (*_UNREADABLE, Image.DecompressionBombError) as error:
        raise InputError(
            f"{path} cannot be read as an image, it is damaged or truncated ({_short(error)}); "
            "replace the file or leave it out."
        ) from error


def require_same_size(paths: list[Path], sizes: list[tuple[int, ...]]) -> None:
    """Raises `InputError` for the first picture whose (height, width) differs from the first one's."""
    for path, size in zip(paths, sizes, strict=True):
        if size != sizes[0]:
            raise InputError(
                f"{path} is {describe_size(size)} but {paths[0].name} is {describe_size(sizes[0])}; "
                "all images must have one size."
            )


def describe_size(size: tuple[int, ...]) -> str:
    """Describes (height, width) in words that name both sides."""
    return f"{size[1]} wide and {size[0]} high"


@argument("frames")
def read_frames(path: PathLike, limit: int | None = None) -> NDArray[np.uint8]:
    """Reads the frames of a clip from a folder of images or a video file.

    Args:
        path: a folder of png, jpg, bmp, tif or webp images (converted by Pillow's `convert("RGB")`, as in the
            reference), or a video that OpenCV can decode.
        limit: the most frames allowed.

    Returns:
        uint8 [T, H, W, 3], RGB.

    Raises:
        InputError: no such path, no images, a damaged file, images of different sizes, more than `limit` frames.
    """
    source = require_path(path, "a folder of images or a video file")
    return _read_folder(source, limit) if source.is_dir() else _read_video(source, limit)


def _read_folder(folder: Path, limit: int | None) -> NDArray[np.uint8]:
    paths = list_images(folder)
    if limit is not None and len(paths) > limit:
        raise _too_many(folder, str(len(paths)), limit)
    frames = [np.asarray(open_image(path).convert("RGB")) for path in paths]
    require_same_size(paths, [frame.shape[:2] for frame in frames])
    return np.stack(frames)


def _read_video(path: Path, limit: int | None) -> NDArray[np.uint8]:
    if path.suffix.lower() in IMAGE_SUFFIXES:
        # OpenCV would read frame_000.png as the first of a numbered series.
        raise InputError(f"{path} is a single image; give its folder, or a video file.")
    # Otherwise FFmpeg prints errors ("moov atom not found") to stderr; -8 is "quiet".
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    frames: list[NDArray[np.uint8]] = []
    capture = cv2.VideoCapture()
    try:
        capture.open(str(path))
        while capture.isOpened():
            ok, frame = capture.read()
            if not ok:
                break
            if limit is not None and len(frames) == limit:
                raise _too_many(path, f"more than {limit}", limit)
            frames.append(np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8))
    except cv2.error as error:
        raise InputError(f"{path} cannot be decoded after {len(frames)} frames ({_short(error)}).") from error
    finally:
        capture.release()
    if not frames:
        raise InputError(
            f"{path} cannot be decoded as a video (damaged, or a codec that OpenCV lacks); "
            "give another video file or a folder of images."
        )
    return np.stack(frames)


def load_array(path: Path, names: tuple[str, ...]) -> NDArray[Any]:
    """Loads the only array of an .npy or .npz, or the first of `names` in an .npz, as [T, H, W].

    A channel or object axis of length 1 ([T, 1, H, W], [T, H, W, 1]) is dropped.

    Raises:
        InputError: as for `load_numpy`, or not three axes.
    """
    return as_clip(load_numpy(path, names)[0], path)


def as_clip(array: NDArray[Any], path: Path) -> NDArray[Any]:
    """Drops the fourth axis of an array read from `path`, if it has length 1; raises `InputError` for other shapes."""
    if array.ndim == 4 and 1 in (array.shape[1], array.shape[3]):
        array = array[:, 0] if array.shape[1] == 1 else array[..., 0]
    if array.ndim != 3 or 0 in array.shape:
        raise InputError(f"{path} holds an array of shape {list(array.shape)}; expected [T, H, W].")
    return array


def load_numpy(path: Path, names: tuple[str, ...]) -> tuple[NDArray[Any], list[str]]:
    """Loads the only array of an .npy or .npz, or the first of `names` in an .npz; also returns the names in it.

    Raises:
        InputError: another kind of file, a damaged one, pickles, or several arrays of other names.
    """
    if path.suffix.lower() not in (".npz", ".npy"):
        raise InputError(f"{path} is not a supported kind of file; give a folder of images or an npz file.")
    keys: list[str] = []
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            array = loaded
        else:
            with loaded:
                keys = list(loaded.files)
                key = keys[0] if len(keys) == 1 else next((name for name in names if name in keys), None)
                if key is None:
                    raise InputError(
                        f"{path} holds the arrays {', '.join(keys) or 'none'}; expected a single one, "
                        f"or one named {' or '.join(names)}."
                    )
                array = loaded[key]
                if not isinstance(array, np.ndarray):  # bytes, of a file that is not numpy's
                    raise ValueError(f"{key} in it is no array")
    except InputError:
        raise
    except _UNREADABLE as error:
        raise InputError(
            f"{path} cannot be read as a numpy file ({_short(error)}); write it again with numpy.savez."
        ) from error
    return array, keys


def _too_many(path: Path, count: str, limit: int) -> InputError:
    return InputError(
        f"{path} holds {count} frames where the bundle takes at most {limit}; give fewer, or export a "
        "bundle that takes more."
    )


def _short(error: BaseException) -> str:
    return first_line(error)[:120].rstrip(".:; ")
