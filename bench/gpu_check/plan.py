"""What a GPU check runs, in order of importance."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .steps import Step, StepState

TESTS = Path(__file__).resolve().parents[2] / "tests" / "gpu"
BACKEND = "AMODAL_GPU_BACKEND"
"""Names the backend that the tests marked `gpu` run: one for each process, which can hold one TensorRT."""

_AMODAL = (sys.executable, "-m", "amodal")
# Writes the tests' outcome as JSON: how many passed, failed and were skipped, and the first line of each failure.
_PYTEST = (sys.executable, "-m", "amodal.bench.gpu_check.tests")


@dataclass(frozen=True)
class CheckOptions:
    """What is checked.

    Attributes:
        folder: for bundle, engines and results.
        bundle: to run; None for the real architecture with random weights, exported here.
        quick: the default bundle and few steps: whether all of it works, not how fast it is.
        tests: the folder with the tests marked `gpu`.
    """

    folder: Path
    bundle: str | None = None
    quick: bool = False
    tests: Path = TESTS

    @property
    def steps(self) -> int:
        """Sampler steps of a clip."""
        return 5 if self.quick else 25


def plan(options: CheckOptions, states: Mapping[str, StepState]) -> list[Step]:
    """The steps, as far as they are known: what follows the first depends on what it finds."""
    # What found nothing that executes is asked again: whoever mends that gives the same command.
    command = (sys.executable, "-m", "amodal.engines.gpu_probe")
    probe = Step("probe", command, 240, keep=lambda said: bool(_executing(said)))
    steps, rows = [probe], executing(states)
    steps += [_tests(options, row) for row in rows]
    for make in (_export, _build, _latency):
        steps += [step for row in rows for step in make(options, row)]
    for make in (_peers, _memory, _roofline, _options):
        steps += [step for row in rows for step in make(options, row)]
    return list({step.name: step for step in steps}.values())


def executing(states: Mapping[str, StepState]) -> list[dict[str, Any]]:
    """The backends that the probe saw executing; those with engines first."""
    return _executing(states["probe"].said if "probe" in states else None)


def _executing(said: Any) -> list[dict[str, Any]]:
    rows = said["backends"] if isinstance(said, dict) else []
    return sorted((row for row in rows if row["executes"]), key=lambda row: row["name"] == "onnxruntime")


def _tests(options: CheckOptions, row: dict[str, Any]) -> Step:
    missing = "" if options.tests.is_dir() else f"{options.tests} is not there; run from a checkout of the sources"
    command = (*_PYTEST, str(options.tests))
    return Step(f"tests {row['name']}", command, 150, environment={BACKEND: row["name"]}, missing=missing)


def _variant(row: dict[str, Any]) -> str:
    """How the graphs are written that a backend runs best."""
    return "cuda" if row["name"] == "onnxruntime" else "engine"


def _bundle(options: CheckOptions, row: dict[str, Any]) -> tuple[str, tuple[str, ...]]:
    """The bundle that a backend runs, and the steps that make it."""
    if options.bundle is not None or options.quick:
        return options.bundle or "default", ()
    return str(options.folder / f"bundle-{_variant(row)}"), (f"export {_variant(row)}",)


def _export(options: CheckOptions, row: dict[str, Any]) -> Iterator[Step]:
    bundle, made_by = _bundle(options, row)
    for name in made_by:
        what = ("--random", "diffusion-vas", "--random-depth", "none", "--size", "256x512", "--frames", "25")
        how = ("--check", "none", "--variant", _variant(row), "--overwrite", "--quiet")
        yield Step(name, (*_AMODAL, "export", *what, *how, "-o", bundle), 240)


def _engines(options: CheckOptions, row: dict[str, Any]) -> tuple[str, str]:
    return ("--engine-dir", str(options.folder / f"engines-{row['name']}"))


def _build(options: CheckOptions, row: dict[str, Any]) -> Iterator[Step]:
    if row["name"] != "onnxruntime":
        bundle, needs = _bundle(options, row)
        command = (*_AMODAL, "build", bundle, "--backend", row["name"], "--target", "this", "--json")
        yield Step(f"build {row['name']}", (*command, *_engines(options, row)), 300, needs)


def _measure(options: CheckOptions, row: dict[str, Any], what: str, limit: float, *more: str) -> Iterator[Step]:
    bundle, needs = _bundle(options, row)
    work = ("--stage", "segment", "--steps", str(options.steps), "--json")
    where: tuple[str, ...] = ("--device", row.get("device") or "cuda")
    if row["name"] != "onnxruntime":
        where, needs = (*where, *_engines(options, row)), (*needs, f"build {row['name']}")
    yield Step(f"{what} {row['name']}", (*_AMODAL, "bench", what, bundle, *work, *where, *more), limit, needs)


def _latency(options: CheckOptions, row: dict[str, Any]) -> Iterator[Step]:
    yield from _measure(
        options, row, "latency", 120, "--backend", row["name"], "--repeats", "5", "--warm-up", "2", "--no-cold"
    )


def _peers(options: CheckOptions, row: dict[str, Any]) -> Iterator[Step]:
    yield from _measure(
        options, row, "peers", 300, "--peer", "diffusers", "--peer", "compile", "--peer", row["name"], "--repeats", "3"
    )


def _memory(options: CheckOptions, row: dict[str, Any]) -> Iterator[Step]:
    yield from _measure(options, row, "memory", 90, "--backend", row["name"], "--clips", "2")


def _roofline(options: CheckOptions, row: dict[str, Any]) -> Iterator[Step]:
    yield from _measure(options, row, "roofline", 120, "--backend", row["name"], "--clips", "1")


def _options(options: CheckOptions, row: dict[str, Any]) -> Iterator[Step]:
    if row["name"] == "onnxruntime":
        bundle, needs = _bundle(options, row)
        yield Step(
            "options onnxruntime", (sys.executable, "-m", "amodal.bench.studies.gpu_options", bundle), 300, needs
        )
