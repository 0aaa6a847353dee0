"""The clip that benchmarks run, family by family."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from typing import cast

from amodal.runtime.execution.family import Trial
from amodal.runtime.execution.run import Run
from amodal.runtime.model import Model

from ..schema import Work

_MODULES = {"diffusion-vas": "amodal.bench.families.diffusion_vas"}


class ClipMaker:
    """Makes the clips of a family: the trial of each task, unless a module of this package makes others."""

    def run_of(self, work: Work, model: Model | None = None) -> Run:
        """Returns a clip's run on a loaded model; with None, its run on engines."""
        return Run(tuple(work.stages))

    def tasks_of(self, work: Work, model: Model) -> Iterator[tuple[str, Callable[[], object]]]:
        """Yields the tasks of a clip in order, each with a function that runs it from raw arrays to host results."""
        trial = Trial(seed=work.seed, steps=work.steps)
        for task in work.stages:
            yield task, partial(model.bundle.family.tasks[task].trial, model.session, trial)


def clip_maker(family: str) -> ClipMaker:
    """Returns the clip maker of a family."""
    return cast(ClipMaker, import_module(_MODULES[family])) if family in _MODULES else ClipMaker()
