"""A backend that records when each of its components ran."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeVar, cast

import numpy as np

from amodal.runtime.backends import Backend, Executable
from amodal.runtime.backends.proxy import BackendProxy, Batches, Results
from amodal.runtime.bundle.manifest import ComponentEntry

_T = TypeVar("_T")


class TimedCall(NamedTuple):
    """A call of a component, from `begin` to `end` in seconds of `time.perf_counter`.

    Attributes:
        what: the component's kind; `load KIND` where it was loaded.
        repeated: whether the component is called in each denoising step.
    """

    what: str
    begin: float
    end: float
    repeated: bool = False

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.end - self.begin


class DeviceTimes(NamedTuple):
    """Seconds on a GPU, between events on its stream; `components` by `stage/component`, the others by stage.

    A step lasts from the start of a call of the repeated component to that of the next; the last one ends with its
    call. A gap lasts from the end of such a call to the start of the next: the sampler's own kernels, or waiting.
    """

    components: dict[str, float]
    steps: dict[str, list[float]]
    gaps: dict[str, list[float]]


class TimedBackend(BackendProxy):
    """Runs on another backend and records each call; calls that run side by side (`map`) count as one.

    On a GPU, the host's call returns when the work is queued. `device_times` therefore reads events on the stream,
    after the clip, so that recording makes nothing wait.

    Attributes:
        calls: since the last `clear`, in order.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.calls: list[TimedCall] = []
        self._events: list[tuple[Any, Any]] = []

    def clear(self) -> None:
        """Removes all recorded calls."""
        self.calls, self._events = [], []

    def device_times(self, calls: Mapping[str, Sequence[TimedCall]]) -> DeviceTimes | None:
        """Reads the times on the device; waits until the last call has ended. None without a GPU.

        Args:
            calls: all calls since the last `clear`, by stage, in their order.
        """
        if self.xp is np:
            return None
        times, events = DeviceTimes({}, {}, {}), iter(self._events)
        for stage, made in calls.items():
            rows = [(call, *next(events)) for call in made if not call.what.startswith("load ")]
            for call, begin, end in rows:
                name = f"{stage}/{call.what}"
                times.components[name] = times.components.get(name, 0.0) + self._between(begin, end)
            repeated = [(begin, end) for call, begin, end in rows if call.repeated]
            gaps = [self._between(one[1], other[0]) for one, other in pairwise(repeated)]
            times.gaps[stage] = gaps
            inside = (self._between(begin, end) for begin, end in repeated)
            times.steps[stage] = [seconds + gap for seconds, gap in zip(inside, [*gaps, 0.0], strict=False)]
        return times

    def _between(self, begin: Any, end: Any) -> float:
        end.synchronize()
        return float(self.xp.cuda.get_elapsed_time(begin, end)) / 1e3

    def load(self, entry: ComponentEntry, files: list[Path], lanes: int = 1) -> Executable:
        """See `Backend.load`."""
        begin = time.perf_counter()
        executable = super().load(entry, files, lanes)
        self.calls.append(TimedCall(f"load {entry.kind}", begin, time.perf_counter()))
        return executable

    def around(self, entry: ComponentEntry, files: list[Path], batches: Batches, run: Callable[[], Results]) -> Results:
        """See `BackendProxy.around`."""
        return self.timed(entry.kind, run, entry.repeated)

    def timed(self, what: str, run: Callable[[], _T], repeated: bool = False) -> _T:
        """Calls `run` and records when it ran."""
        before = self._event()
        begin = time.perf_counter()
        result = run()
        self.calls.append(TimedCall(what, begin, time.perf_counter(), repeated))
        if before is not None:
            self._events.append((before, self._event()))
        return result

    def _event(self) -> Any:
        return None if self.xp is np else self.xp.cuda.get_current_stream().record()


def cost_per_call(repeats: int = 20_000) -> float:
    """Measures the seconds that recording one call takes on the host."""
    backend = TimedBackend(cast(Backend, SimpleNamespace(name="nothing", xp=np, lanes=1, engines=None, on_gpu=False)))
    begin = time.perf_counter()
    for _ in range(repeats):
        backend.timed("nothing", lambda: None)
    return (time.perf_counter() - begin) / repeats
