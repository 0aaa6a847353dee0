"""A bundle, loaded and observed, and clips to run on it: what all benchmarks of time and memory do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amodal.runtime.errors import InputError
from amodal.runtime.families import Bundle
from amodal.runtime.memory.choice import MemoryWish, Vram
from amodal.runtime.model import Model, load

from ..families import clip_maker
from ..schema import ClipTimes, Work
from .observed import Observed, Steps, TimedCall


@dataclass(frozen=True)
class Execution:
    """How to run a bundle; see `amodal.load`."""

    backend: str = "onnxruntime"
    device: str | None = None
    threads: int | None = None
    memory: MemoryWish = "resident"
    vram: Vram = None
    engine_dir: Path | None = None

    def options(self) -> dict[str, Any]:
        """As keyword arguments of `amodal.load`."""
        return dict(vars(self))


@dataclass(frozen=True)
class ClipRun:
    """What running one clip took.

    Attributes:
        calls: of the components, by task.
        loading: seconds of loading components, their hashes checked; none once they are loaded.
    """

    calls: dict[str, list[TimedCall]]
    seconds: float
    processor: float
    loading: float
    device: dict[str, float] | None
    steps: Steps | None = None


class Runner:
    """Runs clips of `work` on a loaded model.

    Attributes:
        observed: the backend, which notes calls.
    """

    def __init__(self, model: Model, observed: Observed, work: Work) -> None:
        self.model, self.observed, self.work = model, observed, work
        self._maker = clip_maker(model.manifest.family)

    def clip(self, steps: int | None = None) -> ClipRun:
        """From raw arrays to masks and RGB on the host.

        Args:
            steps: other than the work's, to warm up with.
        """
        observed, work = self.observed, self.work.model_copy(update={"steps": steps or self.work.steps})
        calls: dict[str, list[TimedCall]] = {}
        loading, components = 0.0, self.model.session.components
        tasks = list(self._maker.tasks_of(work, self.model))
        observed.clear()
        processor, begin = time.process_time(), time.perf_counter()
        for task, run in tasks:
            before = len(observed.calls)
            components.start_timing()
            run()
            calls[task] = observed.calls[before:]
            loading += components.timings.get("load", 0.0)
        seconds, processed = time.perf_counter() - begin, time.process_time() - processor
        return ClipRun(calls, seconds, processed, loading, observed.device_seconds(calls), observed.device_steps(calls))


@contextmanager
def running(bundle: str | Path, work: Work, execution: Execution) -> Iterator[Runner]:
    """A runner of `work`.

    Raises:
        InputError: the bundle has none of the stages.
        AmodalError: it cannot be loaded, or not like this; see `amodal.load`.
    """
    if not work.stages:
        raise InputError(f"bundle {bundle} does not have the stage that was asked for; see `amodal inspect {bundle}`.")
    kept: list[Observed] = []

    def wrap(backend: Any) -> Observed:
        kept.append(Observed(backend))
        return kept[-1]

    shape = clip_maker(Bundle(bundle).manifest.family).run_of(work).open_variant()
    with load(bundle, shape=shape, wrap=wrap, **execution.options()) as model:
        yield Runner(model, kept[-1], work)


def times_of(drawn: ClipRun) -> ClipTimes:
    """A clip's record.

    A step lasts from a call of the component that is repeated (a U-Net) to the next one's, and so has the sampler's
    arithmetic in it; the last one ends with its call. Both rows of guidance are one call. On a GPU this is the device's
    time.
    """
    components: dict[str, float] = {}
    steps: dict[str, list[float]] = {}
    for stage, calls in drawn.calls.items():
        for call in calls:
            what = "load" if call.what.startswith("load ") else call.what
            components[f"{stage}/{what}"] = components.get(f"{stage}/{what}", 0.0) + call.seconds
        steps[stage] = _steps([call for call in calls if call.repeated])
    return ClipTimes(
        seconds=drawn.seconds,
        processor=drawn.processor,
        components=components,
        steps=steps if drawn.steps is None else drawn.steps.whole,
        device=drawn.device,
        gaps=None if drawn.steps is None else drawn.steps.gaps,
    )


def _steps(calls: list[TimedCall]) -> list[float]:
    ends = [call.begin for call in calls[1:]] + [call.end for call in calls[-1:]]
    return [end - call.begin for call, end in zip(calls, ends, strict=True)]
