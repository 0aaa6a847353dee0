"""Greatest values of half-precision tensors, measured where they cannot overflow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from amodal.engines.ranges import HALF_MAX, LIMIT, Range, measure_ranges, over  # noqa: E402
from amodal.runtime.backends.onnxruntime.graph import run_graph  # noqa: E402

X = np.asarray([[300.0, -2.0], [1.0, 0.5]], np.float32)


def _node(kind: str, inputs: list[str], output: str, layer: str, **attributes: Any) -> Any:
    return helper.make_node(kind, inputs, [output], name=f"{layer}/{kind}_{output}", **attributes)


def _save(file: Path, half: bool = True) -> Path:
    """y = 0.01 (x x)^T w, through something that half precision cannot hold."""
    dtype, kind = (np.float16, TensorProto.FLOAT16) if half else (np.float32, TensorProto.FLOAT)
    weights = [
        numpy_helper.from_array(np.asarray(0.01, dtype), "small"),
        numpy_helper.from_array(np.asarray([[2, 0], [0, 1]], dtype), "w"),
    ]
    nodes = [
        _node("Cast", ["x"], "h", "entry", to=kind),
        _node("Mul", ["h", "h"], "square", "blocks.0.gate"),
        _node("Transpose", ["square"], "moved", "blocks.0.gate", perm=[1, 0]),
        _node("MatMul", ["moved", "w"], "mixed", "blocks.0.mix"),
        _node("Mul", ["mixed", "small"], "scaled", "blocks.1"),
        _node("Cast", ["scaled"], "y", "exit", to=TensorProto.FLOAT),
    ]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 2])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11), file)
    return file


def test_what_would_overflow_is_a_number_with_a_name(tmp_path: Path) -> None:
    file = _save(tmp_path / "small.onnx")
    rows = measure_ranges(file, [{"x": X}], 1)
    small = float(np.float16(0.01))
    assert [(row.tensor, row.layer, row.operator) for row in rows] == [
        ("mixed", "blocks.0.mix", "MatMul"),
        ("square", "blocks.0.gate", "Mul"),
        ("scaled", "blocks.1", "Mul"),
        ("h", "entry", "Cast"),
    ]
    assert [row.greatest for row in rows] == pytest.approx([180_000, 90_000, 180_000 * small, 300])
    assert [row.tensor for row in over(rows, HALF_MAX)] == ["mixed", "square"]
    # Why it is measured: the graph itself, run here, shows nothing of it.
    assert np.isfinite(run_graph(file, {"x": X}, 1)["y"]).all()


def test_the_greatest_of_all_calls_counts(tmp_path: Path) -> None:
    file = _save(tmp_path / "small.onnx")
    rows = measure_ranges(file, [{"x": X / 100}, {"x": -X}, {"x": X / 10}], 1)
    assert next(row.greatest for row in rows if row.tensor == "h") == 300
    assert next(row.greatest for row in rows if row.tensor == "square") == 90_000


def test_values_that_are_no_numbers_are_the_greatest(tmp_path: Path) -> None:
    file = _save(tmp_path / "small.onnx")
    rows = measure_ranges(file, [{"x": np.full((2, 2), 1e30, np.float32)}], 1)
    assert rows[0].greatest == np.inf
    assert {"square", "mixed"} <= {row.tensor for row in over(rows)}


def test_limits_are_exclusive_and_what_is_not_a_number_is_over() -> None:
    rows = [Range("a", "n/A", "Add", LIMIT), Range("b", "n/B", "Add", LIMIT + 1), Range("c", "n/C", "Add", np.inf)]
    assert [row.tensor for row in over(rows)] == ["b", "c"]


def test_a_float32_graph_has_no_half_tensors(tmp_path: Path) -> None:
    assert measure_ranges(_save(tmp_path / "single.onnx", half=False), [{"x": X}], 1) == []
