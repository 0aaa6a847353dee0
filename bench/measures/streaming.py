"""A stream of frames at a rate: how old results are, what is dropped, which deadlines are missed, how memory grows."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil

from amodal.runtime.clips.stream import Stream
from amodal.runtime.clips.stream_blending import BlendedWindows
from amodal.runtime.clips.stream_options import Clock, StreamOptions
from amodal.runtime.clips.stream_results import StreamResult
from amodal.runtime.errors import InputError
from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.config import config_of
from amodal.runtime.families.diffusion_vas.settings import PRESETS
from amodal.runtime.loading import load
from amodal.runtime.progress import Progress, silent

from ..running.clips import Execution
from ..running.machine import executed_of
from ..running.memory import device_counters
from ..running.played import Player, SimulatedClock, StubWindow

_SAMPLES = 60  # of memory
_SETTLED = 0.1  # share of the frames after which memory is expected to stay


@dataclass(frozen=True)
class Played:
    """What is played.

    Attributes:
        rate: frames a second.
        objects: in each frame, and none is left out by a gate.
        seconds: of the stream.
        size: (h, w) of the frames; depth is given, as from a camera that measures it.
        every, lookahead, deadline, preset: of `Model.stream`; None for 2, 2, no limit and `fast`, or for what a family
            that draws each frame by itself has.
        stub: seconds that a window of 6 steps takes instead of Diffusion-VAS's networks, which are then not loaded.
        real_time: on the wall clock, with a thread that computes; otherwise the stream's seconds are those that
            computing takes, and nothing waits for the next frame.
    """

    rate: float = 30.0
    objects: int = 1
    seconds: float = 60.0
    size: tuple[int, int] = (480, 640)
    every: int | None = None
    lookahead: int | None = None
    deadline: float | None = None
    preset: Literal["exact", "balanced", "fast", "auto"] | None = None
    stub: float | None = None
    real_time: bool = False

    @property
    def frames(self) -> int:
        """Frames that come."""
        return round(self.rate * self.seconds)


class Log:
    """Notes a stream's frames, windows and memory, in memory that is all taken at the beginning.

    Args:
        frames: that come at most.
        counters: bytes of memory by name.
    """

    def __init__(self, frames: int, deadline: float | None, counters: Mapping[str, Callable[[], int]]) -> None:
        self._ages, self._pushes, self._windows, self._own = (np.zeros(frames) for _ in range(4))
        for samples in (self._ages, self._pushes, self._windows, self._own):
            samples.fill(-1.0)  # now, so that its pages do not look like growth
        self._deadline, self._counters, self.frames = deadline, counters, frames
        self._pushed = self._answered = self._run = self._missed = self._skipped = 0
        self._statuses: Counter[str] = Counter()
        self._steps: Counter[int] = Counter()
        self._memory: list[tuple[int, dict[str, int]]] = []

    def push(self, seconds: float) -> None:
        """Notes a frame that came, and how long handing it in took."""
        self._pushes[self._pushed] = seconds
        self._pushed += 1
        if self._pushed % max(1, self.frames // _SAMPLES) == 0:
            self._memory.append((self._pushed, {name: count() for name, count in self._counters.items()}))

    def window(self, results: Sequence[StreamResult], now: float, seconds: float, waited: float) -> None:
        """Notes a window's results.

        Args:
            now: when they were there, on the stream's clock.
            seconds: that the window took, of which the stub `waited`.
        """
        self._windows[self._run], self._own[self._run] = seconds, seconds - waited
        self._run += 1
        self._missed += self._deadline is not None and seconds > self._deadline
        self._steps[results[-1].steps] += 1
        for result in results:
            self._ages[self._answered] = now - result.stamp
            self._answered += 1
            self._skipped += result.skipped
            self._statuses.update(found.status for found in result.objects.values())

    def report(self, stub: bool) -> dict[str, Any]:
        """Returns the figures; seconds, bytes and counts."""
        waiting = self._pushed - self._answered - self._skipped
        return {
            "frames": {
                "pushed": self._pushed,
                "answered": self._answered,
                "dropped": self._skipped,
                "waiting at the end": waiting,
            },
            "age_s": _quantiles(self._ages[: self._answered]),
            "push_s": _quantiles(self._pushes[: self._pushed]),
            "windows": {
                "run": self._run,
                "deadline_misses": None if self._deadline is None else self._missed,
                "seconds": _quantiles(self._windows[: self._run]),
                "own_s": _quantiles(self._own[: self._run]) if stub else None,
                "steps": {str(steps): count for steps, count in sorted(self._steps.items())},
            },
            "objects": dict(sorted(self._statuses.items())),
            "memory": {name: self._growth(name) for name in self._counters},
        }

    def _growth(self, name: str) -> dict[str, Any] | None:
        settled = [sample[name] for number, sample in self._memory if number >= _SETTLED * self.frames]
        if not settled:
            return None
        return {
            "settled": settled[0],
            "highest": max(settled),
            "last": settled[-1],
            "growth": settled[-1] / settled[0] - 1,
        }


def measure_stream(
    bundle: str | Path,
    execution: Execution,
    played: Played,
    *,
    progress: Progress = silent,
    timer: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Plays a stream and returns what came of it.

    Args:
        timer: gives the seconds that computing takes on a simulated clock.

    Returns:
        `settings` and `executed` as they were, and then frames (pushed, answered, dropped), `age_s` from a frame's
        stamp to its result, `push_s`, windows with `deadline_misses` and their own share `own_s` (with a stub),
        objects by status, and memory: what the process takes once a tenth of the frames has come, at most, and at the
        end. Quantiles are in seconds, memory in bytes, growth is a share.

    Raises:
        InputError: an option out of range or without a meaning for the family, fewer frames than a window, or a
            stub for another family.
        AmodalError: the bundle cannot be run with this `execution`.
    """
    family = Bundle(bundle).manifest.family
    if family == "diffusion-vas":
        played = _with_window(played, config_of(Bundle(bundle).manifest).frames)
    elif played.stub is not None:
        raise InputError(f"bundle {bundle} is of family {family}; `stub` takes the place of Diffusion-VAS's networks.")
    clock = time.monotonic if played.real_time else SimulatedClock(timer)
    player = Player(played.objects, played.size, pictures=family != "diffusion-vas")
    process = psutil.Process()
    counters: dict[str, Callable[[], int]] = {"host": lambda: int(process.memory_info().rss)}
    if played.stub is None:
        counters |= {f"gpu_{name}": counter for name, counter in device_counters(execution).items()}
    log = Log(played.frames, played.deadline, counters)
    with _opened(bundle, execution, played, clock) as (stream, stub, executed):
        if isinstance(clock, SimulatedClock):
            _simulate(stream, clock, played, player, (log, stub, timer, progress))
        else:
            _play(stream, played, player, (log, stub, timer, progress))
    return {"settings": asdict(played), "executed": executed, **log.report(stub is not None)}


def _with_window(played: Played, frames: int) -> Played:
    """Returns it with the usual options of windows of several frames, and checks that one comes together."""
    if played.frames < frames:
        raise InputError(
            f"{played.seconds:g} s at {played.rate:g} frames a second are {played.frames} frames; expected at least "
            f"{frames}, a window's.",
            field="seconds",
        )
    usual: dict[str, Any] = {"every": 2, "lookahead": 2, "preset": "fast"}
    return replace(played, **{name: value for name, value in usual.items() if getattr(played, name) is None})


_Noting = tuple[Log, StubWindow | None, Callable[[], float], Progress]


@contextmanager
def _opened(
    bundle: str | Path, execution: Execution, played: Played, clock: Clock
) -> Iterator[tuple[Stream, StubWindow | None, dict[str, Any]]]:
    """Opens a stream over the bundle's networks, warmed up, or over the stub; and says what executes it."""
    options = {name: getattr(played, name) for name in ("every", "lookahead", "deadline")}
    options = {name: value for name, value in options.items() if value is not None}
    if played.stub is not None:
        wait = clock.move_on if isinstance(clock, SimulatedClock) else time.sleep
        config = config_of(Bundle(bundle).manifest)
        stub = StubWindow(config.frames, played.stub, wait)
        steps = tuple(PRESETS.values()) if played.preset == "auto" else (PRESETS[played.preset or "fast"],)
        given = StreamOptions(**options, steps=steps, gate=None, depth_kind="relative")
        with Stream(BlendedWindows(stub, config.frames, config.size, given), given, clock) as stream:
            yield stream, stub, {"backend": "stub"}
        return
    with load(bundle, **execution.options()) as model:
        if model.manifest.family == "diffusion-vas":
            options |= {"gate": None, "depth_kind": "relative"}
            model.warm_up(["segment"], from_rgb=False)
        else:
            model.warm_up()
        if played.preset is not None:
            options["preset"] = played.preset
        with model.stream(**options, clock=clock) as stream:
            yield stream, None, executed_of(model).model_dump()


def _simulate(stream: Stream, clock: SimulatedClock, played: Played, player: Player, noting: _Noting) -> None:
    """Plays on a simulated clock: frames that come while a window runs are handed in when it ends, with their stamps.

    That is what a thread of its own sees, since a window takes its frames when it begins.
    """
    log, stub, *_ = noting
    for number in range(played.frames):
        clock.wait_until(number / played.rate)
        _push(stream, number, player, number / played.rate, noting)
        while clock() < (number + 1) / played.rate:
            begin, waited = clock(), stub.waited if stub else 0.0
            with clock.computing():
                results = stream.poll()
            if not results:
                break
            log.window(results, clock(), clock() - begin, stub.waited - waited if stub else 0.0)


def _play(stream: Stream, played: Played, player: Player, noting: _Noting) -> None:
    """Plays on the wall clock; a second thread runs the windows, and what it raises is raised here."""
    log, stub, *_ = noting

    def work() -> None:
        while not stream.closed:
            waited = stub.waited if stub else 0.0
            if results := stream.poll(wait=0.5):
                waited = stub.waited - waited if stub else 0.0
                log.window(results, time.monotonic(), results[-1].seconds, waited)

    with ThreadPoolExecutor(1, "stream") as executor:
        working = executor.submit(work)
        try:
            start = time.monotonic()
            for number in range(played.frames):
                stamp = start + number / played.rate
                time.sleep(max(stamp - time.monotonic(), 0.0))
                if working.done():
                    break
                _push(stream, number, player, stamp, noting)
        finally:
            stream.close()
        working.result()


def _push(stream: Stream, number: int, player: Player, stamp: float, noting: _Noting) -> None:
    log, _, timer, progress = noting
    given = player[number]
    begin = timer()
    stream.push(*given, stamp)
    log.push(timer() - begin)
    if number % 100 == 0:
        progress("frames", "", number, log.frames)


def _quantiles(seconds: Any) -> dict[str, float] | None:
    """Returns the median, the 99th percentile and the maximum of samples; None without any."""
    if not len(seconds):
        return None
    median, high = np.percentile(seconds, [50, 99])
    return {"p50": float(median), "p99": float(high), "max": float(seconds.max())}
