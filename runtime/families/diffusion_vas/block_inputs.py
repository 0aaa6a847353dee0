"""Prepares a block of a long clip on the host: the conditions of both stages for its objects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ...clips.depth_range import DepthRange, Extremes
from ...clips.source import ClipSource
from ...execution.session import Session
from ...pictures import images
from ...pictures.depth import DepthChannels, normalise_clip
from ...pictures.objects import ObjectId
from .config import Config, config_of
from .running import find_maps
from .shape import PIECE

Masks = dict[ObjectId, NDArray[np.bool_]]


def pieces(start: int, stop: int) -> list[range]:
    """Cuts frames into pieces of which few enough are in memory."""
    return [range(at, min(at + PIECE, stop)) for at in range(start, stop, PIECE)]


@dataclass(frozen=True)
class SegmentPictures:
    """See `block_encoding.Pictures`.

    Attributes:
        modal: visible masks [K, n, H, W] in grey levels uint8, or float32 in [-1, 1].
        maps: depth float32 [n, H, W] in [-1, 1], for all objects.
    """

    modal: NDArray[np.uint8] | NDArray[np.float32]
    maps: NDArray[np.float32]
    active: NDArray[np.bool_]
    shared = True

    @property
    def objects(self) -> int:
        """Number of objects."""
        return len(self.modal)

    @property
    def count(self) -> int:
        """Number of frames."""
        return int(self.modal.shape[1])

    def first(self, index: int, numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        """Returns visible masks in three channels."""
        modal = self.modal[index, numbers]
        signed = images.to_signed(modal) if modal.dtype == np.uint8 else modal
        return np.repeat(signed[:, None], 3, axis=1)

    def second(self, index: int, numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        """Returns depth in three channels."""
        return np.repeat(self.maps[numbers][:, None], 3, axis=1)


@dataclass(frozen=True)
class CompletePictures:
    """See `block_encoding.Pictures`.

    Attributes:
        rgb: uint8 [n, H, W, 3] for each object.
        known: what is visible or copied, bool [K, n, H, W].
        whole: whole-object masks, likewise.
    """

    rgb: Sequence[NDArray[np.uint8]]
    known: NDArray[np.bool_]
    whole: NDArray[np.bool_]
    active: NDArray[np.bool_]
    shared = False

    @property
    def objects(self) -> int:
        """Number of objects."""
        return len(self.known)

    @property
    def count(self) -> int:
        """Number of frames."""
        return int(self.known.shape[1])

    def first(self, index: int, numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        """Returns the visible RGB on white."""
        pictures = images.to_signed(self.rgb[index][numbers]).transpose(0, 3, 1, 2)
        return images.visible_rgb(pictures, _signed(self.known[index, numbers]))

    def second(self, index: int, numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        """Returns whole masks in three channels."""
        return np.repeat(_signed(self.whole[index, numbers])[:, None], 3, axis=1)


def _signed(masks: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(masks, np.float32(1), np.float32(-1))


def read_modal(source: ClipSource, config: Config, numbers: range) -> NDArray[np.uint8]:
    """Reads the visible masks of all objects at the bundle's size, in grey levels: uint8 [K, n, H, W]."""
    return np.stack([images.resize_modal(source.modal(o, numbers), config.size) for o in source.objects])


def read_rgb(source: ClipSource, config: Config, numbers: range) -> NDArray[np.uint8]:
    """Reads frames at the bundle's size: uint8 [n, H, W, 3]."""
    return images.to_bytes(images.prepare_rgb(source.frames(numbers), config.size))


class Kept:
    """Frames that are read front to back, each once.

    Args:
        read: returns some frames, along `axis`.
        start: the first frame that is wanted.
    """

    def __init__(self, read: Callable[[range], NDArray[Any]], start: int = 0, axis: int = 0) -> None:
        self._read, self._start, self._axis = read, start, axis
        self._held: NDArray[Any] | None = None

    def __call__(self, start: int, stop: int) -> NDArray[Any]:
        """Returns frames `start` to `stop`, and forgets those before; neither may lie before that of the last call."""
        axis, held = self._axis, self._held
        if held is not None:
            held = np.delete(held, slice(0, start - self._start), axis)
        parts = [] if held is None else [held]
        have = sum(part.shape[axis] for part in parts)
        parts += [self._read(numbers) for numbers in pieces(start + have, stop)]
        self._start, self._held = start, np.concatenate(parts, axis)
        return self._held[(slice(None),) * axis + (slice(0, stop - start),)]


class Depth:
    """Depth of a clip at the bundle's size, read or computed once.

    It is computed into a file, half a megabyte for a frame of 256x512, because the clip's range must be known before
    the first block.

    Args:
        known: the range, if it was found before.
        path: of the file that computed depth is kept in, and read from if it has all frames; None for a temporary one.
    """

    def __init__(
        self,
        session: Session,
        source: ClipSource,
        channels: DepthChannels | None,
        known: DepthRange | None = None,
        path: Path | None = None,
    ) -> None:
        self._source, self._config = source, config_of(session.manifest)
        self._file: IO[bytes] | None = None
        self._kept = Kept(self._maps)
        if known is not None and (source.has_depth or self._open_whole(path)):
            self.range = known
            return
        extremes = Extremes()
        if not source.has_depth:
            self._file = TemporaryFile() if path is None else open(path, "w+b")  # noqa: SIM115 - closed by `close`
        for numbers in pieces(0, source.count):
            maps = self._given(numbers) if source.has_depth else _computed(session, source, channels, numbers)
            extremes.add(maps)
            if self._file is not None:
                self._file.write(maps.tobytes())
        if self._file is not None:
            self._file.flush()
        self.range = extremes.range()

    def _open_whole(self, path: Path | None) -> bool:
        """Opens the file of an earlier run if it has the depth of all frames."""
        height, width = self._config.size
        if path is None or not path.is_file() or path.stat().st_size != 4 * height * width * self._source.count:
            return False
        self._file = open(path, "rb")  # noqa: SIM115 - closed by `close`
        return True

    def read(self, start: int, stop: int) -> NDArray[np.float32]:
        """Returns depth float32 [n, H, W] in [-1, 1]; by its extremes for a clip of one window, as published."""
        maps = self._kept(start, stop)
        if self._source.count <= self._config.frames:
            return images.prepare_depth(maps, self._config.size) if self._source.has_depth else normalise_clip(maps)
        return self.range.normalise(maps)

    def close(self) -> None:
        """Closes the file; a temporary one is deleted."""
        if self._file is not None:
            self._file.close()

    def _maps(self, numbers: range) -> NDArray[np.float32]:
        if self._file is None:
            return self._given(numbers)
        height, width = self._config.size
        self._file.seek(4 * height * width * numbers.start)
        data = self._file.read(4 * height * width * len(numbers))
        return np.frombuffer(data, np.float32).reshape(-1, height, width)

    def _given(self, numbers: range) -> NDArray[np.float32]:
        return images.resize_depth(self._source.depth(numbers), self._config.size)


def _computed(
    session: Session, source: ClipSource, channels: DepthChannels | None, numbers: range
) -> NDArray[np.float32]:
    with session.backend.active():
        xp = session.backend.xp
        pictures = images.prepare_rgb(source.frames(numbers), config_of(session.manifest).size)
        return session.backend.to_host(find_maps(session, xp.asarray(pictures), channels)).astype(np.float32)


Amodal = Callable[[ObjectId, range], NDArray[np.bool_]]
"""Returns the whole-object masks of an object in some frames, bool [n, H, W], of any size."""


def padded_frames(array: NDArray[Any], frames: int, axis: int) -> NDArray[Any]:
    """Repeats the last frame until there are `frames`, along an axis."""
    missing = frames - array.shape[axis]
    if missing <= 0:
        return array
    last = np.take(array, [-1], axis=axis)
    return np.concatenate([array, np.repeat(last, missing, axis=axis)], axis=axis)


def by_object(source: ClipSource, arrays: Sequence[NDArray[Any]]) -> dict[ObjectId, NDArray[Any]]:
    """Names an array for each object by its id."""
    return dict(zip(source.objects, arrays, strict=True))
