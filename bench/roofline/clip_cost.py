"""What a run takes: the counts of `flops.py` over the calls that its family describes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, reduce
from operator import add

from amodal.runtime.execution.run import Run
from amodal.runtime.families import Bundle

from ..schema import ComponentCost
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
