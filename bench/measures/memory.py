"""Memory over time while clips run, in a process of its own, and the plan's prediction beside it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from amodal.runtime.errors import InputError
from amodal.runtime.model import Model

from ..running.clips import Execution, running
from ..running.machine import executed_of
from ..running.memory import Sampler, device_counters, host_peak
from ..running.observed import TimedCall
from ..running.process import in_new_process
from ..schema import Memory, Span, Timeline, Work

_UNTOLD = (
    "the driver does not tell what this process takes on the GPU (as in containers and on WSL); "
    "the peak is the whole device's rise, which others may have caused."
)


def measure_memory(bundle: str | Path, work: Work, execution: Execution, *, clips: int = 3) -> Memory:
    """Runs clips in a new process whose memory is sampled from opening the bundle to the last result.

    Args:
        clips: how many; what later ones add to the second is growth.

    Raises:
        InputError: fewer than one clip, or a stage that the bundle does not have.
        AmodalError: it cannot be run like this.
    """
    if clips < 1:
        raise InputError(f"{clips} clips: expected 1 or more.", field="clips")
    return in_new_process(_measure, str(bundle), work, execution, clips)


def _measure(bundle: str, work: Work, execution: Execution, clips: int) -> Memory:
    process = psutil.Process()
    watched: dict[str, Callable[[], int]] = {"host": lambda: int(process.memory_info().rss)}
    watched |= device_counters(execution)
    before = watched["host"]()
    phases: list[tuple[str, float, float]] = []
    calls: list[TimedCall] = []
    ends: list[int] = []
    with Sampler(watched) as sampler:
        opening = time.perf_counter()
        with running(bundle, work, execution) as runner:
            phases.append(("open", opening, time.perf_counter()))
            for _ in range(clips):
                drawn = runner.clip()
                for stage, made in drawn.calls.items():
                    calls += [call._replace(what=f"{stage}/{call.what}") for call in made]
                ends.append(watched["host"]())
            executed, planned = executed_of(runner.model), _planned(runner.model)
            allocators = _allocators(runner.model)
    phases += _joined(calls)
    zero = sampler.times[0]
    told = [name for name in watched if name == "host" or (executed.device != "cpu" and any(sampler.bytes[name]))]
    timelines = {
        name: Timeline(seconds=[round(t - zero, 4) for t in sampler.times], bytes=sampler.bytes[name]) for name in told
    }
    return Memory(
        work=work,
        executed=executed,
        host=timelines.pop("host"),
        host_peak=host_peak(sampler.bytes["host"]),
        host_before=before,
        device=timelines,
        allocators=allocators,
        planned=planned,
        phases=[Span(name=name, begin=begin - zero, end=end - zero) for name, begin, end in phases],
        warnings=[*_growth(ends), *([] if executed.device == "cpu" or "process" in told else [_UNTOLD])],
    )


def _allocators(model: Model) -> dict[str, int]:
    """What CuPy's pool holds at the end: it keeps what it once had. None on the host."""
    with suppress(AttributeError):
        pool: Any = model.backend.xp.get_default_memory_pool()
        return {"cupy pool": int(pool.total_bytes())}
    return {}


def _planned(model: Model) -> dict[str, int]:
    """The plan's phases, each by the component that runs in it."""
    if model.plan is None:
        return {}
    found: dict[str, int] = {}
    for phase in model.plan.phases:
        name = f"{phase.task}/{model.bundle.component(phase.runs).kind}"
        found[name] = max(found.get(name, 0), phase.peak_bytes)
    return found


def _joined(calls: list[TimedCall]) -> Iterator[tuple[str, float, float]]:
    """Stretches of calls of the same thing: all steps of a U-Net are one."""
    begun: TimedCall | None = None
    for call in calls:
        if begun is not None and begun.what == call.what:
            begun = begun._replace(end=call.end)
            continue
        if begun is not None:
            yield begun.what, begun.begin, begun.end
        begun = call
    if begun is not None:
        yield begun.what, begun.begin, begun.end


def _growth(ends: list[int]) -> list[str]:
    """A sentence if memory after a clip goes on growing, the first one's caches aside."""
    grown = ends[-1] - ends[min(1, len(ends) - 1)]
    if grown <= max(0.02 * ends[-1], 4e6):
        return []
    return [f"memory grew by {grown / 1e6:.0f} MB from the second to the last of {len(ends)} clips."]
