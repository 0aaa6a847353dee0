"""The one comparison that export, verification and benchmarks use."""

import numpy as np
import pytest

from amodal.engines.compare import relative_l2
from amodal.runtime.backends.onnxruntime.graph import run_graph
from amodal.runtime.errors import BackendError


def test_the_difference_is_relative_to_the_reference() -> None:
    assert relative_l2([3.0, 4.0], [3.0, 3.0]) == pytest.approx(1 / np.sqrt(18))
    assert relative_l2([1.0], [1.0]) == 0


def test_nothing_finite_is_near_something_infinite() -> None:
    assert relative_l2([np.nan, 1.0], [1.0, 1.0]) == float("inf")
    assert relative_l2([np.inf], [1.0]) == float("inf")


def test_a_reference_of_zeros_gives_the_absolute_difference() -> None:
    assert relative_l2([3.0, 4.0], [0.0, 0.0]) == 5


def test_other_shapes_are_no_comparison() -> None:
    with pytest.raises(ValueError, match="cannot be compared"):
        relative_l2([1.0], [1.0, 2.0])


def test_a_file_that_is_no_graph_is_one_sentence(tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    with pytest.raises(BackendError, match=r"onnxruntime cannot run .*x\.onnx"):
        run_graph(tmp_path / "x.onnx", {})
