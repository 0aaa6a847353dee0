"""Where a live loop takes its frames from: a camera or a network stream, or files that are played like one."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.errors import InputError, argument
from amodal.runtime.files.frames import Frames, open_frames

Clock = Callable[[], float]
_PATIENCE = 10.0  # seconds without a frame after which a camera counts as gone
_FILE_RATE = 10.0  # frames a second of files that say no rate


@dataclass(frozen=True)
class Taken:
    """A frame uint8 [h, w, 3], RGB, with its number in the source and the clock's seconds at which it came."""

    number: int
    stamp: float
    frame: NDArray[np.uint8]


class FrameSource(Protocol):
    """Gives the newest frame whenever it is asked; what came in between is counted and left out."""

    @property
    def dropped(self) -> int:
        """Frames that came and were never given."""

    def next(self) -> Taken | None:
        """Waits for a frame that was not given yet, and returns the newest; None at the end."""

    def close(self) -> None:
        """Ends the source, and what waits for it."""


class FileFrames:
    """Files, played at a rate from the first call of `next` on.

    Args:
        frames: what is played.
        rate: frames a second; None for that of the file, or 10.
        clock, sleep: seconds that pass, and waiting for them.
    """

    def __init__(
        self,
        frames: Frames,
        rate: float | None = None,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.frames, self.dropped = frames, 0
        self._rate = rate or frames.fps or _FILE_RATE
        self._clock, self._sleep = clock, sleep
        self._begin: float | None = None
        self._next, self._closed = 0, False

    def next(self) -> Taken | None:
        """See `FrameSource`."""
        now = self._clock()
        self._begin = now if self._begin is None else self._begin
        wait = self._begin + self._next / self._rate - now
        if wait > 0:
            self._sleep(wait)
            now = self._clock()
        # A hair's breadth is added, since a sleep may end as much too early.
        newest = min(math.floor((now - self._begin) * self._rate + 1e-6), self.frames.count - 1)
        newest = max(newest, self._next)
        if self._closed or newest >= self.frames.count:
            return None
        self.dropped += newest - self._next
        self._next = newest + 1
        return Taken(newest, self._begin + newest / self._rate, self.frames.read([newest])[0])

    def rewind(self) -> None:
        """Begins anew with the first frame, at the next call of `next`."""
        self._begin, self._next, self.dropped = None, 0, 0

    def close(self) -> None:
        """See `FrameSource`."""
        self._closed = True


class CameraFrames:
    """A camera by its number, or a stream by its address, read by a thread that keeps only the newest frame.

    Args:
        source: the camera's number, or an address such as `rtsp://...`.
        rate: frames a second to give at most; None for all.
        capture: what is read, like `cv2.VideoCapture`; None to open it.

    Raises:
        InputError: it cannot be opened.
    """

    def __init__(
        self, source: int | str, rate: float | None = None, clock: Clock = time.monotonic, capture: Any = None
    ) -> None:
        self._name = f"camera {source}" if isinstance(source, int) else source
        self._capture = _open(source, self._name) if capture is None else capture
        self._clock, self._least = clock, 0.0 if rate is None else 1 / rate
        self.dropped = 0
        self._news = threading.Condition()
        self._newest: Taken | None = None
        self._ended = self._closed = False
        self._given = -math.inf
        self._thread = threading.Thread(target=self._read, name="amodal-camera", daemon=True)
        self._thread.start()

    def next(self) -> Taken | None:
        """See `FrameSource`.

        Raises:
            InputError: nothing came for ten seconds.
        """
        time.sleep(max(0.0, min(self._given + self._least - self._clock(), self._least)))
        with self._news:
            if not self._news.wait_for(lambda: self._newest or self._ended or self._closed, _PATIENCE):
                raise InputError(
                    f"{self._name} gave no frame for {_PATIENCE:g} s; check that it is connected and that no other "
                    "program uses it.",
                    field="source",
                )
            taken, self._newest = self._newest, None
        if taken is None or self._closed:
            return None
        self._given = self._clock()
        return taken

    def close(self) -> None:
        """See `FrameSource`."""
        with self._news:
            self._closed = True
            self._news.notify_all()
        self._thread.join(_PATIENCE)

    def _read(self) -> None:
        number = 0
        try:
            while not self._closed:
                there, frame = self._capture.read()
                if not there:
                    return
                taken = Taken(number, self._clock(), np.ascontiguousarray(frame[..., ::-1]))
                number += 1
                with self._news:
                    self.dropped += self._newest is not None
                    self._newest = taken
                    self._news.notify_all()
        finally:
            with self._news:
                self._ended = True
                self._news.notify_all()
            self._capture.release()


def is_camera(source: str) -> bool:
    """Returns whether --source names a camera or an address, not files."""
    return source.isdecimal() or "://" in source


def open_source(source: str, rate: float | None = None) -> FileFrames | CameraFrames:
    """Opens --source: a camera's number, an address, or files that are played.

    Raises:
        InputError: there is no such thing, or it cannot be read.
    """
    if is_camera(source):
        return CameraFrames(int(source) if source.isdecimal() else source, rate)
    with argument("source"):
        return FileFrames(open_frames(source), rate)


def _open(source: int | str, name: str) -> Any:
    import os

    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # otherwise FFmpeg prints errors of its own
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    import cv2

    capture = cv2.VideoCapture(source)
    if not capture.isOpened():
        raise InputError(
            f"{name} cannot be opened; give the number of a camera (0 is the first), an address that another player "
            "opens, a video or a folder of images.",
            field="source",
        )
    return capture
