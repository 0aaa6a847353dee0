"""Opens single pictures: what Pillow reads and, where it does not, OpenCV; upright as EXIF says."""

from __future__ import annotations

import os
import struct
import warnings
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, first_line

if TYPE_CHECKING:
    from PIL import Image

Size: TypeAlias = "tuple[int, int]"
Picture: TypeAlias = "Image.Image | NDArray[Any]"
"""A decoded picture: Pillow's, or an array [H, W] or [H, W, channels] in RGB order where Pillow has no mode for it."""

# What Pillow and numpy raise for files that are damaged, or of another kind than their suffix.
UNREADABLE = (
    *(OSError, SyntaxError, ValueError, TypeError, EOFError, LookupError, OverflowError),
    *(struct.error, zlib.error, zipfile.BadZipFile),
)
_BY_OPENCV = (".exr", ".hdr", ".tif", ".tiff", ".png")
_HEIC = (".heic", ".heif")
_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap height and width
_ORIENTATION = 0x0112


def open_picture(path: Path) -> Picture:
    """Opens a picture and decodes it, upright.

    Raises:
        InputError: it is no picture, truncated or not readable, or holds several.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    _prepare(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # before it raises, Pillow also warns ("Truncated File Read")
            with Image.open(path) as image:
                count = getattr(image, "n_frames", 1)
                if count > 1 and image.format != "MPO":  # the second picture of a camera's JPEG is a preview
                    raise InputError(
                        f"{path} holds {count} pictures, but in a folder each file is one frame; give the file itself, "
                        "or a folder with one picture per file."
                    )
                deep = _by_opencv(path) if _drops_bits(image) else None
                if deep is not None:
                    return deep
                image.load()
                if image.format == "PNG":
                    _verify(path)
                upright = ImageOps.exif_transpose(image)
                upright.format = image.format
                return upright
    except PermissionError as error:
        raise InputError(f"{path} may not be read (permission denied).") from error
    except InputError:
        raise
    except (*UNREADABLE, Image.DecompressionBombError) as error:
        decoded = _by_opencv(path) if isinstance(error, UnidentifiedImageError) else None
        if decoded is None:
            raise unreadable(path, error) from error
        return decoded


def _drops_bits(image: Image.Image) -> bool:
    """Returns whether Pillow would read 16-bit colours as 8 bits: it has no mode for them."""
    tiles = getattr(image, "tile", [])  # how the decoder will read them; asking for EXIF may decode already
    deep = image.mode in ("RGB", "RGBA", "LA") and any(";16" in str(tile[3]) for tile in tiles)
    return deep and image.getexif().get(_ORIENTATION, 1) == 1


def is_turned(path: Path) -> bool:
    """Returns whether a picture is turned or mirrored by its EXIF orientation when it is opened."""
    from PIL import Image

    with suppress(*UNREADABLE), Image.open(path) as image:
        return bool(image.getexif().get(_ORIENTATION, 1) != 1)
    return False


def _verify(path: Path) -> None:
    """Compares the checksums in a PNG, which Pillow does not do while it decodes."""
    from PIL import Image

    with Image.open(path) as image:
        image.verify()


def picture_size(path: Path) -> Size:
    """Returns (height, width) of a picture as `open_picture` would return it, from its header where Pillow reads it."""
    from PIL import Image

    _prepare(path)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                sideways = image.getexif().get(_ORIENTATION) in _SIDEWAYS
                return image.size if sideways else image.size[::-1]
    except (*UNREADABLE, Image.DecompressionBombError):
        return size_of(open_picture(path))


def size_of(picture: Picture) -> Size:
    """Returns (height, width)."""
    height, width = picture.shape[:2] if isinstance(picture, np.ndarray) else picture.size[::-1]
    return int(height), int(width)


def describe_size(size: Sequence[int]) -> str:
    """Describes (height, width) in words that name both sides."""
    return f"{size[1]} wide and {size[0]} high"


def require_same_size(names: Sequence[Any], sizes: Sequence[Sequence[int]]) -> None:
    """Raises `InputError` for the first picture whose (height, width) differs from the first one's."""
    for name, size in zip(names, sizes, strict=True):
        if tuple(size) != tuple(sizes[0]):
            first = getattr(names[0], "name", names[0])
            raise InputError(
                f"{name} is {describe_size(size)} but {first} is {describe_size(sizes[0])}; "
                "all images must have one size."
            )


def unreadable(path: Path, error: BaseException) -> InputError:
    """Returns the error for a picture that cannot be decoded."""
    if path.suffix.lower() in _HEIC and find_spec("pillow_heif") is None:
        return InputError(
            f"{path} is HEIC, which needs a package; run `pip install pillow-heif`, or convert it to jpg."
        )
    if "DecompressionBomb" in type(error).__name__:
        return InputError(f"{path} has more pixels than are read ({shorten(error)}); make it smaller.")
    return InputError(
        f"{path} cannot be read as an image, it is damaged or truncated ({shorten(error)}); "
        "replace the file or leave it out."
    )


def shorten(error: BaseException) -> str:
    """Returns the first line of an error's text, at most 120 characters."""
    return first_line(error)[:120].rstrip(".:; ")


def _prepare(path: Path) -> None:
    if path.suffix.lower() in _HEIC:
        _register_heif()


@cache
def _register_heif() -> None:
    if find_spec("pillow_heif") is not None:
        import pillow_heif

        pillow_heif.register_heif_opener()


def _by_opencv(path: Path) -> NDArray[Any] | None:
    """Returns what Pillow has no mode for, such as 16-bit colours in TIFF, or None."""
    if path.suffix.lower() not in _BY_OPENCV:
        return None
    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")
    import cv2

    try:
        picture = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    except (cv2.error, OSError):
        return None
    if picture is None or picture.ndim == 2:
        return picture
    if (picture[..., :3] == picture[..., :1]).all() and picture.shape[2] == 3:
        return np.ascontiguousarray(picture[..., 0])
    return np.ascontiguousarray(picture[..., [2, 1, 0, *range(3, picture.shape[2])]])
