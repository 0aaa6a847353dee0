"""Reads depth: whatever `amodal.runtime.files.sequences` reads, in grey.

Numbers are read as they are stored; `amodal.runtime.pictures.depth_kind` says what they mean. Each problem is an
`InputError` of one sentence that names the path and what was expected.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, argument
from ..paths import PathLike
from ..pictures.depth_kind import DepthKind, DepthLooks, orient_depth
from .arrays import array_names
from .exr import read_exr
from .pictures import Picture, open_picture
from .sequences import Array, ArrayFolder, Folder, Pictures, as_array, open_sequence, reader_of
from .video import Video

_ARRAYS = ("depth", "depths", "disparity", "disp", "metric_depth", "depth_m", "pred")
"""Names of the array to read from an .npz of several; `depths` is Video Depth Anything's."""
_EXPECTED = "a folder with a grey image, npy or EXR per frame, an npz or npy of all frames, or a grey video"
_NOISE = 24  # levels by which the channels of a grey video differ after compression


class DepthSource:
    """The depth of a clip on disk.

    Attributes:
        names: file names, one per frame; None where the file only has an order.
        count: the number of frames.
        notes: warnings to show.
    """

    def __init__(self, pictures: Pictures) -> None:
        self._pictures = pictures
        self.path, self.names, self.count = pictures.path, pictures.names, pictures.count
        self.notes = list(pictures.notes)
        self._arrays = _arrays_of(pictures.files[0] if isinstance(pictures, Folder) else pictures.path)
        self._dtype: np.dtype[Any] | None = None

    @argument("depth")
    def read(self, at: Sequence[int] | None = None) -> NDArray[np.float32]:
        """Reads frames as they are stored, holes included: float32 [T, h, w].

        Args:
            at: indices of the frames, rising; None for all.

        Raises:
            InputError: a damaged file, a picture in colour, no numbers, or frames of different sizes.
        """
        maps = []
        numbers = range(self.count) if at is None else at
        for i, picture in zip(numbers, self._pictures.read(numbers), strict=True):
            values = self._grey(picture, i)
            if values.dtype.kind not in "fiu":
                raise InputError(f"{self.path} holds {values.dtype} values; expected floats or integers.")
            self._dtype = self._dtype or values.dtype
            maps.append(values.astype(np.float32))
        return np.stack(maps)

    def relative(
        self, kind: DepthKind | None = None, at: Sequence[int] | None = None
    ) -> tuple[NDArray[np.float32], list[str]]:
        """Reads frames as relative depth float32 [T, h, w], nearer is larger; see `orient_depth`.

        Returns:
            The depth, and sentences about pixels that were filled.
        """
        return orient_depth(self.read(at), kind, self.looks())

    def looks(self) -> DepthLooks:
        """Returns what is known besides the numbers; the dtype is known once maps were read."""
        names = [self.path.name, *(self.names or [])[:1]]
        return DepthLooks(str(self.path), self._dtype, [Path(name).stem for name in names], self._arrays)

    def again(self) -> DepthSource:
        """Returns another reader of the same maps, for another place in them."""
        other = copy(self)
        other._pictures = reader_of(self._pictures)
        return other

    def _grey(self, picture: Picture, i: int) -> NDArray[Any]:
        """Returns the stored numbers [h, w] of a picture; raises `InputError` if it has colours."""
        if isinstance(self._pictures, Video):
            return _grey_of_video(as_array(picture), self.path, i)
        if not isinstance(picture, np.ndarray) and picture.mode in ("P", "PA", "LA", "RGBA", "CMYK", "YCbCr"):
            picture = picture.convert("RGB")
        values = as_array(picture)
        if values.ndim == 3 and isinstance(self._pictures, (ArrayFolder, Array)):
            raise InputError(
                f"{self._name(i)} holds an array of shape {list(values.shape)}; expected one frame [h, w]."
            )
        if values.ndim == 3:
            if (values != values[..., :1]).any():
                raise InputError(
                    f"{self._name(i)} is a colour picture, not a depth map; "
                    "expected 8- or 16-bit grey images, nearer being brighter."
                )
            values = values[..., 0]
        # Older releases of Pillow read 16-bit PNGs as 32-bit integers.
        png = self.names is not None and Path(self.names[i]).suffix.lower() == ".png"
        return values.astype(np.uint16) if values.dtype == np.int32 and png else values

    def _name(self, i: int) -> Path:
        return self.path if self.names is None else self.path / self.names[i]


@argument("depth")
def open_depth(path: PathLike) -> DepthSource:
    """Opens the depth of a clip.

    Args:
        path: a folder with one file per frame: 8- or 16-bit grey images, float TIFF, PFM, EXR, npy or npz; a TIFF of
            several pages; an .npz or .npy of numbers [T, h, w]; or a grey video. Of an .npz with several arrays, the
            one named depth, depths, disparity, disp, metric_depth, depth_m or pred is read.

    Raises:
        InputError: no such path, or no depth there.
    """
    return DepthSource(open_sequence(path, _EXPECTED, _ARRAYS, opener=_open_picture))


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


def _open_picture(path: Path) -> Picture:
    return read_exr(path)[1] if path.suffix.lower() == ".exr" else open_picture(path)


def _arrays_of(path: Path) -> list[str]:
    """Returns the names of the arrays in a file: of an npz all, of an EXR the channel that is read."""
    return [read_exr(path)[0]] if path.suffix.lower() == ".exr" else array_names(path)


def _grey_of_video(frame: NDArray[Any], path: Path, i: int) -> NDArray[np.uint8]:
    coloured = float((np.ptp(frame, axis=-1) > _NOISE).mean())
    if coloured > 0.01:
        raise InputError(
            f"{path} is a video in colour ({100 * coloured:.0f} % of frame {i}), not depth: colour maps cannot be "
            "undone; write depth as a grey video (nearer being brighter), or better as npz or 16-bit PNG."
        )
    grey: NDArray[np.uint8] = np.rint(frame.mean(axis=-1)).astype(np.uint8)
    return grey
