"""Memory over time while clips run in a new process, beside the plan's prediction."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from itertools import groupby
from pathlib import Path
from typing import Any

import psutil

from amodal.runtime.errors import InputError
from amodal.runtime.model import Model

from ..running.clips import Execution, running
from ..running.machine import executed_of
from ..running.memory import Sampler, device_counters, host_peak
from ..running.process import in_new_process
from ..running.timed import TimedCall
from ..schema import Memory, Span, Timeline, Work

_UNKNOWN = (
    "the driver does not report this process's GPU memory (as in containers and on WSL); "
    "the peak is the whole device's rise, to which other programs may have contributed."
)


def measure_memory(bundle: str | Path, work: Work, execution: Execution, *, clips: int = 3) -> Memory:
    """Runs clips in a new process and samples its memory from opening the bundle to the last result.

    Args:
        clips: number of clips; memory that grows after the second is reported as a warning.

    Raises:
        InputError: fewer than one clip, or the bundle does not have the stage.
        AmodalError: the bundle cannot be run with this `execution`.
    """
    if clips < 1:
        raise InputError(f"{clips} clips: expected 1 or more.", field="clips")
    return in_new_process(_measure, str(bundle), work, execution, clips)


def _measure(bundle: str, work: Work, execution: Execution, clips: int) -> Memory:
    process = psutil.Process()
    counters: dict[str, Callable[[], int]] = {"host": lambda: int(process.memory_info().rss)}
    counters |= device_counters(execution)
    before = counters["host"]()
    calls: list[TimedCall] = []
    ends: list[int] = []
    with Sampler(counters) as sampler:
        opening = time.perf_counter()
        with running(bundle, work, execution) as runner:
            calls.append(TimedCall("open", opening, time.perf_counter()))
            for _ in range(clips):
                for stage, made in runner.clip().calls.items():
                    calls += [call._replace(what=f"{stage}/{call.what}") for call in made]
                ends.append(counters["host"]())
            executed, planned = executed_of(runner.model), _planned(runner.model)
            allocators = _allocators(runner.model)
    zero, on_cpu = sampler.times[0], executed.device == "cpu"
    timelines = {
        name: Timeline(seconds=[round(t - zero, 4) for t in sampler.times], bytes=samples)
        for name, samples in sampler.bytes.items()
        if name == "host" or (not on_cpu and any(samples))
    }
    return Memory(
        work=work,
        executed=executed,
        host=timelines.pop("host"),
        host_peak=host_peak(max(sampler.bytes["host"])),
        host_before=before,
        device=timelines,
        allocators=allocators,
        planned=planned,
        phases=[Span(name=call.what, begin=call.begin - zero, end=call.end - zero) for call in _joined(calls)],
        warnings=[*_growth(ends), *([] if on_cpu or "process" in timelines else [_UNKNOWN])],
    )


def _allocators(model: Model) -> dict[str, int]:
    """Size of CuPy's pool, which never shrinks; empty on the host."""
    with suppress(AttributeError):
        pool: Any = model.backend.xp.get_default_memory_pool()
        return {"cupy pool": int(pool.total_bytes())}
    return {}


def _planned(model: Model) -> dict[str, int]:
    """The peaks of the plan's phases, by the component that runs."""
    found: dict[str, int] = {}
    for phase in model.plan.phases if model.plan is not None else ():
        name = f"{phase.task}/{model.bundle.component(phase.runs).kind}"
        found[name] = max(found.get(name, 0), phase.peak_bytes)
    return found


def _joined(calls: list[TimedCall]) -> list[TimedCall]:
    """Joins calls of the same component that follow each other, such as the steps of a U-Net."""
    groups = (list(group) for _, group in groupby(calls, lambda call: call.what))
    return [group[0]._replace(end=group[-1].end) for group in groups]


def _growth(ends: list[int]) -> list[str]:
    """A warning if memory grows from the second clip on; the first one fills caches."""
    grown = ends[-1] - ends[min(1, len(ends) - 1)]
    if grown <= max(0.02 * ends[-1], 4e6):
        return []
    return [f"memory grew by {grown / 1e6:.0f} MB from the second to the last of {len(ends)} clips."]
