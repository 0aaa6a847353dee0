"""Seconds per clip: raw samples, by component and by denoising step, and what a cold start takes."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import get_args

from amodal.runtime.builds.store import EngineBackend
from amodal.runtime.errors import InputError
from amodal.runtime.families import Bundle
from amodal.runtime.memory.choice import MemoryRequest, plan_model
from amodal.runtime.progress import Progress, silent

from ..running.clips import Execution, running, times_of
from ..running.cold import cold_start
from ..running.machine import executed_of
from ..running.observed import cost_per_call
from ..running.quiet import Watchman
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
    """Runs clips one after the other on a loaded model, from raw arrays to results on the host.

    Reading results to the host ends each clip, so that on a GPU nothing is still queued when the clock is read.

    Args:
        repeats: clips that count. warm_up: clips before those, which load components and settle caches.
        cold: also start once in a new process.

    Raises:
        InputError: fewer than one clip, or a stage that the bundle does not have.
        AmodalError: it cannot be run like this.
    """
    if repeats < 1 or warm_up < 1:
        raise InputError(f"{repeats} clips after {warm_up}: expected 1 or more of both (`repeats`, `warm_up`).")
    watchman = Watchman()
    once: dict[str, float] = {}
    if cold:
        progress("cold start", "", 0, 1)
        once = cold_start(bundle, work, execution)
    with running(bundle, work, execution) as runner:
        for done in range(warm_up):
            progress("warm-up", "", done, warm_up)
            runner.clip()
        drawn, clips = [], []
        for done in range(repeats):
            progress("clips", "", done, repeats)
            drawn.append(runner.clip())
            clips.append(times_of(drawn[-1]))
        progress("clips", "", repeats, repeats)
        executed = executed_of(runner.model)
        if execution.backend in get_args(EngineBackend):
            once |= _build_seconds(runner.model.bundle, execution)
    calls = statistics.median(sum(map(len, clip.calls.values())) for clip in drawn)
    seconds = [clip.seconds for clip in clips]
    return Latency(
        work=work,
        executed=executed,
        cold=once,
        clips=clips,
        overhead=min(1.0, cost_per_call() * calls / statistics.median(seconds)),
        warnings=watchman.warnings(seconds),
    )


def _build_seconds(bundle: Bundle, execution: Execution) -> dict[str, float]:
    """What building the engines that are run took, by their records; nothing for graphs."""
    planned = plan_model(bundle, bundle.family, execution.backend, MemoryRequest(engine_dir=execution.engine_dir))
    if planned is None or planned.build is None:
        return {}
    return {"build": sum(record.seconds for record in planned.build.records.values())}
