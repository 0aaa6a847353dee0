"""Measures how large half-precision tensors get: beyond 65504 they overflow where arithmetic really is in half.

ONNX Runtime's CPU provider widens all but norms to float32 and so hides overflows. They are measured in the twin.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .upcast import GraphSession, half_tensors, read_graph, upcast

HALF_MAX = 65504.0
LIMIT = 16000.0
"""Greatest value that leaves a factor of four below `HALF_MAX` for inputs other than those measured."""

# Operators that only move values; measuring their input is enough.
_MOVERS = frozenset(
    {"Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth", "Split"}
    | {"Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
_SUFFIX = "/greatest"


class Range(NamedTuple):
    """The greatest absolute value of a FLOAT16 tensor over all calls; infinite if even float32 overflows."""

    tensor: str
    node: str
    operator: str
    greatest: float

    @property
    def layer(self) -> str:
        """The node's layer, as the checkpoint names it."""
        return self.node.rpartition("/")[0]


def measure_ranges(file: Path, calls: Sequence[Mapping[str, Any]], threads: int = 0) -> list[Range]:
    """Measures the greatest absolute values of a graph's FLOAT16 tensors, the largest first; empty in float32.

    Values inside an operator may be larger: sums of a MatMul before rounding, scores of an ONNX Attention.

    Args:
        calls: inputs of the graph; at least one.

    Raises:
        MissingDependencyError: onnx or onnxruntime is not installed.
        BackendError: the graph cannot be run.
    """
    model = read_graph(file)
    tensors = [tensor for tensor in half_tensors(model) if tensor.operator not in _MOVERS]
    if not tensors:
        return []
    twin = _with_maxima(upcast(model), [tensor.name for tensor in tensors])
    session = GraphSession(twin.SerializeToString(), file.parent, file.stem, threads, optimise=False)
    found = [session(call) for call in calls]
    session.close()
    greatest = {tensor: np.max([out[tensor.name + _SUFFIX] for out in found]) for tensor in tensors}
    rows = [Range(*tensor, math.inf if np.isnan(value) else float(value)) for tensor, value in greatest.items()]
    return sorted(rows, key=lambda row: -row.greatest)


def over(ranges: Sequence[Range], limit: float = LIMIT) -> list[Range]:
    """Returns the ranges beyond a limit, or NaN."""
    return [row for row in ranges if not row.greatest <= limit]


def _with_maxima(twin: Any, names: Sequence[str]) -> Any:
    """Replaces the twin's outputs by one scalar per tensor, so that no tensor has to be kept until the end."""
    from onnx import TensorProto, helper

    graph = twin.graph
    del graph.output[:]
    for name in names:
        result = name + _SUFFIX
        graph.node.append(helper.make_node("Abs", [name], [f"{name}/abs"], name=f"{name}/Abs"))
        graph.node.append(helper.make_node("ReduceMax", [f"{name}/abs"], [result], name=result, keepdims=0))
        graph.output.append(helper.make_tensor_value_info(result, TensorProto.FLOAT, ()))
    return twin
