"""ONNX Runtime's real CUDA provider over a CUDA that computes nothing, on machines without a GPU.

The provider of the `onnxruntime-gpu` wheel assigns nodes, plans memory, and records and replays CUDA graphs as on a
GPU; only its kernels are idle. What runs where is seen, and launches, copies, waits, allocations and calls that are
illegal while recording are counted. Not seen are times, values, and the workspaces of cuDNN and cuBLAS.

`wheel.py` unpacks the wheel, `build.py` compiles the C files for the libraries that its provider imports, and
`measure.py` runs graphs with amodal's own backend in a process of its own: this one has ONNX Runtime for the CPU.
"""

from __future__ import annotations

import pytest

from .prepare import Measure, prepare


@pytest.fixture(scope="session")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Measure:
    """A function that takes jobs of `measure.py` and returns what each measured; skips where that is not possible."""
    try:
        return prepare(tmp_path_factory.mktemp("cuda"))
    except OSError as error:
        pytest.skip(str(error))
