"""A bundle, loaded and observed, and clips to run on it: what all benchmarks of time and memory do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.errors import InputError
from amodal.runtime.families.diffusion_vas.results import Completion, Segmentation
from amodal.runtime.families.diffusion_vas.shape import RunShape
from amodal.runtime.memory.choice import MemoryWish, Vram
from amodal.runtime.model import Model, load
from amodal.runtime.sampling.schedule import Churn
from amodal.runtime.scenes import make_scene
from amodal.runtime.scenes.scene import Scene

from ..schema import ClipTimes, Work
from .observed import Observed, Steps, TimedCall

SCENE = 8
"""Seed of the scene that is run: its object is hidden wholly for a while."""


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
    """What one clip gave: the stages that ran, and their calls."""

    segment: Segmentation | None
    complete: Completion | None
    calls: dict[str, list[TimedCall]]
    seconds: float
    processor: float
    device: dict[str, float] | None
    steps: Steps | None = None

    @property
    def loading(self) -> float:
        """Seconds of loading components, their hashes checked; none once they are loaded."""
        return sum(found.timings.get("load", 0.0) for found in (self.segment, self.complete) if found is not None)


class Runner:
    """Runs clips of `work` on a loaded model.

    Attributes:
        observed: the backend, which notes calls.
    """

    def __init__(self, model: Model, observed: Observed, work: Work) -> None:
        self.model, self.observed, self.work = model, observed, work
        self._settings: dict[str, Any] = {
            "guidance": (work.guidance, work.guidance),
            "churn": Churn(work.churn),
        }

    @cached_property
    def scene(self) -> Scene:
        """What is given to every clip."""
        return make_scene(SCENE, self.work.frames, self.work.size)

    def clip(self, steps: int | None = None) -> ClipRun:
        """From raw arrays to masks and RGB on the host.

        Args:
            steps: other than the work's, to warm up with.
        """
        scene, work, observed = self.scene, self.work, self.observed
        settings = {**self._settings, "steps": steps or work.steps}
        calls: dict[str, list[TimedCall]] = {}
        seen = whole = None
        observed.clear()
        processor, begin = time.process_time(), time.perf_counter()
        if "segment" in work.stages:
            given: dict[str, Any] = {"rgb": scene.frames} if work.depth else {"depth": scene.depth}
            seen = self.model.segment(scene.modal, seed=work.seed, samples=work.samples, **given, **settings)
            calls["segment"] = observed.calls[:]
        if "complete" in work.stages:
            before = len(observed.calls)
            masks: NDArray[np.bool_] = scene.amodal if seen is None else seen.masks
            seed = work.seed if seen is None else seen.noise
            # Networks alone, as peers have them: on the host propagation is a step of its own.
            whole = self.model.complete(scene.frames, scene.modal, masks, seed=seed, propagate=False, **settings)
            calls["complete"] = observed.calls[before:]
        seconds, processed = time.perf_counter() - begin, time.process_time() - processor
        return ClipRun(
            seen, whole, calls, seconds, processed, observed.device_seconds(calls), observed.device_steps(calls)
        )


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

    guided = work.guidance > 1
    shape = RunShape(tuple(work.stages), work.depth, guided, work.steps, work.samples)
    with load(bundle, shape=shape, wrap=wrap, **execution.options()) as model:
        yield Runner(model, kept[-1], work)


def times_of(drawn: ClipRun) -> ClipTimes:
    """A clip's record.

    A denoising step lasts from a call of the U-Net to the next one's, and so has the sampler's arithmetic in it; the
    last one ends with its call. Both rows of guidance are one call. On a GPU this is the device's time.
    """
    components: dict[str, float] = {}
    steps: dict[str, list[float]] = {}
    for stage, calls in drawn.calls.items():
        for call in calls:
            what = "load" if call.what.startswith("load ") else call.what
            components[f"{stage}/{what}"] = components.get(f"{stage}/{what}", 0.0) + call.seconds
        steps[stage] = _steps([call for call in calls if call.what == "unet"])
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
