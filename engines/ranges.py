"""How large half-precision tensors get: past 65504 they are infinite, wherever arithmetic is really in half precision.

ONNX Runtime's CPU provider hides that but at norms (it widens the rest to float32), so it is measured in the twin.
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
"""Greatest value of a tensor that leaves half precision room for inputs other than those measured: a factor of four."""

# They only move values, so that their source says as much.
_MOVERS = frozenset(
    {"Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "SpaceToDepth", "Split"}
    | {"Squeeze", "Tile", "Transpose", "Unsqueeze"}
)
_SUFFIX = "/greatest"


class Range(NamedTuple):
    """The greatest absolute value of a FLOAT16 tensor, over all calls; infinite if it is beyond float32, too."""

    tensor: str
    node: str
    operator: str
    greatest: float

    @property
    def layer(self) -> str:
        """The layer that its node belongs to, as the checkpoint names it."""
        return self.node.rpartition("/")[0]


def measure_ranges(file: Path, calls: Sequence[Mapping[str, Any]], threads: int = 0) -> list[Range]:
    """The greatest absolute values of a graph's FLOAT16 tensors, the largest first; none for a graph in float32.

    Inside an operator there may be more: sums of a MatMul before they are rounded, scores of an ONNX Attention.

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
    twin = _reporting(upcast(model), [tensor.name for tensor in tensors])
    session = GraphSession(twin.SerializeToString(), file.parent, file.stem, threads, optimise=False)
    found = [session(call) for call in calls]
    session.close()
    greatest = {tensor: np.max([out[tensor.name + _SUFFIX] for out in found]) for tensor in tensors}
    rows = [Range(*tensor, math.inf if np.isnan(value) else float(value)) for tensor, value in greatest.items()]
    return sorted(rows, key=lambda row: -row.greatest)


def over(ranges: Sequence[Range], limit: float = LIMIT) -> list[Range]:
    """Those whose values go beyond a limit, or are not numbers."""
    return [row for row in ranges if not row.greatest <= limit]


def _reporting(twin: Any, names: Sequence[str]) -> Any:
    """The twin with one output per tensor, a scalar, instead of its own: none has to be kept until the end."""
    from onnx import TensorProto, helper

    graph = twin.graph
    del graph.output[:]
    for name in names:
        graph.node.append(helper.make_node("Abs", [name], [f"{name}/abs"], name=f"{name}/Abs"))
        graph.node.append(
            helper.make_node("ReduceMax", [f"{name}/abs"], [name + _SUFFIX], name=name + _SUFFIX, keepdims=0)
        )
        graph.output.append(helper.make_tensor_value_info(name + _SUFFIX, TensorProto.FLOAT, ()))
    return twin
