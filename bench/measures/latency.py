"""Seconds per clip: raw samples, by component and by denoising step, and of a cold start."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import get_args

from amodal.runtime.builds.store import EngineBackend
from amodal.runtime.errors import InputError
from amodal.runtime.families import Bundle
from amodal.runtime.memory.choice import MemoryRequest, plan_model
from amodal.runtime.progress import Progress, silent

from ..running.clips import Execution, running
from ..running.cold import cold_start
from ..running.machine import executed_of
from ..running.quiet import MachineMonitor
from ..running.timed import cost_per_call
from ..schema import Latency, Work


def measure_latency(
    bundle: str | Path,
    work: Work,
    execution: Execution,
    *,
    repeats: int = 10,
    warm_up: int = 2,
    cold: bool = True,
    progress: Progress = silent,
) -> Latency:
    """Times clips on a loaded model, from raw arrays to results on the host.

    Each clip ends when its results are on the host, so that on a GPU no work is still queued when the clock is read.

    Args:
        repeats: clips that count. warm_up: clips before those, which load components and fill caches.
        cold: also measure a cold start in a new process.

    Raises:
        InputError: `repeats` or `warm_up` is less than 1, or the bundle does not have the stage.
        AmodalError: the bundle cannot be run with this `execution`.
    """
    if repeats < 1 or warm_up < 1:
        raise InputError(f"{repeats} clips after {warm_up}: expected 1 or more of both (`repeats`, `warm_up`).")
    monitor = MachineMonitor()
    once: dict[str, float] = {}
    if cold:
        progress("cold start", "", 0, 1)
        once = cold_start(bundle, work, execution)
    with running(bundle, work, execution) as runner:
        for phase, count in (("warm-up", warm_up), ("clips", repeats)):
            runs = []
            for done in range(count):
                progress(phase, "", done, count)
                runs.append(runner.clip())
        progress("clips", "", repeats, repeats)
        executed = executed_of(runner.model)
        if execution.backend in get_args(EngineBackend):
            once |= _build_seconds(runner.model.bundle, execution)
    calls = statistics.median(sum(map(len, run.calls.values())) for run in runs)
    seconds = [run.times.seconds for run in runs]
    return Latency(
        work=work,
        executed=executed,
        cold=once,
        clips=[run.times for run in runs],
        overhead=min(1.0, cost_per_call() * calls / statistics.median(seconds)),
        warnings=monitor.warnings(seconds),
    )


def _build_seconds(bundle: Bundle, execution: Execution) -> dict[str, float]:
    """Seconds in which the engines were built, by their records; empty if graphs are run."""
    planned = plan_model(bundle, bundle.family, execution.backend, MemoryRequest(engine_dir=execution.engine_dir))
    if planned is None or planned.build is None:
        return {}
    return {"build": sum(record.seconds for record in planned.build.records.values())}
