"""Runs every benchmark that this machine allows, part by part, and resumes after an interruption."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from pydantic import ValidationError

from amodal.runtime.backends import AUTO, DEFAULT, availability, names, on_gpu
from amodal.runtime.builds.store import engine_folder
from amodal.runtime.errors import AmodalError, InputError
from amodal.runtime.families import Bundle
from amodal.runtime.progress import Progress, silent

from .running.clips import Execution, running
from .running.files import remove, write_whole
from .running.machine import results_of, this_machine, versions
from .running.sources import Checkpoints
from .schema import SCHEMA_VERSION, Measurement, Record, Results, Skipped, Work

PARTS = ("latency", "memory", "roofline", "fidelity", "peers", "quality", "scaling")
"""In the order of a suite: the most requested first."""
_OF_TORCH = ("torch", "diffusers", "transformers", "onnx_ir")
_QUICK_PRESETS = ("draft", "fast", "reference")

Outcome = tuple[list[Measurement], list[Skipped]]
Job = Callable[[], Outcome]


@dataclass(frozen=True)
class SuiteOptions:
    """What a suite measures.

    Attributes:
        execution: with the first backend; latency and memory are measured with the other usable ones too.
        parts: of `PARTS`. quick: fewer clips and scenes.
        checkpoints: of stages, for measurements that need torch or another size.
    """

    work: Work
    execution: Execution
    parts: tuple[str, ...] = PARTS
    quick: bool = False
    checkpoints: Checkpoints | None = None

    def __post_init__(self) -> None:
        unknown = [part for part in self.parts if part not in PARTS]
        if unknown or not self.parts:
            raise InputError(f"part {', '.join(unknown) or 'none'} is unknown; expected some of {', '.join(PARTS)}.")


class PartFile(Record):
    """One part of a suite on disk; `key` is a hash of its settings, bundle, machine and libraries."""

    key: str
    measurements: list[Measurement]
    skipped: list[Skipped]


def run_suite(
    bundle: str | Path,
    folder: Path,
    options: SuiteOptions,
    *,
    fresh: bool = False,
    progress: Progress = silent,
    keep: Callable[[Results], None] = lambda results: None,
) -> Results:
    """Measures part by part, and saves each in `folder/parts` as soon as it is done.

    A saved part is not measured again if its settings, bundle, machine, libraries and engines are the same: a results
    file describes all its parts together. A part that fails is skipped with its reason, and the others continue.

    Args:
        fresh: measure everything again; saved parts are removed first, so that none is left after an interruption.
        keep: called with the results when the suite ends or is interrupted (then unfinished).

    Raises:
        BundleError: there is no bundle.
        OutputError: the folder cannot be written.
        KeyboardInterrupt: after `keep`.
    """
    opened = Bundle(bundle)
    jobs = _jobs(str(bundle), options, progress)
    files = {name: folder / "parts" / f"{name.replace(' ', '-')}.json" for name in jobs}
    measurements: list[Measurement] = []
    skipped = _unusable(options.execution)
    if fresh:
        for file in files.values():
            remove(file)
    try:
        for place, (name, (settings, job)) in enumerate(jobs.items()):
            progress(name, "", place, len(jobs))
            key = _key(opened, settings)
            part = _read(files[name], key)
            if part is None:
                found, reasons = _run(name, job)
                part = PartFile(key=key, measurements=found, skipped=reasons)
                write_whole(files[name], part.model_dump_json())
            measurements += part.measurements
            skipped += part.skipped
    except KeyboardInterrupt:
        keep(results_of(opened, measurements, _once(skipped), False))
        raise
    results = results_of(opened, measurements, _once(skipped))
    keep(results)
    return results


def _run(name: str, job: Job) -> Outcome:
    try:
        return job()
    except AmodalError as error:
        return [], [Skipped(what=name, reason=str(error))]
    except MemoryError:
        remedy = "amodal bench all --memory sequential"
        return [], [Skipped(what=name, reason="there is not enough memory.", remedy=remedy)]


def _jobs(bundle: str, options: SuiteOptions, progress: Progress) -> dict[str, tuple[object, Job]]:
    """The settings and the job of each part, by name; a part with the same settings need not be measured again."""
    from .measures.fidelity import measure_fidelity
    from .measures.latency import measure_latency
    from .measures.memory import measure_memory
    from .measures.presets import PRESETS, measure_quality
    from .measures.scaling import measure_scaling
    from .peers.measure import measure_peers
    from .roofline.measure import measure_roofline

    opened, work, execution, quick = Bundle(bundle), options.work, options.execution, options.quick
    engines, all_engines = _engines(opened, execution), _engines(opened, replace(execution, backend=AUTO))
    checkpoints, for_torch = options.checkpoints, [options.checkpoints, _needed_by_torch(opened, options.checkpoints)]
    clips, scenes, fits, turns = (3, 2, 1, 2) if quick else (10, 10, 3, 5)
    presets = _QUICK_PRESETS if quick else tuple(PRESETS)
    common = (bundle, work, execution)
    jobs: dict[str, tuple[object, Job]] = {}

    def add(name: str, settings: object, measure: Callable[..., Measurement], *args: object, **more: object) -> None:
        whole = [name, settings, work, execution.options(), engines]
        jobs[name] = (whole, lambda: ([measure(*args, **more)], []))

    def roofline() -> Measurement:
        with running(*common) as runner:
            return measure_roofline(opened, work, execution, runner=runner)

    others = {"" if e.backend == execution.backend else f" {e.backend}": e for e in _executions(execution)}
    for suffix, other in others.items():
        settings = [clips, [other.options(), _engines(opened, other)]]
        add(f"latency{suffix}", settings, measure_latency, bundle, work, other, repeats=clips, progress=progress)
    for suffix, other in others.items():
        add(f"memory{suffix}", [other.options(), _engines(opened, other)], measure_memory, bundle, work, other)
    add("roofline", all_engines, roofline)  # predictions read the records of engines
    add("fidelity", None, measure_fidelity, *common, progress=progress)
    usable = [name for name in names() if availability(name).usable]
    jobs["peers"] = (
        ["peers", turns, work, execution.options(), all_engines, usable, for_torch],
        lambda: measure_peers(*common, repeats=turns, checkpoints=checkpoints, progress=progress),
    )
    add("quality", [scenes, presets], measure_quality, bundle, execution, scenes=scenes, names=presets)
    scaling = partial(measure_scaling, repeats=fits, checkpoints=checkpoints, progress=progress)
    add("scaling", [quick, for_torch], scaling, *common)
    return {name: job for name, job in jobs.items() if name.split(" ", 1)[0] in options.parts}


def _executions(execution: Execution) -> list[Execution]:
    """The requested execution and, unless it runs engines, one for every other usable backend.

    On the CPU these have the same threads and memory mode, on a GPU the defaults.
    """
    if execution.backend != DEFAULT:
        return [execution]
    others = [name for name in names() if name != execution.backend and availability(name).usable]
    same = replace(Execution(), threads=execution.threads, memory=execution.memory)
    automatic = Execution(memory="auto")
    return [execution, *(replace(automatic if on_gpu(name) else same, backend=name) for name in others)]


def _unusable(execution: Execution) -> list[Skipped]:
    states = {name: availability(name) for name in names() if name != execution.backend}
    return [Skipped(what=f"backend {name}", reason=state.reason) for name, state in states.items() if not state.usable]


def _once(skipped: Iterable[Skipped]) -> list[Skipped]:
    """Says each thing once: what has the same reason together, and of a backend that cannot be used only that."""
    found = list(skipped)
    unusable = {skip.what.replace("backend ", "peer ") for skip in found if skip.what.startswith("backend ")}
    names: dict[tuple[str, str], list[str]] = {}
    for skip in found:
        if skip.what not in unusable:
            names.setdefault((skip.reason, skip.remedy), []).append(skip.what)
    return [
        Skipped(what=", ".join(dict.fromkeys(whats)), reason=reason, remedy=remedy)
        for (reason, remedy), whats in names.items()
    ]


def _key(bundle: Bundle, settings: object) -> str:
    """A hash of the settings of a part, and of the bundle, machine and libraries that it is measured on."""
    manifest = hashlib.sha256((bundle.path / "manifest.json").read_bytes()).hexdigest()
    machine = this_machine()
    about = [SCHEMA_VERSION, versions(), machine.fingerprint, machine.python, machine.gpu, manifest, settings]
    text = json.dumps(about, default=lambda value: value.model_dump() if isinstance(value, Record) else str(value))
    return hashlib.sha256(text.encode()).hexdigest()


def _engines(bundle: Bundle, execution: Execution) -> list[str]:
    """The engines that a backend finds, as hashes of their records; for `auto`, those of all backends."""
    folder = engine_folder(bundle.path, execution.engine_dir)
    backend = "*" if execution.backend == AUTO else execution.backend
    found = []
    for file in sorted(folder.glob(f"{backend}-*-*/*.json")):
        with suppress(OSError):
            found.append(f"{file.relative_to(folder)} {hashlib.sha256(file.read_bytes()).hexdigest()}")
    return found


def _needed_by_torch(bundle: Bundle, checkpoints: Checkpoints | None) -> list[object]:
    """What diffusers and other sizes need and may be added later: checkpoints, libraries, a compiler."""
    given = {str(stage): path for stage, path in (checkpoints or {}).items()}
    places = [str(given.get(task) or entry.source) for task, entry in bundle.manifest.tasks.items()]
    libraries = [name for name in _OF_TORCH if find_spec(name) is not None]
    return [[(place, Path(place).exists()) for place in places], libraries, shutil.which(os.environ.get("CXX", "g++"))]


def _read(file: Path, key: str) -> PartFile | None:
    """A saved part with measurements and the same key."""
    with suppress(OSError, UnicodeDecodeError, ValidationError):
        part = PartFile.model_validate_json(file.read_text())
        if part.key == key and part.measurements:
            return part
    return None
