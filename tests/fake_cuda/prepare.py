"""Makes the stand-ins, and measures on them in a process of its own."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..places import ROOT, STAND_IN
from .build import build
from .measure import Measured
from .wheel import unpacked_wheel

Measure = Callable[[Sequence[dict[str, Any]]], list[Measured]]


def prepare(folder: Path) -> Measure:
    """Compiles the libraries into `folder`; returns a function that takes jobs of `measure.py`.

    Raises:
        OSError: that is not possible here.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise OSError("the wheel of ONNX Runtime for CUDA is for Linux on x86-64")
    if missing := [tool for tool in ("cc", "readelf") if shutil.which(tool) is None]:
        raise OSError(f"no {' or '.join(missing)} here to make stand-ins for CUDA's libraries with")
    wheel = unpacked_wheel()
    libraries = build(wheel / "onnxruntime" / "capi" / "libonnxruntime_providers_cuda.so", folder)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, (wheel, STAND_IN, ROOT / "src", ROOT)))}
    command = [sys.executable, "-m", "tests.fake_cuda.measure", *map(str, libraries)]

    def measure(jobs: Sequence[dict[str, Any]]) -> list[Measured]:
        done = subprocess.run(command, input=json.dumps(list(jobs)), capture_output=True, text=True, env=env)
        assert done.returncode == 0, done.stderr
        return [Measured(**json.loads(line)) for line in done.stdout.splitlines()]

    return measure
