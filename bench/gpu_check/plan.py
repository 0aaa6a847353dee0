"""The steps of a GPU check, in order of importance."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .steps import Step, StepState

TESTS = Path(__file__).resolve().parents[2] / "tests" / "gpu"
BACKEND = "AMODAL_GPU_BACKEND"
"""Names the backend that the tests marked `gpu` run. Each backend gets a process: one can load only one TensorRT."""

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
    """

    folder: Path
    bundle: str | None = None
    quick: bool = False


def plan(options: CheckOptions, states: Mapping[str, StepState]) -> list[Step]:
    """Returns the steps known so far: the probe, then the steps of each backend that it found working."""
    # A probe that found no working backend is not reused: the user may have repaired the machine since.
    command = (sys.executable, "-m", "amodal.engines.gpu_probe")
    probe = Step("probe", command, 240, reusable=lambda output: bool(_working(output)))
    steps = [probe]
    for row in _working(states["probe"].output if "probe" in states else None):
        steps += _backend_steps(options, row["name"], row.get("device") or "cuda")
    steps.sort(key=lambda step: _ORDER.index(step.name.split()[0]))
    return list({step.name: step for step in steps}.values())  # backends share their exports


def _working(probe: Any) -> list[dict[str, Any]]:
    """The backends that work according to the probe's output, those with engines first."""
    rows = probe["backends"] if isinstance(probe, dict) else []
    return sorted((row for row in rows if row["executes"]), key=lambda row: row["name"] == "onnxruntime")


def _backend_steps(options: CheckOptions, name: str, device: str) -> Iterator[Step]:
    missing = "" if TESTS.is_dir() else f"{TESTS} is not there; run from a checkout of the sources"
    tests = (sys.executable, "-m", "amodal.bench.gpu_check.tests", str(TESTS))
    yield Step(f"tests {name}", tests, 150, environment={BACKEND: name}, missing=missing)
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
