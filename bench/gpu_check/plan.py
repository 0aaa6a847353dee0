"""The steps of a GPU check, in order of importance."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .steps import Step, StepState

TESTS = Path(__file__).resolve().parents[2] / "tests" / "gpu"
BACKEND = "AMODAL_GPU_BACKEND"
"""Names the backend that the tests marked `gpu` run. Each backend gets a process: one can load only one TensorRT."""

WEIGHTS = "weights.json"
"""In a bundle without weights, their list; see `weights.py`."""

_AMODAL = (sys.executable, "-m", "amodal")
_EXPORT = "--random diffusion-vas --random-depth none --size 256x512 --frames 25 --check none"
_BENCHMARKS = (  # command, time limit in seconds, options with the backend's name filled in
    ("latency", 120, "--backend {} --repeats 5 --warm-up 2 --no-cold"),
    ("peers", 300, "--peer diffusers --peer compile --peer {} --repeats 3"),
    ("memory", 90, "--backend {} --clips 2"),
    ("roofline", 120, "--backend {} --clips 1"),
)
_ORDER = ("probe", "tests", "export", "build", *(name for name, *_ in _BENCHMARKS), "options")


@dataclass(frozen=True)
class CheckOptions:
    """Options of a check.

    Attributes:
        folder: for bundle, engines and results.
        bundle: to run; None to export the real architecture with random weights.
        quick: use the default bundle and few steps, to see that everything works rather than how fast it is.
        stage: for a machine that is lent for minutes: `a` needs torch and CuPy alone, `b` ONNX Runtime too; None for
            everything. The bundle may then be one without weights (`weights.py`).
    """

    folder: Path
    bundle: str | None = None
    quick: bool = False
    stage: Literal["a", "b"] | None = None


def plan(options: CheckOptions, states: Mapping[str, StepState]) -> list[Step]:
    """Returns the steps known so far: those of a stage, or the probe and the steps of each backend that it found."""
    if options.stage is not None:
        return _SHORT[options.stage](options)
    # A probe that found no working backend is not reused: the user may have repaired the machine since.
    command = (sys.executable, "-m", "amodal.engines.gpu_probe")
    probe = Step("probe", command, 240, reusable=lambda output: bool(_working(output)))
    steps = [probe]
    for row in _working(states["probe"].output if "probe" in states else None):
        steps += _backend_steps(options, row["name"], row.get("device") or "cuda")
    steps.sort(key=lambda step: _ORDER.index(step.name.split()[0]))
    return list({step.name: step for step in steps}.values())  # backends share their exports


def _arrays_and_torch(options: CheckOptions) -> list[Step]:
    """Returns what runs with torch and CuPy alone."""
    return [
        Step("probe", (sys.executable, "-m", "amodal.engines.gpu_probe"), 40),
        _tests("arrays", TESTS / "test_arrays.py", "", 40),
        Step("arrays cupy", _module("arrays"), 60),
        _tests("torch", TESTS, "torch", 80),
        Step("eager torch", _module("eager"), 60),
    ]


def _onnxruntime(options: CheckOptions) -> list[Step]:
    """Returns what needs ONNX Runtime's CUDA provider."""
    probe = Step("probe", (sys.executable, "-m", "amodal.engines.gpu_probe"), 40)
    steps, needs = [probe, _tests("onnxruntime", TESTS, "onnxruntime", 90)], ("probe",)
    bundle = options.bundle or "default"
    if (Path(bundle) / WEIGHTS).exists():
        steps.append(Step("weights cupy", (*_module("weights"), "fill", bundle), 60))
        needs = ("weights cupy",)
    cases = [word for case in ("as it is", "no CUDA graph", "channels first") for word in ("--case", case)]
    command = (sys.executable, "-m", "amodal.bench.studies.gpu_options", bundle, *cases)
    return [*steps, Step("options onnxruntime", command, 120, needs)]


_SHORT = {"a": _arrays_and_torch, "b": _onnxruntime}


def _module(name: str) -> tuple[str, ...]:
    return sys.executable, "-m", f"amodal.bench.gpu_check.{name}"


def _tests(name: str, place: Path, backend: str, limit: float) -> Step:
    missing = "" if place.exists() else f"{place} is not there; run from a checkout of the sources"
    return Step(
        f"tests {name}", (*_module("tests"), str(place)), limit, environment={BACKEND: backend}, missing=missing
    )


def _working(probe: Any) -> list[dict[str, Any]]:
    """The backends that work according to the probe's output, those with engines first."""
    rows = probe["backends"] if isinstance(probe, dict) else []
    return sorted((row for row in rows if row["executes"]), key=lambda row: row["name"] == "onnxruntime")


def _backend_steps(options: CheckOptions, name: str, device: str) -> Iterator[Step]:
    yield _tests(name, TESTS, name, 150)
    bundle = options.bundle or "default"
    needs: tuple[str, ...] = ()
    if options.bundle is None and not options.quick:
        variant = "cuda" if name == "onnxruntime" else "engine"
        bundle, needs = str(options.folder / f"bundle-{variant}"), (f"export {variant}",)
        how = (*_EXPORT.split(), "--variant", variant, "--overwrite", "--quiet")
        yield Step(f"export {variant}", (*_AMODAL, "export", *how, "-o", bundle), 240)
    where: tuple[str, ...] = ("--device", device)
    if name != "onnxruntime":
        engines = ("--engine-dir", str(options.folder / f"engines-{name}"))
        build = (*_AMODAL, "build", bundle, "--backend", name, "--target", "this", "--json", *engines)
        yield Step(f"build {name}", build, 300, needs)
        where, needs = (*where, *engines), (*needs, f"build {name}")
    work = ("--stage", "segment", "--steps", "5" if options.quick else "25", "--json")
    for what, limit, more in _BENCHMARKS:
        command = (*_AMODAL, "bench", what, bundle, *work, *where, *more.format(name).split())
        yield Step(f"{what} {name}", command, limit, needs)
    if name == "onnxruntime":
        yield Step(f"options {name}", (sys.executable, "-m", "amodal.bench.studies.gpu_options", bundle), 300, needs)
