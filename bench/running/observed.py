"""A backend that notes when each of its components ran, for benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from amodal.runtime.backends import Backend, Executable
from amodal.runtime.backends.proxy import BackendProxy, Batches, Results
from amodal.runtime.bundle.manifest import ComponentEntry


class TimedCall(NamedTuple):
    """A component, or `load` and its name, from `begin` to `end`: seconds of `time.perf_counter`.

    Attributes:
        repeated: whether it is one step of many, as the manifest has it of the component.
    """

    what: str
    begin: float
    end: float
    repeated: bool = False

    @property
    def seconds(self) -> float:
        """How long it took."""
        return self.end - self.begin


class Steps(NamedTuple):
    """Seconds of denoising steps by task, and of the gaps between their calls of the component that is repeated."""

    whole: dict[str, list[float]]
    gaps: dict[str, list[float]]


class Observed(BackendProxy):
    """Runs on another backend and notes every call; see `amodal.runtime.backends.Backend`.

    Calls that run side by side (`map`) are one. On a GPU a call is over for the host when it is queued; what the device
    took is told by events on its stream, which `device_seconds` reads when the clip is done, so that nothing waits.

    Attributes:
        calls: since the last `clear`, in order.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self.calls: list[TimedCall] = []
        self._events: list[tuple[Any, Any]] = []

    def clear(self) -> None:
        """Forgets all calls."""
        self.calls, self._events = [], []

    def device_seconds(self, calls: Mapping[str, Sequence[TimedCall]]) -> dict[str, float] | None:
        """Seconds by `stage/component`, between events on the stream; waits for the last one. None without a GPU.

        Args:
            calls: of this clip, by stage, in the order in which they were noted.
        """
        if self.xp is np:
            return None
        found: dict[str, float] = {}
        for stage, made in self._timed(calls).items():
            for call, begin, end in made:
                name = f"{stage}/{call.what}"
                found[name] = found.get(name, 0.0) + self._between(begin, end)
        return found

    def device_steps(self, calls: Mapping[str, Sequence[TimedCall]]) -> Steps | None:
        """Seconds on the device of each call of a repeated component up to the next one's, and of the gaps, by stage.

        A gap is all that lies between two calls, what the device does there and what it waits for; there is one less of
        them. None without a GPU.
        """
        if self.xp is np:
            return None
        whole: dict[str, list[float]] = {}
        gaps: dict[str, list[float]] = {}
        for stage, made in self._timed(calls).items():
            rows = [(begin, end) for call, begin, end in made if call.repeated]
            inside = [self._between(begin, end) for begin, end in rows]
            gaps[stage] = [self._between(one[1], other[0]) for one, other in pairwise(rows)]
            whole[stage] = [x + gap for x, gap in zip(inside, [*gaps[stage], 0.0], strict=False)]
        return Steps(whole, gaps)

    def _timed(self, calls: Mapping[str, Sequence[TimedCall]]) -> dict[str, list[tuple[TimedCall, Any, Any]]]:
        """Each call that ran something, its first and last event."""
        events = iter(self._events)
        return {
            stage: [(call, *next(events)) for call in made if not call.what.startswith("load ")]
            for stage, made in calls.items()
        }

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
        return self._noting(entry.kind, run, entry.repeated)

    def _noting(self, what: str, run: Callable[[], Results], repeated: bool = False) -> Results:
        before = self._mark()
        begin = time.perf_counter()
        result = run()
        self.calls.append(TimedCall(what, begin, time.perf_counter(), repeated))
        if before is not None:
            self._events.append((before, self._mark()))
        return result

    def _mark(self) -> Any:
        return None if self.xp is np else self.xp.cuda.get_current_stream().record()


def cost_per_call(repeats: int = 20_000) -> float:
    """Seconds that noting one call takes on this machine's host, measured on calls that do nothing."""

    class Nothing:
        name, xp, lanes, engines = "nothing", np, 1, None

    observed = Observed(Nothing())  # type: ignore[arg-type]
    begin = time.perf_counter()
    for _ in range(repeats):
        observed._noting("nothing", list)
    return (time.perf_counter() - begin) / repeats
