"""Everything that a machine allows to be measured of a bundle, part by part, kept and taken up again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
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
"""In the order of a suite: what people ask for first comes first."""
_OF_TORCH = ("torch", "diffusers", "transformers", "onnx_ir")


@dataclass(frozen=True)
class SuiteOptions:
    """What a suite measures.

    Attributes:
        execution: how; its backend is the first one, and for time and memory the other usable ones follow.
        parts: of `PARTS`. quick: fewer clips and scenes, for a look.
        checkpoints: of stages, for what needs torch or another size.
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


class Kept(Record):
    """One part of a suite, on disk: what it was asked and of what (`key`), what it gave, and what it could not."""

    key: str
    measurements: list[Measurement]
    skipped: list[Skipped]


Job = Callable[[], tuple[list[Measurement], list[Skipped]]]


def run_suite(
    bundle: str | Path,
    folder: Path,
    options: SuiteOptions,
    *,
    fresh: bool = False,
    progress: Progress = silent,
    keep: Callable[[Results], None] = lambda results: None,
) -> Results:
    """Measures part by part; each is kept in `folder/parts` as soon as it is done.

    A part that was kept by an interrupted suite is not measured again if it was asked the same of the same bundle, on
    the same machine, with the same libraries and engines: a results file says of all its parts what it was of. One that
    fails is skipped with its reason, and the others go on.

    Args:
        fresh: measure everything again; what was kept of it is removed first, so that an interruption leaves none.
        keep: given what is there when the suite ends or is interrupted (then unfinished).

    Raises:
        BundleError: there is no bundle.
        OutputError: the folder cannot be written.
        KeyboardInterrupt: after `keep`.
    """
    opened = Bundle(bundle)
    jobs = _jobs(str(bundle), options, progress)
    parts = folder / "parts"
    done: list[Kept] = []

    def results(finished: bool) -> Results:
        return results_of(
            opened,
            [m for kept in done for m in kept.measurements],
            [*_unusable(options), *(s for kept in done for s in kept.skipped)],
            finished,
        )

    files = {name: parts / f"{name.replace(' ', '-')}.json" for name in jobs}
    if fresh:
        for file in files.values():
            remove(file)
    try:
        for place, (name, (asked, job)) in enumerate(jobs.items()):
            progress(name, "", place, len(jobs))
            key = _key(opened, asked)
            kept = _read(files[name], key)
            if kept is None:
                kept = _run(name, key, job)
                write_whole(files[name], kept.model_dump_json())
            done.append(kept)
    except KeyboardInterrupt:
        keep(results(False))
        raise
    found = results(True)
    keep(found)
    return found


def _run(name: str, key: str, job: Job) -> Kept:
    try:
        measurements, skipped = job()
    except AmodalError as error:
        measurements, skipped = [], [Skipped(what=name, reason=str(error))]
    except MemoryError:
        skipped = [
            Skipped(what=name, reason="there is not enough memory.", remedy="amodal bench all --memory sequential")
        ]
        measurements = []
    return Kept(key=key, measurements=measurements, skipped=skipped)


def _jobs(bundle: str, options: SuiteOptions, progress: Progress) -> dict[str, tuple[object, Job]]:
    """By name: what is asked, of which the key is made, and the job."""
    from .measures.fidelity import measure_fidelity
    from .measures.latency import measure_latency
    from .measures.memory import measure_memory
    from .measures.presets import PRESETS, measure_quality
    from .measures.scaling import measure_scaling
    from .peers.measure import measure_peers
    from .roofline.measure import measure_roofline

    opened, work, execution, quick = Bundle(bundle), options.work, options.execution, options.quick
    engines, all_engines = _engines(opened, execution), _engines(opened, replace(execution, backend=AUTO))
    for_torch = [options.checkpoints, _needed_by_torch(opened, options.checkpoints)]
    repeats, scenes, turns = (3, 2, 2) if quick else (10, 10, 5)
    jobs: dict[str, tuple[object, Job]] = {}

    def add(name: str, asked: object, measure: Callable[[], Measurement]) -> None:
        if name.split(" ", 1)[0] in options.parts:
            jobs[name] = ([name, asked, work, execution.options(), engines], lambda: ([measure()], []))

    for other in _executions(execution):
        of = "" if other.backend == execution.backend else f" {other.backend}"
        how, latency = [other.options(), _engines(opened, other)], partial(measure_latency, bundle, work, other)
        add(f"latency{of}", [repeats, how], partial(latency, repeats=repeats, progress=progress))
        add(f"memory{of}", how, partial(measure_memory, bundle, work, other))

    def roofline() -> Measurement:
        with running(bundle, work, execution) as runner:
            return measure_roofline(opened, work, execution, runner=runner)

    add("roofline", all_engines, roofline)  # whose records say what GPUs need
    add("fidelity", None, lambda: measure_fidelity(bundle, work, execution, progress=progress))
    names_of = ("draft", "fast", "reference") if quick else tuple(PRESETS)
    add("quality", [scenes, names_of], lambda: measure_quality(bundle, execution, scenes=scenes, names=names_of))
    add(
        "scaling",
        [quick, for_torch],
        lambda: measure_scaling(
            bundle, work, execution, repeats=1 if quick else 3, checkpoints=options.checkpoints, progress=progress
        ),
    )
    if "peers" in options.parts:
        usable = [name for name in names() if availability(name).usable]
        jobs["peers"] = (
            ["peers", turns, work, execution.options(), all_engines, usable, for_torch],
            lambda: measure_peers(
                bundle, work, execution, repeats=turns, checkpoints=options.checkpoints, progress=progress
            ),
        )
    order = {part: place for place, part in enumerate(PARTS)}
    return dict(sorted(jobs.items(), key=lambda item: order[item[0].split(" ", 1)[0]]))


def _executions(execution: Execution) -> list[Execution]:
    """The one asked for, and every other backend that is usable here: on the CPU with the same threads and memory
    mode, on a GPU as it runs by itself."""
    if execution.backend != DEFAULT:  # whoever asks for engines has no use for the CPU beside them
        return [execution]
    found = [execution]
    for name in names():
        if name == execution.backend or not availability(name).usable:
            continue
        same = Execution(backend=name, threads=execution.threads, memory=execution.memory)
        found.append(Execution(backend=name, memory="auto") if on_gpu(name) else same)
    return found


def _unusable(options: SuiteOptions) -> list[Skipped]:
    found = []
    for name in names():
        state = availability(name)
        if not state.usable and name != options.execution.backend:
            found.append(Skipped(what=f"backend {name}", reason=state.reason))
    return found


def _key(bundle: Bundle, asked: object) -> str:
    manifest = hashlib.sha256((bundle.path / "manifest.json").read_bytes()).hexdigest()
    machine = this_machine()
    about = [SCHEMA_VERSION, versions(), machine.fingerprint, machine.python, machine.gpu, manifest, asked]
    text = json.dumps(about, default=lambda value: value.model_dump() if isinstance(value, Record) else str(value))
    return hashlib.sha256(text.encode()).hexdigest()


def _engines(bundle: Bundle, execution: Execution) -> list[str]:
    """Which engines a backend finds, by the hashes of their records; those of every backend for `auto`."""
    folder = engine_folder(bundle.path, execution.engine_dir)
    backend = "*" if execution.backend == AUTO else execution.backend
    found = []
    for file in sorted(folder.glob(f"{backend}-*-*/*.json")):
        with suppress(OSError):
            found.append(f"{file.relative_to(folder)} {hashlib.sha256(file.read_bytes()).hexdigest()}")
    return found


def _needed_by_torch(bundle: Bundle, checkpoints: Checkpoints | None) -> list[object]:
    """What diffusers and other sizes need and may be given later: checkpoints, libraries, a compiler."""
    given = {str(stage): path for stage, path in (checkpoints or {}).items()}
    places = [str(given.get(task) or entry.source) for task, entry in bundle.manifest.tasks.items()]
    libraries = [name for name in _OF_TORCH if find_spec(name) is not None]
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    return [[(place, Path(place).exists()) for place in places], libraries, compiler]


def _read(file: Path, key: str) -> Kept | None:
    try:
        kept = Kept.model_validate_json(file.read_text())
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
    failed = not kept.measurements
    return kept if kept.key == key and not failed else None
