"""Bytes that a graph's operators read and write, weights included, if none are fused."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import onnx
from onnx import TensorProto, helper, shape_inference

_VIEWS = ("Reshape", "Squeeze", "Unsqueeze", "Identity", "Shape")  # of memory that others wrote
BOUND_BY_ARITHMETIC = ("Attention", "Conv", "Gemm", "MatMul")


def bytes_moved(file: Path, sizes: Mapping[str, int]) -> Counter[str]:
    """Returns the bytes by operator, for the given sizes of free axes."""
    model = onnx.load(file, load_external_data=False)
    for value in (*model.graph.input, *model.graph.output):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param:
                axis.dim_value = sizes[axis.dim_param]
    graph = shape_inference.infer_shapes(model, data_prop=True).graph
    held = {weight.name: math.prod(weight.dims) * _itemsize(weight.data_type) for weight in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        held[value.name] = math.prod(axis.dim_value for axis in kind.shape.dim) * _itemsize(kind.elem_type)
    moved: Counter[str] = Counter()
    for node in graph.node:
        if node.op_type not in _VIEWS:
            moved[node.op_type] += sum(held[name] for name in (*node.input, *node.output) if name)
    return moved


def between_kernels(moved: Counter[str]) -> int:
    """The part of all bytes that is not of operators bound by arithmetic."""
    return sum(count for kind, count in moved.items() if kind not in BOUND_BY_ARITHMETIC)


def _itemsize(kind: int) -> int:
    return 0 if kind == TensorProto.STRING else helper.tensor_dtype_to_np_dtype(kind).itemsize
