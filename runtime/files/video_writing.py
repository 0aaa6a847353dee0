"""Writes H.264 videos with PyAV, an optional library."""

from __future__ import annotations

from collections.abc import Iterable
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


def write_video(path: PathLike, pictures: Iterable[NDArray[np.uint8]], fps: float) -> None:
    """Writes an mp4 of pictures uint8 [H, W, 3] RGB, all of one size; an odd size is padded to an even one.

    Args:
        fps: frames per second; out of 1/600 to 1000, the nearest of these.

    Raises:
        MissingDependencyError: PyAV is not installed.
        ValueError: there is no picture.
    """
    av = require_video_encoder()
    rate = Fraction(min(max(fps, _SLOWEST), _FASTEST)).limit_denominator(1001)
    # A file of Python's, because its path may be no UTF-8.
    with open(path, "wb") as file, av.open(file, "w", format="mp4", options={"movflags": "faststart"}) as video:
        stream = None
        for picture in pictures:
            padded = _even(picture)
            if stream is None:
                stream = video.add_stream(_encoder(av), rate=rate)
                stream.height, stream.width = padded.shape[:2]
                stream.pix_fmt, stream.options = "yuv420p", {"crf": _QUALITY}
            video.mux(stream.encode(av.VideoFrame.from_ndarray(padded, format="rgb24")))
        if stream is None:
            raise ValueError("no pictures for a video")
        video.mux(stream.encode())


def _encoder(av: Any) -> str:
    """Returns the name of an H.264 encoder: x264, which the wheels have, or that of another build of FFmpeg."""
    return "libx264" if "libx264" in av.codecs_available else "h264"


def _even(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Repeats the last row and column, since the colours of H.264 belong to two by two pixels."""
    missing = [max(_LEAST, side + side % 2) - side for side in picture.shape[:2]]
    if not any(missing):
        return np.ascontiguousarray(picture)
    return np.pad(picture, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="edge")
