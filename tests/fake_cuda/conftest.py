"""ONNX Runtime's real CUDA provider over a CUDA that computes nothing, on machines without a GPU.

The provider of the `onnxruntime-gpu` wheel assigns nodes, plans memory, and records and replays CUDA graphs as on a
GPU; only its kernels are idle. What runs where is seen, and launches, copies, waits, allocations and calls that are
illegal while recording are counted. Not seen are times, values, and the workspaces of cuDNN and cuBLAS.

`wheel.py` unpacks the wheel, `build.py` compiles the C files for the libraries that its provider imports, and
`measure.py` runs graphs with amodal's own backend in a process of its own: this one has ONNX Runtime for the CPU.
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from ..places import ROOT, STAND_IN

Measure = Callable[[Sequence[dict[str, Any]]], list[Any]]


@pytest.fixture(scope="session")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Measure:
    """A function that takes jobs of `measure.py` and returns what each measured."""
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        pytest.skip("the wheel of ONNX Runtime for CUDA is for Linux on x86-64")
    if missing := [tool for tool in ("cc", "readelf") if shutil.which(tool) is None]:
        pytest.skip(f"no {' or '.join(missing)} here to make stand-ins for CUDA's libraries with")
    from .build import build
    from .measure import Measured
    from .wheel import unpacked_wheel

    try:
        wheel = unpacked_wheel()
    except OSError as error:
        pytest.skip(str(error))
    libraries = build(
        wheel / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so", tmp_path_factory.mktemp("cuda")
    )
    paths = (wheel, STAND_IN, ROOT / "src", ROOT)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}

    def run(jobs: Sequence[dict[str, Any]]) -> list[Any]:
        command = [sys.executable, "-m", "tests.fake_cuda.measure", *map(str, libraries)]
        done = subprocess.run(command, input=json.dumps(list(jobs)), capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        return [Measured(**json.loads(line)) for line in done.stdout.splitlines()]

    return run
