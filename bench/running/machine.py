"""The context that a results file records: machine, versions, bundle, and how it was executed."""

from __future__ import annotations

import hashlib
import math
import platform
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from amodal import __version__
from amodal.runtime.cores import usable_cores
from amodal.runtime.errors import InputError
from amodal.runtime.families import Bundle
from amodal.runtime.model import Model

from ..schema import Executed, Gpu, Machine, Measurement, Results, Skipped, Subject, Work

_LIBRARIES = (
    *("numpy", "onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt_rtx", "tensorrt"),
    *("cupy-cuda13x", "cupy-cuda12x", "torch", "diffusers"),
)


def this_machine() -> Machine:
    """Describes this machine and its first GPU."""
    return Machine(
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        cpu=_cpu(),
        cores=usable_cores(),
        memory=psutil.virtual_memory().total,
        gpu=_gpu(),
    )


def _cpu() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    return platform.processor() or platform.machine()


def open_gpu(name: str = "0") -> tuple[Any, Any] | None:
    """Returns NVML and its handle of a GPU, given by index or UUID; None without the library, a driver or that GPU."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle_of = pynvml.nvmlDeviceGetHandleByIndex if name.isdigit() else pynvml.nvmlDeviceGetHandleByUUID
        return pynvml, handle_of(int(name) if name.isdigit() else name)
    except Exception:  # noqa: BLE001 (the library's own errors cannot be named without it)
        return None


def _gpu() -> Gpu | None:
    opened = open_gpu()
    if opened is None:
        return None
    nvml, handle = opened
    with suppress(nvml.NVMLError):
        major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
        cuda = nvml.nvmlSystemGetCudaDriverVersion_v2()
        return Gpu(
            name=nvml.nvmlDeviceGetName(handle),
            capability=f"sm{major}{minor}",
            memory=int(nvml.nvmlDeviceGetMemoryInfo(handle).total),
            driver=nvml.nvmlSystemGetDriverVersion(),
            cuda=f"{cuda // 1000}.{cuda % 1000 // 10}",
        )
    return None


def versions() -> dict[str, str]:
    """Returns the versions of amodal and of the installed libraries that execute."""
    found = {"amodal": __version__}
    for name in _LIBRARIES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def work_of(bundle: Bundle, stage: str | None = None, **settings: Any) -> Work:
    """Returns the work of a clip.

    Args:
        stage: a stage, `both`, or None for all stages of the bundle.
        **settings: other fields of `Work`; steps are 0 for a bundle without a network that steps repeat.

    Raises:
        InputError: guidance or churn is NaN or infinite.
    """
    for name in ("guidance", "churn"):
        value = settings.get(name, 0.0)
        if not math.isfinite(value):
            raise InputError(f"{name} {value} is not finite; expected a number (--{name}).")
    config = bundle.config
    stages = [name for name in bundle.manifest.tasks if stage in (None, "both", name)]
    depth = any("depth" in bundle.manifest.tasks[name].components for name in stages)
    if not any(entry.repeated for entry in bundle.manifest.components.values()):
        settings["steps"] = 0
    return Work(stages=stages, frames=config.frames, size=config.size, depth=depth, **settings)


def executed_of(model: Model) -> Executed:
    """Describes how a loaded model executes."""
    described = dict(model.backend.describe())
    return Executed(
        backend=described.pop("name"),
        version=described.pop("version"),
        device=described.pop("device", "cpu"),
        memory=model.memory,
        options=described,
    )


def results_of(
    bundle: Bundle, measurements: Iterable[Measurement], skipped: Iterable[Skipped] = (), finished: bool = True
) -> Results:
    """Returns the contents of a results file of this machine."""
    manifest, config = bundle.manifest, bundle.config
    entries = manifest.components.values()
    precisions = {entry.precision for entry in entries if entry.repeated} or {entry.precision for entry in entries}
    return Results(
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        versions=versions(),
        machine=this_machine(),
        bundle=Subject(
            name=bundle.path.name,
            manifest=hashlib.sha256((bundle.path / "manifest.json").read_bytes()).hexdigest(),
            stages=list(manifest.tasks),
            frames=config.frames,
            size=config.size,
            precision=", ".join(sorted(precisions)),
        ),
        measurements=list(measurements),
        skipped=list(skipped),
        finished=finished,
    )
