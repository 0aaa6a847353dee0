"""Graphs of the real size whose weights take neither time nor memory: holes in a sparse file."""

from __future__ import annotations

import math
from pathlib import Path

import onnx_ir as ir

from amodal.export.graph.writer import ALIGNMENT, Graph


def save_sparse(graph: Graph, file: Path) -> Path:
    """Saves a graph as `Graph.save` does, but with zeros for weights."""
    data, at = file.with_name(f"{file.name}.data"), 0
    for name, weight in graph._pending.items():
        size = math.prod(weight.shape) * int(weight.stored.itemsize)
        place = (data.name, at, size, weight.stored)
        weight.value.const_value = ir.ExternalTensor(
            *place, shape=ir.Shape(weight.shape), name=name, base_dir=file.parent
        )
        at += -(-size // ALIGNMENT) * ALIGNMENT
    with open(data, "wb") as out:
        out.truncate(at)
    ir.save(graph.model(), file)
    return file
