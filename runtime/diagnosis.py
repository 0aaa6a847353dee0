"""Reports what is installed and what can run here, for `amodal doctor`."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from amodal import __version__

from . import backends
from .backends.onnxruntime.library import installed_distributions, installed_version
from .cores import usable_cores

_PACKAGES = {
    "runtime": ("numpy", "opencv-python-headless", "pillow", "pycocotools", "pydantic", "click", "rich"),
    "cpu": ("onnxruntime",),
    "openvino": ("openvino",),
    "cuda": ("onnxruntime-gpu", "cupy-cuda13x", "cupy-cuda12x"),
    "rtx": ("tensorrt-rtx",),
    "tensorrt": ("tensorrt", "tensorrt-cu13"),
    "pycuda": ("pycuda",),
    "export": ("torch", "diffusers", "transformers", "safetensors", "huggingface-hub", "onnx", "onnxscript"),
}


def diagnose(found: Mapping[str, backends.Availability] | None = None) -> dict[str, Any]:
    """Collects versions, devices, backends and problems, as plain data. Imports only the backends' libraries.

    Args:
        found: availability by backend if already known; nothing is imported then.
    """
    if found is None:
        found = {name: backends.availability(name) for name in backends.names()}
    return {
        "amodal": __version__,
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "machine": {"cpu": _cpu_name(), "cores": usable_cores(), "memory_gb": _memory_gb()},
        "gpus": gpus(),
        "packages": {extra: {n: installed_version(n) for n in names} for extra, names in _PACKAGES.items()},
        "backends": {
            name: {"usable": a.usable, "detail": a.detail, "reason": a.reason or None} for name, a in found.items()
        },
        "problems": _problems(found),
    }


def _problems(found: Mapping[str, backends.Availability]) -> list[str]:
    problems = []
    if not any(state.usable for state in found.values()):
        reasons = "; ".join(state.reason.rstrip(".") for state in found.values())
        problems.append(f"no backend is usable: {reasons}.")
    distributions = installed_distributions()
    if len(distributions) > 1:
        names = [distribution.split()[0] for distribution in distributions]
        problems.append(
            f"{' and '.join(distributions)} are installed over each other, and removing one breaks the other: "
            f'`pip uninstall -y {" ".join(names)}`, then install one extra, "amodal[cpu]" or "amodal[cuda]".'
        )
    opencv = [n for n in ("opencv-python", "opencv-python-headless", "opencv-contrib-python") if installed_version(n)]
    if len(opencv) > 1:
        problems.append(f"{' and '.join(opencv)} are installed over each other: uninstall them, then install one.")
    return problems


def _cpu_name() -> str:
    with suppress(OSError, StopIteration), open("/proc/cpuinfo") as info:
        return next(line for line in info if line.startswith("model name")).partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gb() -> float | None:
    with suppress(ValueError, OSError, AttributeError):
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1)
    return None


def gpus(*more: str) -> list[dict[str, str]]:
    """Lists NVIDIA GPUs as `nvidia-smi` does, in PCI order and including hidden ones; empty without the tool.

    Args:
        more: further properties to query, as `nvidia-smi` names them.
    """
    query = ("name", "memory.total", "driver_version", "compute_cap", *more)
    command = ["nvidia-smi", f"--query-gpu={','.join(query)}", "--format=csv,noheader"]
    try:
        out = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    rows = (map(str.strip, line.split(",")) for line in out.splitlines() if line.strip())
    return [dict(zip(query, row, strict=False)) for row in rows]
