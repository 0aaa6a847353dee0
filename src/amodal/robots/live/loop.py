"""The loop: frames are pushed as they come, and a thread of its own computes what is known about the newest."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.clips.stream import Stream
from amodal.runtime.clips.stream_results import StreamResult
from amodal.runtime.errors import InputError

from .frames import Clock, FrameSource, Taken
from .masks import MaskSource, Seen

_AGES = 100_000  # newest ages of which percentiles are told


class LiveResult(NamedTuple):
    """A result with the frame that it is of, what was seen in it, and the seconds since it was taken."""

    taken: Taken
    seen: Seen
    result: StreamResult
    age: float


@dataclass
class Tally:
    """What a loop counts.

    Attributes:
        frames: taken from the source. results: given.
        dropped: frames that came while the loop was busy. unknown: frames without masks. refused: frames that do not
            fit. skipped: pushed frames that were too old for a window.
        late: results older than the deadline.
        reason: why the last frame was refused.
    """

    frames: int = 0
    results: int = 0
    dropped: int = 0
    unknown: int = 0
    refused: int = 0
    skipped: int = 0
    late: int = 0
    reason: str = ""


class LiveLoop:
    """Runs a stream over a source of frames until the source ends, or `stop` is called.

    Args:
        publish: takes each result, in the order of frames, in the thread that computes.
        deadline: seconds after which a result is late; None for never.
        reach: frames that a window sees; as many are kept until their results come.
        clock: that of the source.
    """

    def __init__(
        self,
        stream: Stream,
        frames: FrameSource,
        masks: MaskSource,
        publish: Callable[[LiveResult], None],
        deadline: float | None = None,
        reach: int = 64,
        clock: Clock = time.monotonic,
    ) -> None:
        self._stream, self._frames, self._masks, self._publish = stream, frames, masks, publish
        self._deadline, self._clock = deadline, clock
        self._lock = threading.Lock()
        self._reach = reach
        self._kept: dict[float, tuple[Taken, Seen]] = {}  # by stamp: those pushed since the last window began
        self._window: dict[float, tuple[Taken, Seen]] = {}  # those before
        self._due = threading.Event()
        self._ages: deque[float] = deque(maxlen=_AGES)
        self._pushed = False  # whether a frame ever was
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self.tally = Tally()

    def run(self) -> Tally:
        """Takes frames until the end; then every frame that waits gets its result.

        Raises:
            InputError: the source or the masks fail for good.
            AmodalError: a window failed; whatever `publish` raises is raised, too.
        """
        worker = threading.Thread(target=self._compute, name="amodal-live")
        worker.start()
        try:
            taken = self._frames.next()
            while taken is not None and not self._ended.is_set():
                self._push(taken)
                taken = self._frames.next()
        finally:
            self._ended.set()
            worker.join()
            self.tally.dropped = self._frames.dropped
        if self._error is not None:
            raise self._error
        return self.tally

    def stop(self) -> None:
        """Ends the loop after the frame that is being taken."""
        self._ended.set()
        self._frames.close()

    def ages(self) -> NDArray[np.float64]:
        """Returns the ages of results in seconds, those of the last 100,000."""
        return np.asarray(self._ages, np.float64)

    def _push(self, taken: Taken) -> None:
        self.tally.frames += 1
        seen = self._masks.find(taken)
        if seen is None:
            self.tally.unknown += 1
            return
        with self._lock:
            self._kept[taken.stamp] = taken, seen
            while len(self._kept) > self._reach:
                del self._kept[next(iter(self._kept))]
        try:
            if self._stream.push(taken.frame, seen.masks, seen.depth, taken.stamp):
                self._due.set()
        except InputError as error:
            if not self._pushed:  # what does not fit from the beginning is not going to
                raise
            self.tally.refused += 1
            self.tally.reason = str(error)
        else:
            self._pushed = True

    def _compute(self) -> None:
        try:
            while not self._ended.is_set():
                self._due.wait(0.1)
                self._due.clear()
                while results := self._poll():
                    self._give(results)
            self._give(self._stream.flush())
        except BaseException as error:  # noqa: BLE001 - raised by `run`, in the thread that waits for it
            self._error = error
            self._ended.set()
            self._frames.close()

    def _poll(self) -> tuple[StreamResult, ...]:
        """Runs a window if one is due; frames that it may be of are kept until then, whatever comes meanwhile."""
        with self._lock:
            self._window = dict(list((self._window | self._kept).items())[-self._reach :])
            self._kept.clear()
        return self._stream.poll()

    def _find(self, stamp: float) -> tuple[Taken, Seen] | None:
        with self._lock:
            return self._window.get(stamp) or self._kept.get(stamp)

    def _give(self, results: tuple[StreamResult, ...]) -> None:
        for result in results:
            found = self._find(result.stamp)
            self.tally.skipped += result.skipped + (found is None)
            if found is None:
                continue
            age = self._clock() - result.stamp
            self._ages.append(age)
            self.tally.results += 1
            self.tally.late += self._deadline is not None and age > self._deadline
            self._publish(LiveResult(*found, result, age))
