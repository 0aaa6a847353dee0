"""Between a graph's half precision and the parts of it that need float32; nothing in a graph that is float32 anyway."""

from __future__ import annotations

import onnx_ir as ir

from ...graph.writer import FLOAT, Graph


def widened(g: Graph, x: ir.Value) -> ir.Value:
    """Returns a value of the compute dtype in float32."""
    return x if g.compute == FLOAT else g.op("Cast", x, to=FLOAT)


def narrowed(g: Graph, x: ir.Value) -> ir.Value:
    """Returns a float32 value in the compute dtype."""
    return x if g.compute == FLOAT else g.op("Cast", x, to=g.compute)
