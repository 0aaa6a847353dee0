"""Checks of written graphs: their structure, and their difference from the torch module on random input."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from amodal.engines.compare import relative_l2
from amodal.runtime.backends.onnxruntime.graph import run_graph
from amodal.runtime.backends.onnxruntime.kernels import find_kernels, fused_file
from amodal.runtime.errors import ExportError

from .fusing import write_fused
from .plan import ComponentPlan

_FREE_AXIS = 2
_SEED = 20250611


def check_structure(file: Path) -> None:
    """Infers every shape of a graph, without reading its weights, and compares those that are declared.

    Raises:
        ExportError: the graph contradicts itself.
    """
    try:
        onnx.checker.check_model(str(file), full_check=False)
        onnx.shape_inference.infer_shapes(
            onnx.load(file, load_external_data=False), check_type=True, strict_mode=True, data_prop=True
        )
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(f"the graph {file.name} is not valid: {reason}; please report it.") from error


def measure_differences(
    component: ComponentPlan, file: Path, twin: Path | None, weights: Mapping[str, ir.ExternalTensor]
) -> dict[str, float]:
    """Measures relative L2 differences from the torch module: of the `graph`, and of its `fused graph` if it can run.

    If the component's `check_size` differs from its `size`, temporary graphs of that size are compared instead, with
    the same weights.

    Args:
        twin: the graph's fused twin, if it has one; it runs only with the kernels.
        weights: where the graph's weights are stored.
    """
    graphs = {"graph": file}
    if twin is not None and find_kernels().library is not None:
        graphs["fused graph"] = twin
    if component.check_size == component.size:
        return _differences(component, graphs)
    small = file.with_name(f"check_{file.name}")
    try:
        component.write(component.check_size).save(small, shared=weights)
        fused = write_fused(small) if "fused graph" in graphs else None
        return _differences(component, {"graph": small} | ({"fused graph": fused} if fused is not None else {}))
    finally:
        for path in (small, fused_file(small), small.with_name(small.name + ".data")):
            path.unlink(missing_ok=True)


def _differences(component: ComponentPlan, graphs: Mapping[str, Path]) -> dict[str, float]:
    rng = np.random.default_rng(_SEED)
    random = {
        entry.name: rng.standard_normal([_FREE_AXIS if isinstance(n, str) else n for n in entry.shape], np.float32)
        for entry in component.write(component.check_size).inputs
    }
    inputs, expected = component.reference(random)
    differences = {}
    for name, graph in graphs.items():
        outputs = run_graph(graph, inputs)
        differences[name] = max(relative_l2(outputs[key], value.numpy()) for key, value in expected.items())
    return differences
