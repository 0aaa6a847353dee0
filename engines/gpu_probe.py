"""Which backends execute on the GPU here: each runs the smallest network of the default model, in a process of its own.

    python -m amodal.engines.gpu_probe onnxruntime cuda

prints one JSON object; without arguments, one of all backends. One process can hold one TensorRT, and what crashes in
one says nothing of the others.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import numpy as np

from amodal.runtime import backends
from amodal.runtime.backends.onnxruntime.graph import run_graph
from amodal.runtime.builds.store import EngineBackend
from amodal.runtime.diagnosis import gpus
from amodal.runtime.errors import AmodalError, BackendError
from amodal.runtime.families import Bundle
from amodal.runtime.progress import Progress, silent

from .compare import relative_l2
from .isolated import run_isolated

LIMIT = 180.0
"""Seconds that one backend may take, the compilation of an engine included."""

TOLERANCE = 1e-2
"""Largest relative difference to the CPU's result: it asks whether the GPU computes the network, not how finely."""

_COMPONENT, _CUPY, _USABLE = "image_encoder", "cupy", "usable"


def probe_gpu(limit: float = LIMIT, progress: Progress = silent) -> dict[str, Any]:
    """What runs on the GPU of this machine, as plain data.

    Returns:
        `gpus` as the driver lists them; `cupy`: what CuPy finds, and whether it compiles a kernel; `backends`: one
        report for each, with `executes` and `reason`; `problem`: why there is nothing to try, or None.
    """
    listed = gpus()
    progress("CuPy")
    cupy = _in_own_process([_CUPY], limit)
    report: dict[str, Any] = {"gpus": listed, "cupy": cupy, "backends": [], "problem": None}
    if not listed and not cupy["executes"]:
        report["problem"] = f"no GPU: nvidia-smi lists none, and CuPy says: {cupy['reason']}"
        return report
    for name, device in backends.gpu_choices():
        progress(name)
        report["backends"].append(_in_own_process([name, device or ""], limit))
    return report


def availabilities(limit: float = LIMIT) -> dict[str, backends.Availability]:
    """What `backends.availability` says of each backend, asked in a process of its own: importing one may crash."""
    found = {}
    for name in backends.names():
        said = _in_own_process([_USABLE, name], limit)
        found[name] = backends.Availability(said["executes"], said.get("detail", ""), said["reason"])
    return found


def _in_own_process(arguments: list[str], limit: float) -> dict[str, Any]:
    ended = run_isolated([sys.executable, "-m", "amodal.engines.gpu_probe", *arguments], limit)
    found: dict[str, Any] = {"name": arguments[0], "executes": False, "reason": ended.trouble}
    for line in reversed(ended.out.splitlines()):
        if line.startswith("{"):
            found |= json.loads(line)
            break
    if not ended.ok:  # it may have said that all is well, and then crashed on its way out
        found |= {"executes": False, "reason": found["reason"] or ended.trouble}
    return found | {"wall_seconds": round(ended.seconds, 2)}


def try_cupy() -> dict[str, Any]:
    """Whether CuPy finds a GPU and compiles a kernel for it (NVRTC); memory in bytes."""
    from amodal.runtime.backends.gpu import cuda_version, find_gpu

    try:
        cupy: Any = import_module(_CUPY)
    except Exception as error:  # what a broken installation raises is anything
        raise BackendError(
            f'CuPy cannot be imported ({error}); install it with `pip install "amodal[cuda]"`.'
        ) from error
    gpu = find_gpu(cupy, "CuPy")
    runtime = cupy.cuda.runtime
    with cupy.cuda.Device(gpu.number):
        free, total = (int(n) for n in runtime.memGetInfo())
        begin = time.perf_counter()
        works = bool((cupy.zeros(1) + 1).all())
        seconds = time.perf_counter() - begin
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
        "seconds": {"first kernel": round(seconds, 3)},
    }


def try_backend(name: str, device: str | None) -> dict[str, Any]:
    """Runs the default model's image encoder on a backend, twice, and holds the result against the CPU's.

    Raises:
        AmodalError: it cannot be used, its engine cannot be built, or the result is wrong.
    """
    found = backends.availability(name, device)
    if not found.usable:
        raise BackendError(found.reason)
    bundle, seconds = Bundle("default"), dict[str, float]()
    entry = bundle.component(_COMPONENT)
    shape = [2 if isinstance(n, str) else n for n in entry.inputs[0].shape]
    inputs = {entry.inputs[0].name: np.random.default_rng(0).standard_normal(shape).astype(np.float32)}
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
    """The component's files for a backend; an engine is built for the GPU here, and gone afterwards."""
    if name not in get_args(EngineBackend):
        yield bundle.files(_COMPONENT)
        return
    from .build import BuildSettings, build_engines

    with tempfile.TemporaryDirectory() as folder:
        settings = BuildSettings(name, "this", (_COMPONENT,), engine_dir=folder)  # type: ignore[arg-type]
        with _timed(seconds, "build"):
            (built,) = build_engines(bundle, settings)
        yield [built.file]


@contextmanager
def _timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    begin = time.perf_counter()
    yield
    seconds[what] = round(time.perf_counter() - begin, 4)


def main(arguments: list[str]) -> None:
    """One backend, in this process, or all, each in its own; prints the report."""
    if not arguments:
        print(json.dumps(probe_gpu()))
        return
    name, device = arguments[0], (arguments[1:] or [""])[0] or None
    try:
        if name == _USABLE:
            usable, detail, reason = backends.availability(str(device))
            print(json.dumps({"executes": usable, "detail": detail, "reason": reason}))
            return
        found = try_cupy() if name == _CUPY else try_backend(name, device)
        report = {"executes": True, "reason": "", **found}
    except AmodalError as error:
        report = {"executes": False, "reason": str(error)}
    except Exception as error:  # noqa: BLE001 (whatever a driver raises is what this is to find out)
        report = {"executes": False, "reason": f"{type(error).__name__}: {error}"}
    print(json.dumps({"name": name, "device": device, **report}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
