"""A clip of any family: the trial of each task, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from amodal.runtime.execution.family import Trial
from amodal.runtime.execution.run import Run
from amodal.runtime.model import Model

from ..schema import Work


def run_of(work: Work, model: Model | None = None) -> Run:
    """See `amodal.bench.families.ClipMaker`."""
    return Run(tuple(work.stages))


def tasks_of(work: Work, model: Model) -> Iterator[tuple[str, Callable[[], object]]]:
    """See `amodal.bench.families.ClipMaker`."""
    for task in work.stages:
        yield (
            task,
            partial(model.bundle.family.tasks[task].trial, model.session, Trial(seed=work.seed, steps=work.steps)),
        )
