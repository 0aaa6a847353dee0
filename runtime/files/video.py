"""Reads video files with OpenCV, which turns them upright as their header says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .pictures import Size, shorten

if TYPE_CHECKING:
    from cv2 import VideoCapture

VIDEO_SUFFIXES = (".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".ogv")


Most: TypeAlias = "Callable[[float | None], int | None] | None"


class Video:
    """The frames of a video, decoded from the beginning on, since seeking is inexact in many codecs.

    Args:
        path: the file.
        most: returns, from the frame rate, after how many frames counting ends, for long videos of which only the
            beginning is wanted.

    Raises:
        InputError: it cannot be decoded.
    """

    names: Sequence[str] | None = None

    def __init__(self, path: Path, most: Most = None) -> None:
        import cv2

        self.path, self.notes = path, []  # type: Path, list[str]
        self._opened: _Opened | None = None
        with _opened(path) as capture:
            stated = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            rate = float(capture.get(cv2.CAP_PROP_FPS))
            ok, first = capture.read()
            if not ok:
                raise InputError(
                    f"{path} cannot be decoded as a video (damaged, or a codec that OpenCV lacks); "
                    "give another video file or a folder of images."
                )
            self._size = (int(first.shape[0]), int(first.shape[1]))
            self.fps = rate if 0 < rate < 1000 else None
            end = most(self.fps) if most is not None else None
            self.count = 1
            while (end is None or self.count < end) and capture.grab():
                self.count += 1
        self.stated, self.cut = stated if stated > 0 else self.count, self.count == end
        if self.count < min(self.stated, end or self.stated):
            self.notes.append(
                f"{path} ends after {self.count} of the {self.stated} frames that its header states; it may be cut off."
            )

    def size(self) -> Size:
        """Returns (height, width)."""
        return self._size

    def again(self) -> Video:
        """Returns another reader of the same video, which begins at its beginning; frames are not counted again."""
        other = copy(self)
        other._opened = None
        return other

    def read(self, at: Iterable[int]) -> Iterator[NDArray[Any]]:
        """Yields the frames of these numbers, which rise: uint8 [H, W, 3], RGB.

        A later read of later frames goes on where this one ended, so that a long video is decoded once.
        """
        numbers = list(at)
        if not numbers:
            return
        opened, self._opened = self._opened, None
        if opened is None or opened.place > numbers[0]:
            if opened is not None:
                opened.capture.release()
            opened = _Opened(_open(self.path))
        with _naming(self.path):
            try:
                for wanted in numbers:
                    yield opened.frame(wanted, self.path)
                self._opened, opened = opened, None
            finally:
                if opened is not None:
                    opened.capture.release()


@dataclass
class _Opened:
    """A video that is being decoded; `place` is the number of the next frame."""

    capture: VideoCapture
    place: int = 0

    def frame(self, wanted: int, path: Path) -> NDArray[Any]:
        import cv2

        while self.place < wanted and self.capture.grab():
            self.place += 1
        ok, frame = self.capture.read()
        self.place += 1
        if not ok:
            raise InputError(f"{path} cannot be decoded after {self.place - 1} frames; it may have changed.")
        return np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2RGB), np.uint8)


def _open(path: Path) -> VideoCapture:
    # Otherwise FFmpeg prints errors ("moov atom not found") to stderr; -8 is "quiet".
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    capture = cv2.VideoCapture()
    with _naming(path):
        capture.open(str(path))
    return capture


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Turns errors of OpenCV into one that names the file."""
    import cv2

    try:
        yield
    except cv2.error as error:
        raise InputError(f"{path} cannot be decoded as a video ({shorten(error)}).") from error


@contextmanager
def _opened(path: Path) -> Iterator[VideoCapture]:
    """Opens a video until the block ends; errors of OpenCV in it name the file."""
    capture = _open(path)
    try:
        with _naming(path):
            yield capture
    finally:
        capture.release()
