"""Verifies a bundle: compares each component and the whole pipeline with their float32 twins.

Inputs are recorded from a run of the twins over a scene (see `upcast`), so that no component's error affects another's
inputs.
"""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.backends import DEFAULT, Backend, availability, create
from amodal.runtime.builds.finding import EngineBuild, runs_on
from amodal.runtime.builds.store import EngineBackend, read_record
from amodal.runtime.bundle.manifest import Precision
from amodal.runtime.errors import EngineError, NonFiniteError
from amodal.runtime.execution.components import Source
from amodal.runtime.execution.family import Trial
from amodal.runtime.families import Bundle
from amodal.runtime.model import Model
from amodal.runtime.progress import Progress, silent

from .build import BuildSettings, build_engines, chosen_components, key_of, store_of, target_of
from .compare import TOLERANCES, mask_iou, relative_l2
from .compilation import describe
from .ranges import HALF_MAX, Range, measure_ranges, over
from .recording import Call, Recorder
from .upcast import TwinBackend
from .verification import ComponentCheck, EngineCheck, StageCheck, Verification, VerifySettings, named

RESULTS = {"fp32": 1e-4, "fp16": 2e-2}
"""Largest relative L2 difference of a task's float results (for Diffusion-VAS the last latents), by precision.

Larger than for one component, since the errors of steps add up. Small checkpoints showed 4e-4 to 5e-3 in half, after 3
to 25 steps; with 5 % added to every velocity, 4e-2 to 5e-2."""

REPEATED = 2e-2
"""Largest relative L2 difference of a component in half that runs in every step, such as a U-Net.

`TOLERANCES` is for random input. On a trained U-Net's own input, velocities at low noise are small differences of large
activations: the default model showed 6e-3, with its last latents 2.5e-4 from float32's and a mask IoU of 0.9999."""

MASK_IOU = {"fp32": 0.999, "fp16": 0.95}
"""Smallest IoU with the twin's masks, by precision. Small checkpoints showed 0.9975 and more in half."""

_HALF_NOTE = (
    "On a CPU, ONNX Runtime computes half precision in float32 and rounds, or overflows, at norms only (seen with 1.31 "
    "on x86). A GPU will round more than the differences show, and overflow wherever the greatest values are beyond "
    "65504."
)
_NOT_RUN = (
    "No engine was executed: {reason} To check what the graphs compute, run `amodal verify BUNDLE`; to check what the "
    "engines compute, verify them on a machine with the GPU they were built for."
)
_SINGLE = "amodal export --precision fp32"
_TF32_NOTE = "Engines compute float32 convolutions in TF32, which has the mantissa of half, as torch does by default."


def verify_bundle(bundle: Bundle, settings: VerifySettings | None = None, progress: Progress = silent) -> Verification:
    """Verifies a bundle's graphs, or its engines.

    Args:
        progress: called with a component or task and its phase.

    Raises:
        InputError: an unknown component or target.
        BundleCorruptError: a file differs from its hash.
        MissingDependencyError: the bundle is in half precision, and onnx is not installed.
        BackendUnavailableError: the backend's library is not installed.
        BackendError: a graph cannot be run.
        EngineBuildError: an engine cannot be built.
    """
    settings = settings or VerifySettings()
    keys = chosen_components(bundle, settings.components)
    for key in keys:
        progress(key, "hashes")
        bundle.verify(key)
    if settings.backend == DEFAULT:
        executor = create(settings.backend, threads=settings.threads)
        return _against_float32(bundle, keys, settings, progress, executor, None)
    engines = _check_engines(bundle, keys, settings, progress)
    found = availability(settings.backend)
    if not found.usable:
        reason = found.reason
    elif any(row.problems for row in engines):
        reason = "some are missing, or not to be used."
    else:
        executor = create(settings.backend)
        build = EngineBuild(Path(engines[0].file or "").parent, {})  # exactly the engines checked above
        record = read_record(build.folder / f"{keys[0]}.json")
        if executor.engines is not None and runs_on(record, executor.engines.target):
            ran = _against_float32(bundle, keys, settings, progress, executor, build)
            return replace(ran, engines=engines, notes=(_TF32_NOTE,))
        reason = f"they are for {record.key.target}, and the GPU here is another."
    return Verification(str(bundle.path), settings, engines=engines, notes=(_NOT_RUN.format(reason=reason),))


# Graphs


Results = dict[str, NDArray[Any]]


def _against_float32(
    bundle: Bundle,
    keys: list[str],
    settings: VerifySettings,
    progress: Progress,
    backend: Backend,
    build: EngineBuild | None,
) -> Verification:
    """Runs the twins, then what `backend` executes: graphs, or the engines of `build`."""
    wanted = {*keys}
    tasks = [name for name, entry in bundle.manifest.tasks.items() if wanted & {*entry.components.values()}]
    source: Source = build or bundle
    # Both use the same number of threads, which decides how sums are split.
    threads = int((create(DEFAULT, threads=settings.threads) if build else backend).describe()["threads"])
    recorder = Recorder(TwinBackend(threads, on_gpu=backend.on_gpu), bundle, settings.steps)
    expected: dict[str, Results | NonFiniteError] = {}
    with Model(bundle, recorder, "sequential", verify=False) as model:
        for task in tasks:
            recorder.begin()
            trial = Trial(wanted, settings.seed, settings.steps, _in_float32(progress))
            expected[task] = _try(model, task, trial)
    components = [
        _check_component(bundle, key, recorder.calls.get(key, []), backend, source, threads, progress) for key in keys
    ]
    checked = []
    if settings.components is None:
        with Model(bundle, backend, "sequential", source=source, verify=False) as model:
            for task in tasks:
                results = _try(model, task, Trial(wanted, settings.seed, settings.steps, progress))
                checked.append(_check_task(bundle, task, results, expected[task], build is not None))
    half = any(row.precision == "fp16" for row in components)
    return Verification(
        str(bundle.path), settings, tuple(components), tuple(checked), notes=(_HALF_NOTE,) if half else ()
    )


def _in_float32(progress: Progress) -> Progress:
    def report(what: str, phase: str = "", done: int = 0, total: int | None = None) -> None:
        progress(f"{what}, in float32", phase, done, total)

    return report


def _try(model: Model, task: str, trial: Trial) -> Results | NonFiniteError:
    try:
        return model.bundle.family.tasks[task].trial(model.session, trial)
    except NonFiniteError as error:
        return error


def _check_component(
    bundle: Bundle, key: str, calls: list[Call], backend: Backend, source: Source, threads: int, progress: Progress
) -> ComponentCheck:
    progress(key, "against float32")
    entry = bundle.component(key)
    half = backend.engines is not None or entry.precision == "fp16"
    limit = REPEATED if half and entry.repeated else TOLERANCES["fp16" if half else "fp32"]
    if not calls:
        problem = "it never ran: the run in float32 ended before."
        return ComponentCheck(key, entry.precision, 0, math.inf, limit, (), (problem,))
    with backend.active():
        executable = backend.load(entry, source.files(key))
        results = [
            {name: np.ravel(backend.to_host(array)) for name, array in executable(call.inputs).items()}
            for call in calls
        ]
        executable.close()
    # Over all calls together: in training, a U-Net's velocities are of unit size at every noise level (EDM). Where they
    # are small, at the last steps, rounding is large relative to them but does not affect the picture.
    differences = [
        _difference(
            np.concatenate([result[name] for result in results]),
            np.concatenate([np.ravel(call.outputs[name]) for call in calls]),
        )
        for name in calls[0].outputs
    ]
    ranges: list[Range] = []
    if entry.precision == "fp16":
        progress(key, "greatest values")
        ranges = measure_ranges(bundle.files(key)[0], [call.inputs for call in calls], threads)
    worst, problems = max(differences), []
    if not all(np.isfinite(value).all() for call in calls for value in call.outputs.values()):
        problems.append("its float32 twin returns values that are not finite; check the checkpoint's weights.")
    elif math.isinf(worst):
        problems.append(f"it returns values that are not finite; export the bundle again with `{_SINGLE}`.")
    elif not worst <= limit:
        problems.append(f"it differs from its float32 twin by {worst:.1e} (relative L2), more than {limit:.0e}.")
    beyond = over(ranges, HALF_MAX)
    if beyond:
        infinite = f"{named(beyond)} beyond {HALF_MAX:.0f}, where half precision is infinite"
        problems.append(f"{infinite}; export the bundle again with `{_SINGLE}`.")
    return ComponentCheck(key, entry.precision, len(calls), worst, limit, tuple(ranges), tuple(problems))


def _check_task(
    bundle: Bundle, task: str, results: Results | NonFiniteError, expected: Results | NonFiniteError, engines: bool
) -> StageCheck:
    keys = bundle.manifest.tasks[task].components.values()
    half = engines or any(bundle.component(key).precision == "fp16" for key in keys)
    precision: Precision = "fp16" if half else "fp32"
    limit, least = RESULTS[precision], MASK_IOU[precision]
    if isinstance(expected, NonFiniteError):
        return StageCheck(task, math.inf, limit, None, None, None, (f"in float32: {expected}",))
    if isinstance(results, NonFiniteError):
        return StageCheck(task, math.inf, limit, None, None, None, (str(results),))
    difference, iou, apart, problems = 0.0, None, None, []
    for name, array in results.items():
        if array.dtype == np.bool_:
            iou = mask_iou(array, expected[name])
            if iou < least:
                problems.append(f"its {name} have an IoU of {iou:.4f} with float32's, less than {least}.")
        elif array.dtype == np.uint8:
            apart = np.abs(array.astype(np.int16) - expected[name])
        else:
            found = relative_l2(array, expected[name])
            difference = max(difference, found)
            if not found <= limit:
                difference_of = f"its {name} differ from float32's by {found:.1e} (relative L2)"
                problems.append(f"{difference_of}, more than {limit:.0e}.")
    largest, mean = (None, None) if apart is None else (int(apart.max()), float(apart.mean()))
    return StageCheck(task, difference, limit, iou, largest, mean, tuple(problems))


# Engines


def _check_engines(
    bundle: Bundle, keys: list[str], settings: VerifySettings, progress: Progress
) -> tuple[EngineCheck, ...]:
    backend = cast("EngineBackend", settings.backend)  # VerifySettings allows no other here
    chosen = BuildSettings(backend, settings.target, settings.components, engine_dir=settings.engine_dir)
    built = {}
    if settings.build:
        built = {row.record.key.component: row.reason for row in build_engines(bundle, chosen, progress)}
    progress(backend)
    library = describe(backend)
    target = target_of(chosen, library)
    store = store_of(bundle, chosen, library, target)
    rows = []
    for key in keys:
        progress(key, "engine")
        try:
            wanted = key_of(bundle, key, chosen, library, target)
            record = store.find(wanted, verify=not settings.build)  # building has hashed it
            rows.append(EngineCheck(key, str(store.engine_file(record)), built.get(key), ()))
        except EngineError as error:
            rows.append(EngineCheck(key, None, built.get(key), (str(error),)))
    return tuple(rows)


def _difference(candidate: Any, reference: Any) -> float:
    """See `relative_l2`; infinite if either is not finite."""
    return relative_l2(candidate, reference) if np.isfinite(reference).all() else math.inf
