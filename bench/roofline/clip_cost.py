"""Operations and bytes of a run: those of `flops.py`, over the calls that the family makes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from typing import NamedTuple

from amodal.engines.upcast import read_graph
from amodal.runtime.execution.run import Run
from amodal.runtime.families import Bundle

from ..schema import ComponentCost
from .flops import KINDS, Cost, count_graph

Axes = tuple[tuple[str, int], ...]


class ComponentCalls(NamedTuple):
    """The calls of one component in one task.

    Attributes:
        name: task and kind, `segment/unet`.
        component: key in the bundle.
        axes: number of calls by the sizes of the free axes.
    """

    name: str
    component: str
    axes: Mapping[Axes, int]


def calls_of(bundle: Bundle, run: Run) -> Iterator[ComponentCalls]:
    """Yields the calls of a run by task and component, in the order of the first calls."""
    found: dict[tuple[str, str], Counter[Axes]] = {}
    for phase in bundle.family.calls(bundle.manifest, run).phases:
        for call in phase.calls:
            axes = tuple(sorted(call.axes.items()))
            found.setdefault((phase.task, call.component), Counter())[axes] += call.count
    for (task, component), counted in found.items():
        yield ComponentCalls(f"{task}/{bundle.component(component).kind}", component, counted)


def count_run(bundle: Bundle, run: Run) -> list[ComponentCost]:
    """Counts the operations and bytes of a run by component; nothing is run, and no weight is read.

    Raises:
        MissingDependencyError: onnx is not installed.
        BundleError: a graph cannot be read, or its shapes cannot be inferred.
    """

    @cache
    def count(component: str, axes: Axes) -> Cost:
        return count_graph(read_graph(bundle.files(component)[0]), dict(axes))

    costs = []
    for name, component, axes in calls_of(bundle, run):
        flops = dict.fromkeys(KINDS, 0.0)
        weights = activations = boundary = 0.0
        for sizes, times in axes.items():
            cost = count(component, sizes)
            flops = {kind: flops[kind] + times * cost.flops[kind] for kind in KINDS}
            weights += times * cost.weights
            activations += times * cost.activations
            boundary += times * cost.boundary
        costs.append(
            ComponentCost(
                component=name,
                precision=bundle.component(component).precision,
                calls=sum(axes.values()),
                flops={str(kind): each for kind, each in flops.items()},
                weights=weights,
                activations=activations,
                boundary=boundary,
            )
        )
    return costs
