"""The toy family's export: two small torch modules with seeded weights, and the graphs that compute the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import nn

from amodal.export.bundle import export_bundle
from amodal.export.graph.layers import conv, silu
from amodal.export.graph.variants import VARIANTS
from amodal.export.graph.weights import random_weights
from amodal.export.graph.writer import Dtypes, Graph
from amodal.export.plan import Arrays, ComponentPlan, ExportPlan, Size
from amodal.runtime.bundle.manifest import TaskEntry

FRAMES, SIZE, AT_ONCE, CHANNELS = 5, (16, 32), 2, 4
_LAYERS = {"look": (3, CHANNELS, "pictures", "features"), "decide": (CHANNELS, 1, "features", "scores")}


def export_toy(folder: Path, family: str, precision: Any = "fp32") -> Path:
    """Writes a bundle of the toy family, checked against torch."""
    components = tuple(_component(role, precision) for role in _LAYERS)
    config = {"frames": FRAMES, "height": SIZE[0], "width": SIZE[1], "at_once": AT_ONCE}
    tasks = {"outline": TaskEntry(components={role: role for role in _LAYERS}, source="seed 7")}
    export_bundle(folder, ExportPlan(family, config, tasks, components, VARIANTS["cpu"], precision))
    return folder


def _component(role: str, precision: Any) -> ComponentPlan:
    before, after, given, wanted = _LAYERS[role]
    module = nn.Sequential()
    module.add_module("inner", nn.Conv2d(before, before, 3, padding=1))
    module.add_module("outer", nn.Conv2d(before, after, 3, padding=1))
    weights, dtypes = random_weights(module, 7), Dtypes.of(precision)

    def write(size: Size) -> Graph:
        g = Graph(role, weights, dtypes.compute, dtypes.stored)
        x = g.input(given, ("pictures", before, *size))
        g.output(wanted, conv(g, silu(g, conv(g, x, "inner")), "outer"), ("pictures", after, *size))
        return g

    def reference(random: Arrays) -> tuple[Arrays, dict[str, torch.Tensor]]:
        module.load_state_dict({name: weights.load(name).float() for name in weights})
        with torch.no_grad():
            x = nn.functional.silu(module.get_submodule("inner")(torch.from_numpy(random[given])))
            return random, {wanted: module.get_submodule("outer")(x)}

    return ComponentPlan(role, role, precision, "seed 7", write, SIZE, SIZE, reference)
