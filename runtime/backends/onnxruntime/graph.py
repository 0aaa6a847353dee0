"""Runs a single graph on the CPU, outside a model: for export, verification and studies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...bundle.manifest import ComponentEntry
from ...errors import BackendError, BackendUnavailableError, MissingDependencyError, first_line
from .kernels import find_kernels, fused_file
from .library import import_onnxruntime


def session_options(threads: int, *, optimise: bool) -> tuple[Any, Any]:
    """Returns the module onnxruntime and options for a session, with the kernels where they are.

    Args:
        optimise: ONNX Runtime's default; without, weights stored in half precision are widened one at a time instead
            of all at load, and memory is not kept.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
    """
    try:
        ort = import_onnxruntime()
    except BackendUnavailableError as error:
        raise MissingDependencyError('comparing graphs needs onnxruntime; `pip install "amodal[cpu]"`.') from error
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = optimise
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    kernels = find_kernels()
    if kernels.library is not None:
        options.register_custom_ops_library(str(kernels.library))
    return ort, options


def fastest_form(file: Path) -> Path:
    """Returns what the CPU backend loads: the fused twin of a graph, where it and the kernels are there, or `file`."""
    twin = fused_file(file)
    return twin if twin.is_file() and find_kernels().library is not None else file


def run_graph(file: Path, feeds: Mapping[str, NDArray[Any]], threads: int = 0) -> dict[str, NDArray[Any]]:
    """Runs a graph once in ONNX Runtime on the CPU, unoptimised to take little memory.

    Args:
        file: the graph; a fused one needs the kernels.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        BackendError: the graph cannot be loaded or run.
    """
    ort, options = session_options(threads, optimise=False)
    try:
        session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        values = session.run(names, dict(feeds))
    except Exception as error:
        raise BackendError(f"onnxruntime cannot run {file}: {first_line(error)}") from error
    return dict(zip(names, values, strict=True))


def describe_fused(entries: Iterable[ComponentEntry]) -> str:
    """Says how many graphs of a bundle have a fused twin, and which kernels run them here."""
    fused = [any(file.role == "fused" for file in entry.files) for entry in entries]
    if not any(fused):
        return "no graph is fused for them"
    return f"{sum(fused)} of {len(fused)} graphs are fused for them; {find_kernels()}"
