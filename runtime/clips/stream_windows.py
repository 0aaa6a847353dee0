"""Runs the windows of a stream, and remembers its objects."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ..pictures.objects import ObjectId
from .pace import Pace
from .stream_drawing import Drawing, StreamWindow
from .stream_frames import Frame
from .stream_options import Clock, StreamOptions
from .stream_results import Status, StreamObject, StreamResult
from .tracks import Track


class Windows:
    """Runs windows and remembers objects; used by one thread at a time.

    The arguments are those of `Stream`.
    """

    def __init__(self, drawing: Drawing, options: StreamOptions, clock: Clock) -> None:
        self._drawing, self._options, self._clock = drawing, options, clock
        self._pace = Pace(options.steps)
        self._tracks: dict[ObjectId, Track] = {}
        self._seen = 0  # the frames before this one were taken in
        self._epoch = 0
        self._turn = 0
        self._born: list[tuple[int, ObjectId]] = []
        self._ended: list[ObjectId] = []
        self._reset = False

    def run(
        self, frames: Sequence[Frame], start: int, stop: int, done: int, period: float | None
    ) -> list[StreamResult]:
        """Runs a window; returns the results of the frames from `start` to `stop`.

        Args:
            done: the frames before this one had a result, or were skipped and counted.
        """
        begin = self._clock()
        self._take_in(frames)
        window = self._drawing.look(frames, self._tracks)
        wanted = [track for track in self._tracks.values() if window.is_needed(track.object_id, start)]
        steps = self._draw(window, wanted, begin, period)
        results = []
        oldest = frames[0].number
        for frame in frames[start - oldest : stop - oldest]:
            present = [track for track in self._tracks.values() if track.born <= frame.number]
            objects = {track.object_id: self._see(window, track, frame) for track in present}
            births = tuple(object_id for number, object_id in self._born if number <= frame.number)
            self._born = [(number, object_id) for number, object_id in self._born if number > frame.number]
            ends, self._ended, reset, self._reset = tuple(self._ended), [], self._reset, False
            skipped, done = frame.number - done, frame.number + 1
            late = self._clock() - begin
            results.append(StreamResult(frame.number, frame.stamp, objects, births, ends, skipped, reset, steps, late))
        return results

    def _take_in(self, frames: Sequence[Frame]) -> None:
        """Prepares the frames that are new; those that came and went while a window ran are left out."""
        for frame in (f for f in frames if f.number >= self._seen):
            if frame.epoch != self._epoch:
                self._epoch, self._reset = frame.epoch, True
                self._end(list(self._tracks.values()))
                self._drawing.begin_anew()
            self._drawing.take_in(frame)
            self._end([t for t in self._tracks.values() if frame.stamp - t.seen_at > self._options.forget])
            for object_id in frame.masks:
                if object_id not in self._tracks:
                    self._tracks[object_id] = Track(object_id, frame.number, self._turn, frame.stamp)
                    self._born.append((frame.number, object_id))
            for track in self._tracks.values():
                track.see(frame)
                self._drawing.see(track.object_id, frame)
            self._seen = frame.number + 1

    def _end(self, tracks: Iterable[Track]) -> None:
        for track in tracks:
            del self._tracks[track.object_id]
            self._drawing.forget(track.object_id)
            self._ended.append(track.object_id)

    def _draw(self, window: StreamWindow, wanted: Sequence[Track], begin: float, period: float | None) -> int:
        """Draws what there is time for, those that have waited longest first; returns the steps, 0 if it is nothing."""
        if not wanted:
            return 0
        window.prepare()
        waiting = sorted(wanted, key=lambda track: track.turn)
        deadline = self._options.deadline
        budget = deadline if deadline is not None or period is None else period * self._options.every
        steps = self._pace.steps(len(waiting), budget)
        while waiting:
            count = len(waiting)
            if deadline is not None:
                room = self._pace.room(steps, deadline - (self._clock() - begin))
                count = min(count, room if len(waiting) < len(wanted) else max(room, 1))
            if count == 0:
                break
            group, waiting = waiting[:count], waiting[count:]
            before = self._clock()
            window.draw([track.object_id for track in group], steps)
            self._pace.note(max(self._clock() - before, 1e-9), count, steps)
            for track in group:
                self._turn += 1
                track.turn = self._turn
        return steps

    def _see(self, window: StreamWindow, track: Track, frame: Frame) -> StreamObject:
        """Returns an object in a frame, and remembers its mask."""
        visible = frame.masks.get(track.object_id)
        track.hidden = 0 if visible is not None else track.hidden + 1
        whole, status, iou = _whole(window, track, frame, visible)
        if status in ("fresh", "visible"):
            track.known, track.known_at = whole, frame.stamp
        return StreamObject(whole, status, frame.stamp - track.known_at, track.hidden, iou)


def _whole(
    window: StreamWindow, track: Track, frame: Frame, visible: NDArray[np.bool_] | None
) -> tuple[NDArray[np.bool_], Status, float | None]:
    word, empty = window.judgement(track.object_id, frame.number), np.zeros(frame.size, bool)
    if word == "open" and visible is not None:
        return visible, "visible", None
    seen = window.is_seen(track.object_id)
    if not seen or word == "outside":
        left = track.leaving if not seen else True
        return (empty if left or track.known is None else track.known), "lost", None
    if (drawn := window.whole(track.object_id, frame)) is not None:
        return (drawn.mask if visible is None else drawn.mask | visible), "fresh", drawn.iou
    known = empty if track.known is None else track.known
    return (known if visible is None else known | visible), "stale", None
