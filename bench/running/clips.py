"""Clips that are run and timed on a loaded bundle."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from amodal.runtime.errors import InputError
from amodal.runtime.families import Bundle
from amodal.runtime.loading import load
from amodal.runtime.memory.choice import MemoryWish, Vram
from amodal.runtime.model import Model

from ..families import clip_maker
from ..schema import ClipTimes, Work
from .timed import DeviceTimes, TimedBackend, TimedCall


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
        """Returns the keyword arguments of `amodal.load`."""
        return dict(vars(self))


@dataclass(frozen=True)
class ClipRun:
    """A clip that was run.

    Attributes:
        calls: of the components, by task.
        loading: seconds of loading components and checking their hashes; 0 once they are loaded.
    """

    times: ClipTimes
    calls: dict[str, list[TimedCall]]
    loading: float


class Runner:
    """Runs clips of `work` on a loaded model."""

    def __init__(self, model: Model, work: Work) -> None:
        self.model, self.work = model, work

    def clip(self, steps: int | None = None) -> ClipRun:
        """Runs a clip from raw arrays to masks and RGB on the host.

        Args:
            steps: None for the work's own.
        """
        model, work = self.model, self.work.model_copy(update={"steps": steps or self.work.steps})
        backend, components = cast(TimedBackend, model.backend), model.session.components
        calls: dict[str, list[TimedCall]] = {}
        loading = 0.0
        tasks = list(clip_maker(model.manifest.family).tasks_of(work, model))
        backend.clear()
        processor, begin = time.process_time(), time.perf_counter()
        for task, run in tasks:
            before = len(backend.calls)
            components.start_timing()
            run()
            calls[task] = backend.calls[before:]
            loading += components.timings.get("load", 0.0)
        seconds, processed = time.perf_counter() - begin, time.process_time() - processor
        return ClipRun(times_of(calls, seconds, processed, backend.device_times(calls)), calls, loading)


def require_stages(work: Work, bundle: str | Path) -> None:
    """Raises InputError if the work has no stage, because the bundle does not have the requested one."""
    if not work.stages:
        raise InputError(f"bundle {bundle} does not have the stage that was asked for; see `amodal inspect {bundle}`.")


@contextmanager
def running(bundle: str | Path, work: Work, execution: Execution) -> Iterator[Runner]:
    """Loads a bundle for running clips of `work`.

    Raises:
        InputError: the bundle does not have the requested stage.
        AmodalError: it cannot be loaded with this `execution`; see `amodal.load`.
    """
    require_stages(work, bundle)
    shape = clip_maker(Bundle(bundle).manifest.family).run_of(work).open_variant()
    with load(bundle, shape=shape, wrap=TimedBackend, **execution.options()) as model:
        yield Runner(model, work)


def times_of(
    calls: Mapping[str, Sequence[TimedCall]], seconds: float, processor: float, device: DeviceTimes | None
) -> ClipTimes:
    """Returns a clip's record.

    A step lasts from a call of the repeated component (the U-Net) to the next, and so contains the sampler's
    arithmetic; the last step ends with its call. Both rows of guidance are one call. On a GPU, steps are the device's.
    """
    components: dict[str, float] = {}
    steps: dict[str, list[float]] = {}
    for stage, made in calls.items():
        for call in made:
            name = f"{stage}/{'load' if call.what.startswith('load ') else call.what}"
            components[name] = components.get(name, 0.0) + call.seconds
        repeated = [call for call in made if call.repeated]
        ends = [call.begin for call in repeated[1:]] + [call.end for call in repeated[-1:]]
        steps[stage] = [end - call.begin for call, end in zip(repeated, ends, strict=True)]
    return ClipTimes(
        seconds=seconds,
        processor=processor,
        components=components,
        steps=steps if device is None else device.steps,
        device=None if device is None else device.components,
        gaps=None if device is None else device.gaps,
    )
