"""Floating-point operations and bytes of a run, counted from the ONNX graphs of its components.

A multiply-add is two operations. They are counted by kind of operator:

- `matmul`: MatMul and Gemm with weights.
- `attention`: products of two activations (the scores and the weighted sum of decomposed attention), and the same two
  products of the operator Attention.
- `convolution`: Conv and ConvTranspose; one with a single value per channel is a scaling, and counted as `other`.
- `other`: 1 per element for elementwise operators and biases; 5 per element for a softmax (maximum, difference,
  exponential, sum, quotient); 7 for a normalisation (mean, difference, square, sum, quotient, scale, shift); 2 per tap
  and element for interpolation. Operators that only move data have none.

Bytes are the memory traffic if every operator reads its inputs and writes its outputs once. Fusion can lower it to the
weights and the graph's own inputs and outputs. Tensors that depend only on weights count as weights, in the dtype in
which they are used, because a backend computes them once, when it loads the graph.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, get_args

from amodal.engines.upcast import read_graph
from amodal.runtime.errors import BundleError
from amodal.runtime.execution.run import Run
from amodal.runtime.families import Bundle

from ..schema import ComponentCost

Kind = Literal["matmul", "attention", "convolution", "other"]
KINDS: tuple[Kind, ...] = get_args(Kind)

_VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
_MOVES = frozenset(
    "Transpose Concat Split Slice Gather Expand Tile Pad Cast Where Constant DepthToSpace SpaceToDepth".split()  # noqa: SIM905
)
_PER_ELEMENT = {
    "Softmax": 5,
    **dict.fromkeys(("LayerNormalization", "GroupNormalization", "InstanceNormalization", "RMSNormalization"), 7),
}
_TAPS = {"nearest": 0, "linear": 2, "cubic": 4}
Axes = tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Cost:
    """Operations and bytes of one run of a graph.

    Attributes:
        flops: by `Kind`.
        weights: bytes of weights, each read once.
        activations: bytes read and written by all operators, weights apart.
        boundary: bytes of the graph's own inputs and outputs.
    """

    flops: dict[Kind, float]
    weights: float
    activations: float
    boundary: float

    @property
    def products(self) -> float:
        """Operations of matrix products and convolutions."""
        return sum(count for kind, count in self.flops.items() if kind != "other")


def calls_of(bundle: Bundle, run: Run) -> dict[tuple[str, str], Counter[Axes]]:
    """Counts the calls of a run by task and component, and by the sizes of the free axes, in the order of the calls."""
    found: dict[tuple[str, str], Counter[Axes]] = {}
    for phase in bundle.family.calls(bundle.manifest, run).phases:
        for call in phase.calls:
            found.setdefault((phase.task, call.component), Counter())[tuple(sorted(call.axes.items()))] += call.count
    return found


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
    for (task, component), calls in calls_of(bundle, run).items():
        flops = dict.fromkeys(KINDS, 0.0)
        weights = activations = boundary = 0.0
        for axes, times in calls.items():
            cost = count(component, axes)
            flops = {kind: flops[kind] + times * cost.flops[kind] for kind in KINDS}
            weights += times * cost.weights
            activations += times * cost.activations
            boundary += times * cost.boundary
        costs.append(
            ComponentCost(
                component=f"{task}/{bundle.component(component).kind}",
                precision=bundle.component(component).precision,
                calls=sum(calls.values()),
                flops={str(kind): each for kind, each in flops.items()},
                weights=weights,
                activations=activations,
                boundary=boundary,
            )
        )
    return costs


def count_graph(model: Any, axes: Mapping[str, int]) -> Cost:
    """Counts the operations and bytes of one run of an `onnx.ModelProto`; its weights need not be loaded.

    Args:
        axes: sizes of its free axes by name; may contain others.

    Raises:
        BundleError: an axis has no size, or shapes cannot be inferred.
    """
    tensors = _Tensors(model, axes)
    flops: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
    activations = 0.0
    weights: set[str] = set()
    for node in model.graph.node:
        if tensors.is_constant(node) or node.op_type in _VIEWS:
            continue
        for kind, count in _flops(node, tensors):
            flops[kind] += count
        read = set(filter(None, node.input))
        weights |= read & tensors.constant
        activations += tensors.bytes([*(read - tensors.constant), *node.output])
    boundary = tensors.bytes(value.name for value in (*model.graph.input, *model.graph.output))
    return Cost(flops, tensors.bytes(weights), activations, boundary)


def _flops(node: Any, tensors: _Tensors) -> Iterator[tuple[Kind, float]]:
    shapes = [tensors.shapes.get(name, ()) for name in node.input]
    out = math.prod(tensors.shapes[node.output[0]])
    match node.op_type:
        case "MatMul" | "Gemm":
            inner = shapes[0][-2 if tensors.attribute(node, "transA") else -1]
            weighted = any(name in tensors.constant for name in node.input[:2])
            yield "matmul" if weighted else "attention", 2.0 * out * inner
            yield "other", float(out * (len(node.input) > 2))
        case "Conv" | "ConvTranspose":
            each = math.prod(shapes[1][1:])
            turned = node.op_type == "ConvTranspose"
            yield "other" if each == 1 else "convolution", 2.0 * each * (math.prod(shapes[0]) if turned else out)
            yield "other", float(out * (len(node.input) > 2))
        case "Attention":
            yield "attention", _attention(node, shapes, tensors)
        case "Resize":
            mode = (tensors.attribute(node, "mode") or b"nearest").decode()
            scaled = sum(a != b for a, b in zip(shapes[0], tensors.shapes[node.output[0]], strict=True))
            yield "other", 2.0 * out * _TAPS[mode] ** scaled if _TAPS[mode] else 0.0
        case operator if operator not in _MOVES:
            yield "other", float(_PER_ELEMENT.get(operator, 1) * max(out, *map(math.prod, shapes)))


def _attention(node: Any, shapes: list[tuple[int, ...]], tensors: _Tensors) -> float:
    """Q K^T and the product with V; [B, heads, L, D], or [B, L, heads * D] with the heads as attributes."""
    query, key, value = shapes[:3]
    if len(query) == 4:
        batch, heads, length, width = query
        return 2.0 * batch * heads * length * key[2] * (width + value[3])
    heads, shared = (int(tensors.attribute(node, f"{which}_num_heads")) for which in ("q", "kv"))
    return 2.0 * query[0] * query[1] * key[1] * (query[2] + value[2] // shared * heads)


class _Tensors:
    """Shapes and bytes of all tensors in a graph, and which of them depend only on weights."""

    def __init__(self, model: Any, axes: Mapping[str, int]) -> None:
        graph = _inferred(model, axes).graph
        values = (*graph.value_info, *graph.input, *graph.output)
        typed = {value.name: value.type.tensor_type for value in values}
        self.shapes = {
            name: tuple(d.dim_value if d.HasField("dim_value") else -1 for d in tensor.shape.dim)
            for name, tensor in typed.items()
        }
        self._itemsize = {name: _itemsize(tensor.elem_type) for name, tensor in typed.items()}
        for weight in graph.initializer:
            self.shapes[weight.name] = tuple(weight.dims)
            self._itemsize[weight.name] = _itemsize(weight.data_type)
        self.constant = {weight.name for weight in graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Shape" or all(name in self.constant for name in node.input if name):
                self.constant.update(node.output)
        unknown = [n for node in model.graph.node for n in node.output if n and -1 in self.shapes.get(n, (-1,))]
        if unknown:
            raise BundleError(
                f"the shape of {unknown[0]} in graph {model.graph.name} cannot be inferred, so its operations cannot "
                "be counted; export the bundle again."
            )

    def is_constant(self, node: Any) -> bool:
        """Returns whether a node depends only on weights and shapes."""
        return all(name in self.constant for name in node.output if name)

    def bytes(self, names: Iterable[str]) -> float:
        """Returns the total bytes of tensors, without integers, which are shapes."""
        return float(sum(self._itemsize[name] * math.prod(self.shapes[name]) for name in names if name))

    @staticmethod
    def attribute(node: Any, name: str) -> Any:
        """Returns a node's integer or text attribute; None if it is missing."""
        return next((a.i or a.s or None for a in node.attribute if a.name == name), None)


def _itemsize(dtype: int) -> int:
    import onnx

    if dtype in (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.BOOL):
        return 0
    return int(onnx.helper.tensor_dtype_to_np_dtype(dtype).itemsize)


def _inferred(model: Any, axes: Mapping[str, int]) -> Any:
    """A copy of a graph with all shapes inferred."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    del graph.value_info[:]
    for value in graph.output:
        value.type.tensor_type.ClearField("shape")
    for value in graph.input:
        for axis in value.type.tensor_type.shape.dim:
            if not axis.HasField("dim_value"):
                if axis.dim_param not in axes:
                    raise BundleError(
                        f"graph {graph.name}: input {value.name} has a free axis {axis.dim_param or '?'} of unknown "
                        f"size; expected one of {', '.join(axes) or 'none'}."
                    )
                axis.dim_value = axes[axis.dim_param]
    for node in graph.node:
        # onnx 1.23's shape inference leaves GroupNormalization and all nodes after it without a type.
        if node.op_type == "GroupNormalization":
            node.op_type = "Identity"
            del node.input[1:], node.attribute[:]
    try:
        return onnx.shape_inference.infer_shapes(copy, strict_mode=True, data_prop=True)
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise BundleError(f"the shapes of {graph.name} cannot be inferred ({reason}); export it again.") from error
