"""Runs the windows of a stream, and remembers its objects."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..pictures.depth_kind import DepthKind, check_kind
from ..pictures.images import Size, resize_masks
from ..pictures.objects import ObjectId
from .depth_range import Extremes
from .gate import JUDGEMENTS, Gate, needs_network, require_gate
from .pace import Pace
from .stream_frames import Frame
from .stream_results import Status, StreamObject, StreamResult
from .tracks import Ring, Track
from .windows import StreamWindows

Clock = Callable[[], float]
RANGE_FRAMES = 256
"""Frames whose extremes give the range of depth: enough that what passes does not count, few enough to follow."""


class RunWindow(Protocol):
    """Draws the objects of a window."""

    def __call__(
        self, objects: Mapping[ObjectId, NDArray[np.float32]], depth: NDArray[np.float32], numbers: range, steps: int
    ) -> Mapping[ObjectId, NDArray[np.uint8]]:
        """Draws objects.

        Args:
            objects: visible masks, float32 [m, H, W] in [-1, 1]; m is at most T or, with dilated windows, 2 T.
            depth: float32 [m, H, W] in [-1, 1].
            numbers: of the m frames in the stream.
            steps: of the sampler.

        Returns:
            decoded pictures of the last frames, T or fewer: uint8 [n, H, W, 3].
        """
        ...


FindDepth = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Computes relative depth float32 [1, H, W], in the network's own range, from a frame uint8 [1, h, w, 3]."""


@dataclass(frozen=True)
class StreamOptions:
    """How a stream is run.

    Attributes:
        every: new frames from window to window.
        lookahead: frames at the end of a window without a result yet.
        windows: of the newest T frames, or "dilated", which also look at the T before, with half as many calls more.
        deadline: seconds that a window may take; objects that do not fit wait, and those that have waited longest go
            first. None for no limit.
        forget: seconds after which an object that is not seen ends, and a gap between frames after which the history
            begins anew.
        steps: of the sampler; with several, the most with which all objects fit into the deadline or, without one, into
            the time in which `every` frames come.
        gate: leaves out objects that nothing hides; None to draw all.
        depth_kind: what the numbers of depth mean, as for `Model.segment`.
    """

    every: int = 2
    lookahead: int = 2
    windows: StreamWindows = "newest"
    deadline: float | None = None
    forget: float = 3.0
    steps: tuple[int, ...] = (6,)
    gate: Gate | None = field(default_factory=Gate)
    depth_kind: DepthKind | None = None

    def reach(self, frames: int) -> int:
        """Returns how many of the newest frames windows of `frames` see."""
        return 2 * frames if self.windows == "dilated" else frames

    def check(self, frames: int) -> None:
        """Raises `InputError` unless the options are in range and fit windows of `frames`."""
        for name in ("every", "lookahead"):
            if not isinstance(value := getattr(self, name), (int, np.integer)):
                raise InputError(f"{name} {value!r}: expected a whole number of frames.", field=name)
        require_gate(self.gate)
        if self.windows not in get_args(StreamWindows):
            raise InputError(
                f"windows {self.windows!r} of a stream are unknown; expected {' or '.join(get_args(StreamWindows))}.",
                field="windows",
            )
        if not 1 <= self.every <= frames:
            raise InputError(f"a window every {self.every} frames: expected 1 to {frames}, its length.", field="every")
        if not 0 <= self.lookahead <= frames - self.every:
            raise InputError(
                f"lookahead {self.lookahead}: expected 0 to {frames - self.every}, so that each of {self.every} new "
                f"frames is in a window of {frames}.",
                field="lookahead",
            )
        if self.deadline is not None and not 0 < self.deadline < math.inf:
            raise InputError(f"deadline {self.deadline:g}: expected seconds above 0, or None.", field="deadline")
        if not 0 < self.forget < math.inf:
            raise InputError(f"forget {self.forget:g}: expected seconds above 0.", field="forget")
        check_kind(self.depth_kind)


class _Wanted(NamedTuple):
    """A track in a window: visible masks float32 [m, H, W], judgements uint8 [m], and whether it must be drawn."""

    track: Track
    modal: NDArray[np.float32]
    judged: NDArray[np.uint8]
    needed: bool


class Windows:
    """Runs windows and remembers objects; used by one thread at a time.

    The arguments are those of `Stream`.
    """

    def __init__(
        self,
        run: RunWindow,
        frames: int,
        size: Size,
        options: StreamOptions,
        find_depth: FindDepth | None,
        clock: Clock,
    ) -> None:
        self._run, self._frames, self._size, self._options = run, frames, size, options
        self._reach = options.reach(frames)
        self._find_depth, self._clock = find_depth, clock
        self._pace = Pace(options.steps)
        self._tracks: dict[ObjectId, Track] = {}
        self._depth, self._extremes = Ring(self._reach, size), Extremes(RANGE_FRAMES)
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
        if len(frames) < self._reach:
            frames = frames[-self._frames :]
        numbers = range(frames[0].number, frames[-1].number + 1)
        depth = self._extremes.range().normalise(np.stack([self._depth[n] for n in numbers]))
        wanted = [self._judge(track, numbers, depth, start) for track in self._tracks.values()]
        steps = self._draw([w for w in wanted if w.needed], depth, numbers, begin, period)
        results = []
        for frame in frames[start - numbers.start : stop - numbers.start]:
            objects = {w.track.object_id: self._see(w, frame, numbers) for w in self._present(wanted, frame)}
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
                self._extremes = Extremes(RANGE_FRAMES)
                self._end(list(self._tracks.values()))
            self._depth[frame.number][:] = self._depth_of(frame)
            self._extremes.add(self._depth[frame.number][None])
            self._end([t for t in self._tracks.values() if frame.stamp - t.seen_at > self._options.forget])
            for object_id in frame.masks:
                if object_id not in self._tracks:
                    track = Track(object_id, frame.number, self._reach, self._size, self._turn, frame.stamp)
                    self._tracks[object_id] = track
                    self._born.append((frame.number, object_id))
            for track in self._tracks.values():
                track.see(frame)
            self._seen = frame.number + 1

    def _end(self, tracks: Iterable[Track]) -> None:
        for track in tracks:
            del self._tracks[track.object_id]
            self._ended.append(track.object_id)

    def _depth_of(self, frame: Frame) -> NDArray[np.float32]:
        if frame.depth is not None:
            return frame.depth
        assert self._find_depth is not None
        assert frame.picture is not None
        return np.asarray(self._find_depth(frame.picture[None])[0])

    def _judge(self, track: Track, numbers: range, depth: NDArray[np.float32], start: int) -> _Wanted:
        modal = track.modal(numbers)
        gate, seen = self._options.gate, modal > 0
        judged = np.zeros(len(numbers), np.uint8) if gate is None else gate.judge(seen, depth)
        open_frames = needs_network(judged)[max(start, track.born) - numbers.start :]
        return _Wanted(track, modal, judged, bool(seen.any() and open_frames.any()))

    def _draw(
        self, wanted: Sequence[_Wanted], depth: NDArray[np.float32], numbers: range, begin: float, period: float | None
    ) -> int:
        """Draws what there is time for, those that have waited longest first; returns the steps, 0 if it is nothing."""
        if not wanted:
            return 0
        waiting = sorted(wanted, key=lambda w: w.track.turn)
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
            drawn = self._run({w.track.object_id: w.modal for w in group}, depth, numbers, steps)
            self._pace.note(max(self._clock() - before, 1e-9), count, steps)
            for one in group:
                one.track.blend(numbers[-self._frames :], drawn[one.track.object_id])
                self._turn += 1
                one.track.turn = self._turn
        return steps

    def _present(self, wanted: Iterable[_Wanted], frame: Frame) -> list[_Wanted]:
        return [w for w in wanted if w.track.born <= frame.number]

    def _see(self, wanted: _Wanted, frame: Frame, numbers: range) -> StreamObject:
        """Returns an object in a frame, and remembers its mask."""
        track, number = wanted.track, frame.number
        visible = frame.masks.get(track.object_id)
        track.hidden = 0 if visible is not None else track.hidden + 1
        word = JUDGEMENTS[wanted.judged[number - numbers.start]]
        whole, status = self._whole(wanted, frame, word, visible)
        if status in ("fresh", "visible"):
            track.known, track.known_at = whole, frame.stamp
        return StreamObject(whole, status, frame.stamp - track.known_at, track.hidden)

    def _whole(
        self, wanted: _Wanted, frame: Frame, word: str, visible: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.bool_], Status]:
        track, empty = wanted.track, np.zeros(frame.size, bool)
        if word == "open" and visible is not None:
            return visible, "visible"
        seen = (wanted.modal > 0).any()
        if not seen or word == "outside":
            left = track.leaving if not seen else True
            return (empty if left or track.known is None else track.known), "lost"
        if (drawn := track.whole(frame.number)) is not None:
            whole = resize_masks(drawn[None], frame.size)[0]
            return (whole if visible is None else whole | visible), "fresh"
        known = empty if track.known is None else track.known
        return (known if visible is None else known | visible), "stale"
