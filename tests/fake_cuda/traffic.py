"""Bytes that a graph's operators read and write, weights included, if none are fused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from amodal.bench.roofline.flops import _VIEWS, _Tensors, read_graph

_BOUND_BY_ARITHMETIC = ("Attention", "Conv", "Gemm", "MatMul")


def bytes_moved(file: Path, sizes: Mapping[str, int]) -> Counter[str]:
    """Returns the bytes by operator, for the given sizes of free axes."""
    model = read_graph(file)
    tensors, moved = _Tensors(model, sizes), Counter[str]()
    for node in model.graph.node:
        if node.op_type not in _VIEWS and not tensors.is_constant(node):
            by_channel = node.op_type == "Conv" and tensors.shapes[node.input[1]][1] == 1
            kind = "Conv by channel" if by_channel else node.op_type
            moved[kind] += int(tensors.bytes([*node.input, *node.output]))
    return moved


def between_kernels(moved: Counter[str]) -> int:
    """The part of all bytes that is not of operators bound by arithmetic."""
    return sum(count for kind, count in moved.items() if kind not in _BOUND_BY_ARITHMETIC)
