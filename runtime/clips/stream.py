"""Whole objects in a stream of frames that has no end, in time.

A window is the newest T frames; T is 1 for networks that look at single pictures. One runs whenever `every` new frames
have come, and gives a result for the frames up to the newest but `lookahead`, since those at the end of a window are
drawn worst. The pictures of several windows are blended, with most weight in the middle of each. `push` only keeps a
frame. While a window runs, frames may come at any rate: the next window is that of the newest frames, and what is too
old for it has no result. So the last result is late by at most a window and a frame, and a frame for each of
`lookahead`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..errors import InputError
from .stream_drawing import Drawing
from .stream_frames import History
from .stream_options import Clock, StreamOptions
from .stream_results import StreamResult
from .stream_windows import Windows


class Stream:
    """Finds the whole objects in frames as they come; see `Model.stream`.

    `push` and `poll` may be called by two threads, `step`, `over` and `flush` by one that does both.

    Args:
        drawing: draws the windows; of no other stream.
        options: None for the defaults.
        clock: gives seconds, for stamps that are not given and for what windows take.

    Raises:
        InputError: options out of range.
    """

    def __init__(self, drawing: Drawing, options: StreamOptions | None = None, clock: Clock = time.monotonic) -> None:
        self.options, self._frames = options or StreamOptions(), drawing.frames
        self.options.check(self._frames)
        size, computes = drawing.depth_size, drawing.computes_depth
        self._history = History(drawing.reach, size, self.options.forget, computes, self.options.depth_kind)
        self._windows = Windows(drawing, self.options, clock)
        self._clock, self._news, self._working = clock, threading.Condition(), threading.Lock()
        self._done = 0  # the frames before this one have a result, or never will
        self._closed = False

    @property
    def closed(self) -> bool:
        """Whether the stream takes no more frames."""
        return self._closed

    def push(self, frame: Any, masks: Any, depth: Any = None, stamp: float | None = None) -> bool:
        """Takes a frame; copies it, so that buffers may be used again.

        Args:
            frame: uint8 [h, w, 3], RGB; may be None if depth is given.
            masks: visible masks [h, w] by object, as `Model.segment` takes them; objects that are not seen may be left
                out. An array is the mask of object 0.
            depth: relative depth [hd, wd]; None to compute it from the frame. In all frames, or in none; in none for
                networks that use no depth.
            stamp: seconds, later than that of the frame before; None for the clock's.

        Returns:
            whether a window is due.

        Raises:
            InputError: the stream is closed, or something does not fit, by itself or to the frames before. The frame is
                then left out, and the next may be pushed.
        """
        with self._news:
            self._require_open()
            self._history.add(frame, masks, depth, self._clock() if stamp is None else stamp)
            due = self._is_due()
            if due:
                self._news.notify_all()
            return due

    def poll(self, wait: float = 0.0) -> tuple[StreamResult, ...]:
        """Runs a window if one is due.

        Args:
            wait: seconds to wait until one is; the stream's end ends the waiting.

        Returns:
            results of the frames that got one, oldest first; none if no window is due.

        Raises:
            NonFiniteError: latents, pictures or logits became NaN or infinite. The next window may be run.
        """
        with self._working:
            with self._news:
                if not self._news.wait_for(lambda: self._closed or self._is_due(), max(wait, 0.0)) or self._closed:
                    return ()
            return self._run(self.options.lookahead)

    def step(self, frame: Any, masks: Any, depth: Any = None, stamp: float | None = None) -> tuple[StreamResult, ...]:
        """Takes a frame as `push`, and runs a window if one is due; returns and raises as both."""
        return self.poll() if self.push(frame, masks, depth, stamp) else ()

    def flush(self) -> tuple[StreamResult, ...]:
        """Gives the frames without a result theirs, also those of `lookahead`."""
        with self._working:
            with self._news:
                self._require_open()
                if self._history.count <= max(self._done, self._history.floor):
                    return ()
            return self._run(0)

    def over(self, frames: Iterable[Sequence[Any]]) -> Iterator[StreamResult]:
        """Yields the result of each frame, whose (frame, masks), with depth and stamp if there are, `frames` gives."""
        for given in frames:
            yield from self.step(*given)
        yield from self.flush()

    def close(self) -> None:
        """Takes no more frames, and ends what waits for a window; calling it again does nothing."""
        with self._news:
            self._closed = True
            self._news.notify_all()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _require_open(self) -> None:
        if self._closed:
            raise InputError("the stream is closed; open another.")

    def _is_due(self) -> bool:
        done = max(self._done, self._history.floor)
        return self._history.count - self.options.lookahead - done >= self.options.every

    def _run(self, lookahead: int) -> tuple[StreamResult, ...]:
        with self._news:
            frames, period = list(self._history.frames), self._history.period()
            done = self._done
        stop = frames[-1].number + 1 - lookahead
        start = max(done, frames[0].number, frames[-1].number + 1 - self._frames)
        results = self._windows.run(frames, start, stop, done, period)
        with self._news:
            self._done = stop
        return tuple(results)
