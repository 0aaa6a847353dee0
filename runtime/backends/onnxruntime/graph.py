"""Running one graph by itself on the CPU, outside a model: for export, verification and studies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...bundle.manifest import ComponentEntry
from ...errors import BackendError, MissingDependencyError, first_line
from .kernels import FUSED, find_kernels


def run_graph(file: Path, feeds: Mapping[str, NDArray[Any]], threads: int = 0) -> dict[str, NDArray[Any]]:
    """Runs a graph once in ONNX Runtime on the CPU, in little memory.

    Optimisation is off: weights stored in half precision are then widened one at a time instead of all at load.

    Args:
        file: the graph; a fused one needs the kernels.

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
        raise BackendError(f"onnxruntime cannot run {file}: {first_line(error)}") from error
    return dict(zip(names, values, strict=True))


def describe_fused(entries: Iterable[ComponentEntry]) -> str:
    """How many graphs of a bundle have a fused twin, and the kernels that would run it here."""
    fused = [any(file.path.endswith(FUSED) for file in entry.files) for entry in entries]
    if not any(fused):
        return "no graph is fused for them"
    return f"{sum(fused)} of {len(fused)} graphs are fused for them; {find_kernels()}"
