"""Running a graph, and holding what it gives against a reference: one way for export, verification and benchmarks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.backends.onnxruntime.kernels import find_kernels
from amodal.runtime.errors import BackendError, MissingDependencyError

TOLERANCES = {"fp32": 1e-5, "fp16": 5e-3}
"""Largest relative L2 difference between a graph and its torch module, by precision. The latter is the rounding of the
weights to half, through a whole U-Net, with room for the arithmetic's own."""


def relative_l2(candidate: Any, reference: Any) -> float:
    """||candidate - reference|| / ||reference|| in float64; infinite where the candidate is not finite.

    Raises:
        ValueError: the shapes differ.
    """
    a, b = np.asarray(candidate, np.float64), np.asarray(reference, np.float64)
    if a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} and {b.shape} cannot be compared")
    if not np.isfinite(a).all():
        return float("inf")
    norm = float(np.linalg.norm(b))
    return float(np.linalg.norm(a - b)) / norm if norm else float(np.linalg.norm(a))


def mask_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """Intersection over union of two masks of one shape, all frames together; 1 where both are empty."""
    union = np.count_nonzero(a | b)
    return float(np.count_nonzero(a & b) / union) if union else 1.0


def run_graph(file: Path, feeds: Mapping[str, NDArray[Any]], threads: int = 0) -> dict[str, NDArray[Any]]:
    """Runs a graph once in ONNX Runtime on the CPU, in little memory.

    Optimisation is off: weights stored in half precision are then widened one at a time instead of all at load.

    Args:
        file: the graph; a fused one (`amodal.runtime.backends.onnxruntime.kernels`) needs the kernels.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        BackendError: the graph cannot be loaded or run.
    """
    try:
        import onnxruntime as ort
    except ImportError as error:
        raise MissingDependencyError('comparing graphs needs onnxruntime; `pip install "amodal[cpu]"`.') from error
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False
    kernels = find_kernels()
    if kernels.library is not None:
        options.register_custom_ops_library(str(kernels.library))
    try:
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        values = session.run(names, dict(feeds))
    except Exception as error:
        raise BackendError(f"onnxruntime cannot run {file}: {str(error).splitlines()[0]}") from error
    return dict(zip(names, values, strict=True))
