"""Tests which backends execute on the GPU here, each on a small network of the default model.

    python -m amodal.engines.gpu_probe onnxruntime cuda

prints a report as one JSON object; without arguments, a report of all backends. Each backend runs in a separate
process, since a process can hold only one TensorRT, and a crash must not affect the others.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_args

import numpy as np

from amodal.runtime import backends
from amodal.runtime.backends.backend import import_library
from amodal.runtime.backends.gpu import cuda_version, find_gpu
from amodal.runtime.backends.onnxruntime.graph import run_graph
from amodal.runtime.builds.store import EngineBackend
from amodal.runtime.diagnosis import gpus
from amodal.runtime.errors import AmodalError, BackendError
from amodal.runtime.families import Bundle

from .compare import relative_l2
from .isolated import run_isolated

LIMIT = 180.0
"""Seconds allowed for one backend, including the compilation of an engine."""

TOLERANCE = 1e-2
"""Largest relative difference from the CPU's result: a check that the GPU computes the network, not of its accuracy."""

_COMPONENT, _CUPY, _USABLE = "vae_encoder", "cupy", "usable"  # it has convolutions, group norms and attention


def probe_gpu(limit: float = LIMIT) -> dict[str, Any]:
    """Reports what runs on the GPU of this machine, as plain data.

    Returns:
        `gpus` as the driver lists them; `cupy`: what CuPy finds, and whether it compiles a kernel; `backends`: one
        report for each, with `executes` and `reason`; `problem`: why nothing can be tried, or None.
    """
    listed, cupy = gpus(), _in_own_process([_CUPY], limit)
    report: dict[str, Any] = {"gpus": listed, "cupy": cupy, "backends": [], "problem": None}
    if not listed and not cupy["executes"]:
        report["problem"] = f"no GPU: nvidia-smi lists none, and CuPy says: {cupy['reason']}"
    else:
        report["backends"] = [_in_own_process([name, device or ""], limit) for name, device in backends.gpu_choices()]
    return report


def availabilities(limit: float = LIMIT) -> dict[str, backends.Availability]:
    """Asks each backend in a separate process whether it is available, since importing one may crash."""
    found = {name: _in_own_process([_USABLE, name], limit) for name in backends.names()}
    return {n: backends.Availability(r["executes"], r.get("detail", ""), r["reason"]) for n, r in found.items()}


def _in_own_process(arguments: list[str], limit: float) -> dict[str, Any]:
    ended = run_isolated([sys.executable, "-m", "amodal.engines.gpu_probe", *arguments], limit)
    found: dict[str, Any] = {"name": arguments[0], "executes": False, "reason": ended.trouble}
    report = next((line for line in reversed(ended.out.splitlines()) if line.startswith("{")), "{}")
    found |= json.loads(report)
    if not ended.ok:  # it may have crashed on its way out, after a good report
        found |= {"executes": False, "reason": found["reason"] or ended.trouble}
    return found | {"wall_seconds": round(ended.seconds, 2)}


def try_cupy() -> dict[str, Any]:
    """Reports whether CuPy finds a GPU and compiles a kernel for it (NVRTC); memory in bytes."""
    cupy = import_library("cupy", "cuda", "CuPy")
    gpu, runtime, seconds = find_gpu(cupy, "CuPy"), cupy.cuda.runtime, dict[str, float]()
    with cupy.cuda.Device(gpu.number):
        free, total = (int(n) for n in runtime.memGetInfo())
        with _timed(seconds, "first kernel"):
            works = bool((cupy.zeros(1) + 1).all())
    if not works:
        raise BackendError("CuPy's kernels give wrong results here.")
    return {
        "detail": f"CuPy {getattr(cupy, '__version__', '')}".strip(),
        "gpu": gpu.name,
        "capability": f"sm{gpu.capability}",
        "memory_free": free,
        "memory_total": total,
        "cuda_driver": cuda_version(int(runtime.driverGetVersion())),
        "cuda_runtime": cuda_version(int(runtime.runtimeGetVersion())),
        "seconds": seconds,
    }


def try_backend(name: str, device: str | None) -> dict[str, Any]:
    """Runs the default model's VAE encoder twice on a backend and compares the result with the CPU's.

    Raises:
        AmodalError: the backend cannot be used, its engine cannot be built, or the result is wrong.
    """
    found = backends.availability(name, device)
    if not found.usable:
        raise BackendError(found.reason)
    bundle, seconds = Bundle("default"), dict[str, float]()
    entry = bundle.component(_COMPONENT)
    # One that an engine takes, which a family names.
    ((name_in, (_, shape, _)),) = bundle.family.profiles(bundle.manifest, _COMPONENT)[0].shapes.items()
    inputs = {name_in: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
    with _files_of(bundle, name, seconds) as files:
        backend = backends.create(name, device=device)
        with backend.active():
            with _timed(seconds, "load"):
                executable = backend.load(entry, files)
            results = []
            for what in ("first run", "second run"):
                with _timed(seconds, what):
                    results.append(backend.to_host(next(iter(executable(inputs).values()))))
            executable.close()
        described = backend.describe()
    difference = relative_l2(results[1], next(iter(run_graph(bundle.files(_COMPONENT)[0], inputs, 1).values())))
    if difference > TOLERANCE:
        raise BackendError(f"the result of {name} differs from the CPU's by {difference:.2g}; expected {TOLERANCE:g}.")
    return {
        "detail": found.detail,
        "described": described,
        "difference": difference,
        "bit_equal": bool((results[0] == results[1]).all()),
        "seconds": seconds,
    }


@contextmanager
def _files_of(bundle: Bundle, name: str, seconds: dict[str, float]) -> Iterator[list[Path]]:
    """Yields the component's files for a backend; an engine is built for the GPU here and deleted afterwards."""
    if name not in get_args(EngineBackend):
        yield bundle.files(_COMPONENT)
        return
    from .build import BuildSettings, build_engines

    with tempfile.TemporaryDirectory() as folder:
        settings = BuildSettings(name, "this", (_COMPONENT,), engine_dir=folder)  # type: ignore[arg-type]
        with _timed(seconds, "build"):
            built = build_engines(bundle, settings)
        yield list(dict.fromkeys(one.file for one in built))


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    seconds[what] = round(time.perf_counter() - begin, 4)


def main(arguments: list[str]) -> None:
    """Prints the report of one backend run in this process, or of all."""
    if not arguments:
        print(json.dumps(probe_gpu()))
        return
    name, device = arguments[0], (arguments[1:] or [""])[0] or None
    try:
        if name == _USABLE:
            usable, detail, reason = backends.availability(str(device))
            report = {"executes": usable, "detail": detail, "reason": reason}
        else:
            report = {"executes": True, "reason": "", **(try_cupy() if name == _CUPY else try_backend(name, device))}
    except AmodalError as error:
        report = {"executes": False, "reason": str(error)}
    except Exception as error:  # noqa: BLE001 (whatever a driver raises is the report)
        report = {"executes": False, "reason": f"{type(error).__name__}: {error}"}
    print(json.dumps({"name": name, "device": device, **report}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
