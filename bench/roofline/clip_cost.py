"""What a run takes: the counts of `flops.py` over the calls that its family describes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache, reduce
from operator import add

import numpy as np

from amodal.runtime.execution.run import Run
from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.shape import RunShape
from amodal.runtime.model import Model

from ..schema import ComponentCost, Work
from .flops import Cost, count_graph, graph_of

Axes = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class ComponentCalls:
    """The calls of one component in one task.

    Attributes:
        name: task and kind, `segment/unet`.
        component: its key in the bundle.
        axes: sizes of the free axes -> how often it is called with them.
    """

    name: str
    component: str
    axes: Mapping[Axes, int]


def run_of(work: Work, model: Model | None = None) -> RunShape:
    """A clip's run: as a loaded model makes it, or None for engines, with both CFG rows in one call."""
    shape = RunShape(tuple(work.stages), work.depth, work.guidance > 1, work.steps, work.samples, cfg_rows="batched")
    if model is None:
        return shape
    on_gpu = model.backend.xp is not np
    if not on_gpu and model.memory == "resident" and model.backend.lanes > 1:
        return replace(shape, cfg_rows="separate", on_gpu=False)
    planned = None if model.plan is None else model.plan.run
    return replace(shape, on_gpu=on_gpu, cfg_rows=planned.cfg_rows if isinstance(planned, RunShape) else "batched")


def calls_of(bundle: Bundle, run: Run) -> Iterator[ComponentCalls]:
    """The calls that `amodal.runtime` makes in a run, by task and component, in the order of the first."""
    found: dict[tuple[str, str], Counter[Axes]] = {}
    for phase in bundle.family.calls(bundle.manifest, run).phases:
        for call in phase.calls:
            axes = tuple(sorted(call.axes.items()))
            found.setdefault((phase.task, call.component), Counter())[axes] += call.count
    for (task, component), counted in found.items():
        yield ComponentCalls(f"{task}/{bundle.component(component).kind}", component, counted)


def count_run(bundle: Bundle, run: Run) -> list[ComponentCost]:
    """Operations and bytes of a run by component; nothing is run, and no weight is read.

    Raises:
        MissingDependencyError: onnx is not installed.
        BundleError: a graph cannot be read, or its shapes cannot be told.
    """

    @cache
    def cost(component: str, axes: Axes) -> Cost:
        return count_graph(graph_of(bundle, component), dict(axes))

    costs = []
    for calls in calls_of(bundle, run):
        total = reduce(add, (cost(calls.component, axes) * times for axes, times in calls.axes.items()))
        costs.append(
            ComponentCost(
                component=calls.name,
                precision=bundle.component(calls.component).precision,
                calls=sum(calls.axes.values()),
                flops={str(kind): count for kind, count in total.flops.items()},
                weights=total.weights,
                activations=total.activations,
                boundary=total.boundary,
            )
        )
    return costs
