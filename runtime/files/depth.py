"""Reads depth: folders with a file per frame, numpy archives, TIFF stacks and grey videos.

Numbers are read as they are stored; `amodal.runtime.pictures.depth_kind` says what they mean. Each problem is an
`InputError` of one sentence that names the path and what was expected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, argument, first_line
from ..paths import PathLike, natural_key
from ..pictures.depth_kind import DepthKind, DepthLooks, orient_depth
from .exr import read_exr
from .frames import (
    IMAGE_SUFFIXES,
    as_clip,
    list_images,
    load_numpy,
    open_image,
    read_frames,
    require_path,
    require_same_size,
)

if TYPE_CHECKING:
    from PIL import Image

_ARRAYS = ("depth", "depths", "disparity", "disp", "metric_depth", "depth_m", "pred")
"""Names of the array to read from an .npz of several; `depths` is Video Depth Anything's."""
_KINDS = {".pfm": "PFM", ".exr": "EXR", ".npy": "npy", ".npz": "npz"} | dict.fromkeys(IMAGE_SUFFIXES, "image")
_EXPECTED = "a folder with a grey image, npy or EXR per frame, an npz or npy of all frames, or a grey video"
_NOISE = 24  # levels by which the channels of a grey video differ after compression


@dataclass
class DepthSource:
    """The depth of a clip on disk.

    Attributes:
        names: file names, one per frame; None where the file only has an order.
        count: the number of frames.
        notes: sentences about what was passed over.
        arrays: names of the arrays in an .npz, and of an EXR's channel.
        picture: reads the stored numbers [h, w] of a frame.
        dtype: of the stored numbers; None until a frame is read.
    """

    path: Path
    names: list[str] | None
    count: int
    picture: Callable[[int], NDArray[Any]]
    arrays: Sequence[str] = ()
    notes: list[str] = field(default_factory=list)
    dtype: np.dtype[Any] | None = None

    @argument("depth")
    def read(self, at: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Reads frames as they are stored, holes included: float32 [T, h, w].

        Args:
            at: indices of the frames; None for all.

        Raises:
            InputError: a damaged file, a colour picture, or frames of different sizes.
        """
        chosen = range(self.count) if at is None else at
        pictures = [self.picture(index) for index in chosen]
        self.dtype = pictures[0].dtype
        if self.names is not None:
            require_same_size([self.path / self.names[i] for i in chosen], [picture.shape for picture in pictures])
        return np.stack([picture.astype(np.float32) for picture in pictures])

    def relative(
        self, kind: DepthKind | None = None, at: Sequence[int] | None = None
    ) -> tuple[NDArray[np.float32], list[str]]:
        """Reads frames as relative depth float32 [T, h, w], nearer is larger; see `orient_depth`.

        Returns:
            The depth, and sentences about what was passed over and which pixels were filled.
        """
        depth = self.read(at)
        depth, notes = orient_depth(depth, kind, self.looks)
        return depth, [*self.notes, *notes]

    @property
    def looks(self) -> DepthLooks:
        """What is known of the depth besides its numbers, once a frame is read."""
        names = [self.path.name, *(self.names or [])[:1]]
        return DepthLooks(str(self.path), self.dtype, [Path(name).stem for name in names], self.arrays)


@argument("depth")
def open_depth(path: PathLike) -> DepthSource:
    """Opens the depth of a clip.

    Args:
        path: a folder with one file per frame: 8- or 16-bit grey images, float TIFF, PFM, EXR, npy or npz; a TIFF of
            several pages; an .npz or .npy of numbers [T, h, w]; or a grey video. Of an .npz with several arrays, the
            one named depth, depths, disparity, disp, metric_depth, depth_m or pred is read.

    Raises:
        InputError: no such path, files of several kinds, a damaged file, or a video in colour.
    """
    source = require_path(path, _EXPECTED)
    if source.is_dir():
        return _open_folder(source)
    suffix = source.suffix.lower()
    if suffix in (".npy", ".npz"):
        stored, arrays = load_numpy(source, _ARRAYS)
        array = as_clip(stored, source)
        _require_numbers(source, array)
        return DepthSource(source, None, len(array), array.__getitem__, arrays)
    if suffix in (".tif", ".tiff"):
        pages = _read_pages(source)
        return DepthSource(source, None, len(pages), pages.__getitem__)
    if suffix in _KINDS:
        raise InputError(f"{source} is a single picture; give its folder, or {_EXPECTED.partition(', ')[2]}.")
    video = _read_video(source)
    return DepthSource(source, None, len(video), video.__getitem__)


def read_depth(path: PathLike, kind: DepthKind | None = None) -> NDArray[np.float32]:
    """Reads the depth of a clip as relative depth; nearer is larger.

    Args:
        path: as for `open_depth`.
        kind: what the numbers mean; None for relative, unless they look like something else.

    Returns:
        float32 [T, h, w], finite, any range.

    Raises:
        InputError: as for `open_depth`, `DepthSource.read` and `orient_depth`.
    """
    return open_depth(path).relative(kind)[0]


def _open_folder(folder: Path) -> DepthSource:
    files = [file for file in folder.iterdir() if file.is_file() and not file.name.startswith(".")]
    found: dict[str, list[Path]] = {}
    for file in files:
        if file.suffix.lower() in _KINDS:
            found.setdefault(_KINDS[file.suffix.lower()], []).append(file)
    if len(found) > 1:
        held = " and ".join(f"{len(files)} {kind} files" for kind, files in sorted(found.items()))
        raise InputError(f"{folder} holds {held}; give a folder with depth of one kind.")
    paths = sorted(*found.values(), key=lambda file: natural_key(file.name)) if found else list_images(folder)
    arrays = _arrays_in(paths[0])
    names = [path.name for path in paths]
    return DepthSource(folder, names, len(paths), lambda i: _read_file(paths[i]), arrays, _passed_over(folder, files))


def _passed_over(folder: Path, files: list[Path]) -> list[str]:
    kinds = Counter(file.suffix.lower() or "no suffix" for file in files if file.suffix.lower() not in _KINDS)
    listed = ", ".join(f"{count} ({kind})" for kind, count in sorted(kinds.items()))
    return [f"Files in {folder} that hold no depth were passed over: {listed}."] if kinds else []


def _arrays_in(path: Path) -> list[str]:
    """Returns the names of the arrays in one frame's file: of an npz all, of an EXR the channel that is read."""
    suffix = path.suffix.lower()
    return load_numpy(path, _ARRAYS)[1] if suffix == ".npz" else [read_exr(path)[0]] if suffix == ".exr" else []


def _read_file(path: Path) -> NDArray[Any]:
    """Reads one frame [h, w]."""
    kind = _KINDS[path.suffix.lower()]
    if kind == "EXR":
        return read_exr(path)[1]
    if kind not in ("npy", "npz"):
        return _grey(open_image(path), path)
    array = load_numpy(path, _ARRAYS)[0]
    _require_numbers(path, array)
    squeezed = array.squeeze()
    if squeezed.ndim != 2:
        raise InputError(f"{path} holds an array of shape {list(array.shape)}; expected one frame [h, w].")
    return squeezed


def _require_numbers(path: Path, array: NDArray[Any]) -> None:
    if array.dtype.kind not in "fiu":
        raise InputError(f"{path} holds {array.dtype} values; expected floats or integers.")


def _grey(image: Image.Image, name: object) -> NDArray[Any]:
    """Returns the stored numbers of a picture, upright; raises `InputError` if it has colours."""
    from PIL import ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode in ("P", "LA", "RGBA", "CMYK", "YCbCr"):
        image = image.convert("RGB")
    values = np.asarray(image)
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            raise InputError(
                f"{name} is a colour picture, not a depth map; "
                "expected 8- or 16-bit grey images, nearer being brighter."
            )
        values = values[..., 0]
    # Older releases of Pillow read 16-bit PNGs as 32-bit integers.
    return values.astype(np.uint16) if values.dtype == np.int32 and image.format == "PNG" else values


def _read_pages(path: Path) -> list[NDArray[Any]]:
    """Reads the pages of a TIFF."""
    from PIL import Image, ImageSequence

    open_image(path)  # reports a damaged file
    try:
        with Image.open(path) as image:
            pages = [_grey(page.copy(), f"{path}, page {at}") for at, page in enumerate(ImageSequence.Iterator(image))]
    except (OSError, SyntaxError, EOFError) as error:
        raise InputError(f"{path} cannot be read to its last page ({first_line(error)}); write it again.") from error
    if len(pages) == 1:
        raise InputError(f"{path} is a single picture; give its folder, or {_EXPECTED.partition(', ')[2]}.")
    for at, page in enumerate(pages):
        if page.shape != pages[0].shape:
            raise InputError(f"{path}: page {at} is {page.shape} where the first is {pages[0].shape}; give one size.")
    return pages


def _read_video(path: Path) -> NDArray[np.uint8]:
    """Reads a grey video: uint8 [T, h, w]."""
    frames = read_frames(path)
    for at, frame in enumerate(frames):
        coloured = float((np.ptp(frame, axis=-1) > _NOISE).mean())
        if coloured > 0.01:
            raise InputError(
                f"{path} is a video in colour ({100 * coloured:.0f} % of frame {at}), not depth: colour maps cannot be "
                "undone; write depth as a grey video (nearer being brighter), or better as npz or 16-bit PNG."
            )
    return np.stack([np.rint(frame.mean(axis=-1)).astype(np.uint8) for frame in frames])
