"""Writes H.264 videos with PyAV, an optional library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import MissingDependencyError
from ..paths import PathLike

_SLOWEST, _FASTEST = 1 / 600, 1000.0  # frames per second that every player takes
_LEAST = 16  # pixels of a side, for the encoder
_QUALITY = "20"  # x264's constant rate factor: 0 is lossless, 23 its default


def require_video_encoder() -> Any:
    """Returns the module of PyAV.

    Raises:
        MissingDependencyError: it is not installed, or cannot be imported.
    """
    try:
        import av
    except ImportError as error:
        raise MissingDependencyError(
            f'writing mp4 needs PyAV, which cannot be imported ({error}); run `pip install "amodal[video]"`, or write '
            '`video="gif"`.'
        ) from error
    return av


class VideoWriter:
    """Writes an mp4 picture by picture; use it as a context manager. An odd size is padded to an even one.

    Args:
        fps: frames per second; out of 1/600 to 1000, the nearest of these.

    Raises:
        MissingDependencyError: PyAV is not installed.
    """

    def __init__(self, path: PathLike, fps: float) -> None:
        self._av = require_video_encoder()
        self._rate = Fraction(min(max(fps, _SLOWEST), _FASTEST)).limit_denominator(1001)
        self._stream: Any = None
        self._undo = ExitStack()
        with self._undo:
            # A file of Python's, because its path may be no UTF-8.
            file = self._undo.enter_context(open(path, "wb"))  # noqa: SIM115 - closed by `_undo`
            self._video = self._undo.enter_context(_mp4(self._av, file))
            self._undo = self._undo.pop_all()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        with self._undo:
            if kind is None and self._stream is not None:
                self._video.mux(self._stream.encode())

    def add(self, picture: NDArray[np.uint8]) -> None:
        """Adds a picture uint8 [H, W, 3] RGB; all are of one size."""
        padded = _even(picture)
        if self._stream is None:
            self._stream = self._video.add_stream(_encoder(self._av), rate=self._rate)
            self._stream.height, self._stream.width = padded.shape[:2]
            self._stream.pix_fmt, self._stream.options = "yuv420p", {"crf": _QUALITY}
        self._video.mux(self._stream.encode(self._av.VideoFrame.from_ndarray(padded, format="rgb24")))


def write_video(path: PathLike, pictures: Iterable[NDArray[np.uint8]], fps: float) -> None:
    """Writes an mp4 of pictures uint8 [H, W, 3] RGB; see `VideoWriter`.

    Raises:
        MissingDependencyError: PyAV is not installed.
        ValueError: there is no picture.
    """
    count = 0
    with VideoWriter(path, fps) as video:
        for picture in pictures:
            video.add(picture)
            count += 1
        if not count:
            raise ValueError("no pictures for a video")


def join_videos(path: PathLike, parts: Sequence[PathLike]) -> None:
    """Writes one mp4 of the pictures of others by `VideoWriter`, of one size and rate, without encoding them again."""
    av = require_video_encoder()
    with open(path, "wb") as file, _mp4(av, file) as video:
        stream, begin = None, 0
        for part in parts:
            with open(part, "rb") as data, av.open(data) as source:
                given, packets = source.streams.video[0], 0
                if stream is None:
                    add = getattr(video, "add_stream_from_template", None)  # PyAV 14
                    stream = add(given) if add else video.add_stream(template=given)
                step = round(1 / (given.average_rate * given.time_base))
                for packet in source.demux(given):
                    if packet.dts is None:  # the end
                        continue
                    packet.pts += begin
                    packet.dts += begin
                    packet.stream = stream
                    video.mux(packet)
                    packets += 1
                begin += packets * step


def _mp4(av: Any, file: Any) -> Any:
    return av.open(file, "w", format="mp4", options={"movflags": "faststart"})


def _encoder(av: Any) -> str:
    """Returns the name of an H.264 encoder: x264, which the wheels have, or that of another build of FFmpeg."""
    return "libx264" if "libx264" in av.codecs_available else "h264"


def _even(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeats the last row and column, since the colours of H.264 belong to two by two pixels."""
    missing = [max(_LEAST, side + side % 2) - side for side in picture.shape[:2]]
    if not any(missing):
        return np.ascontiguousarray(picture)
    return np.pad(picture, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
