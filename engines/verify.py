"""Whether a bundle computes what it should: each component and the whole pipeline against their float32 twins.

The inputs are those of a run over a scene, recorded in the twins (see `upcast`), so that no component is judged by what
another did to its inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.backends import DEFAULT, Backend, availability, create
from amodal.runtime.builds.finding import EngineBuild, runs_on
from amodal.runtime.builds.store import EngineBackend, read_record
from amodal.runtime.bundle.manifest import Precision, StageName
from amodal.runtime.bundle.reading import Bundle
from amodal.runtime.errors import EngineError, NonFiniteError
from amodal.runtime.execution.components import Source
from amodal.runtime.model import Model
from amodal.runtime.scenes import Scene, make_scene

from .build import BuildSettings, build_engines, chosen_components, key_of, store_of, target_of
from .compare import TOLERANCES, mask_iou, relative_l2
from .compilation import describe
from .ranges import HALF_MAX, Range, measure_ranges, over
from .recording import Call, Recorder
from .upcast import TwinBackend
from .verification import ComponentCheck, EngineCheck, StageCheck, Verification, VerifySettings, named

Say = Callable[[str], None]

LATENTS = {"fp32": 1e-4, "fp16": 2e-2}
"""Largest relative L2 difference of a stage's last latents, by precision: more than of one component, since steps add
up. Small checkpoints showed 4e-4 to 5e-3 in half, after 3 to 25 steps; 5 % on every velocity, 4e-2 to 5e-2."""

UNET = 2e-2
"""Largest relative L2 difference of a U-Net in half. `TOLERANCES` is for random input; on a trained one's own, whose
velocities at low noise are small differences of large activations, the default model showed 6e-3, with its last latents
2.5e-4 from float32's and a mask IoU of 0.9999."""

MASK_IOU = {"fp32": 0.999, "fp16": 0.95}
"""Least IoU of the masks with the twin's, by precision. Small checkpoints showed 0.9975 and more in half."""

_HALF_NOTE = (
    "On a CPU, ONNX Runtime computes half precision in float32 and rounds, or overflows, at norms only (seen with 1.31 "
    "on x86). A GPU will round more than the differences show, and overflow wherever the greatest values are beyond "
    "65504."
)
_UNSEEN = (
    "No engine was executed: {reason} What the graphs compute: `amodal verify BUNDLE`, without --backend. What the "
    "engines compute: this command, on a machine with the GPU they were built for."
)
_TF32_NOTE = "Engines compute float32 convolutions in TF32, which has the mantissa of half, as torch does by default."


def verify_bundle(bundle: Bundle, settings: VerifySettings | None = None, say: Say = lambda what: None) -> Verification:
    """Verifies a bundle's graphs, or its engines.

    Args:
        say: told what is being done.

    Raises:
        InputError: a component or target that is not known.
        BundleCorruptError: a file differs from its hash.
        MissingDependencyError: half precision, and onnx is not installed.
        BackendUnavailableError: the backend's library is not installed.
        BackendError: a graph cannot be run.
        EngineBuildError: an engine that was to be built cannot be.
    """
    settings = settings or VerifySettings()
    keys = chosen_components(bundle, settings.components)
    for key in keys:
        say(f"{key}: hashes")
        bundle.verify(key)
    if settings.backend == DEFAULT:
        executor = create(settings.backend, threads=settings.threads)
        return _against_float32(bundle, keys, settings, say, executor, None)
    engines = _check_engines(bundle, keys, settings, say)
    found = availability(settings.backend)
    if not found.usable:
        return Verification(str(bundle.path), settings, engines=engines, notes=(_UNSEEN.format(reason=found.reason),))
    if any(row.problems for row in engines):
        reason = "some are missing, or not to be used."
        return Verification(str(bundle.path), settings, engines=engines, notes=(_UNSEEN.format(reason=reason),))
    executor = create(settings.backend)
    # Those that were looked at above, and no others that may lie beside them.
    build = EngineBuild(Path(engines[0].file or "").parent, "", "", {})
    record = read_record(build.folder / f"{keys[0]}.json")
    if executor.engines is None or not runs_on(record, executor.engines.target):
        reason = f"they are for {record.key.target}, and the GPU here is another."
        return Verification(str(bundle.path), settings, engines=engines, notes=(_UNSEEN.format(reason=reason),))
    ran = _against_float32(bundle, keys, settings, say, executor, build)
    return replace(ran, engines=engines, notes=(_TF32_NOTE,))


# Graphs


class _Drawn(NamedTuple):
    """What a stage drew."""

    latents: NDArray[np.float32]
    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_] | None


def _against_float32(
    bundle: Bundle, keys: list[str], settings: VerifySettings, say: Say, backend: Backend, build: EngineBuild | None
) -> Verification:
    """Runs the twins, then what `backend` executes: graphs, or the engines of `build`."""
    manifest = bundle.manifest
    scene = make_scene(settings.seed, manifest.frames, manifest.size)
    stages = [stage for stage, entry in manifest.stages.items() if {*entry.components.values()} & {*keys}]
    source: Source = build or bundle
    # The same number of threads for both, since sums are split by it.
    graphs = backend if build is None else create(DEFAULT, threads=settings.threads)
    threads = int(graphs.describe()["threads"])
    recorder = Recorder(TwinBackend(threads), bundle, settings.steps)
    expected: dict[StageName, _Drawn | NonFiniteError] = {}
    with Model(bundle, recorder, "sequential", verify=False) as model:
        if "depth" in keys:
            say("depth in float32")
            model.depth(scene.frames[:1])
        for stage in stages:
            recorder.begin()
            expected[stage] = _draw(model, stage, scene, settings, lambda what: say(f"{what}, in float32"))
    components = []
    for key in keys:
        say(f"{key}: against float32")
        components.append(_check_component(bundle, key, recorder.calls.get(key, []), backend, source, threads, say))
    checked = []
    if settings.components is None:
        with Model(bundle, backend, "sequential", source=source, verify=False) as model:
            for stage in stages:
                drawn = _draw(model, stage, scene, settings, say)
                checked.append(_check_stage(bundle, stage, drawn, expected[stage], build is not None))
    half = any(row.precision == "fp16" for row in components)
    return Verification(
        str(bundle.path), settings, tuple(components), tuple(checked), notes=(_HALF_NOTE,) if half else ()
    )


def _draw(model: Model, stage: StageName, scene: Scene, settings: VerifySettings, say: Say) -> _Drawn | NonFiniteError:
    """Runs a stage over a scene; `complete` is given the true masks, so that it does not depend on `segment`."""
    latents: list[NDArray[np.float32]] = []

    def after(step: int, sigma: float, x: Any) -> None:
        latents[:] = [np.array(model.backend.to_host(x))]
        say(f"{stage}: step {step + 1} of {settings.steps}")

    say(stage)
    masks = None
    try:
        if stage == "segment":
            seen = model.segment(
                scene.modal, depth=scene.depth, seed=settings.seed, steps=settings.steps, callback=after
            )
            frames, masks = seen.frames, seen.masks
        else:
            frames = model.complete(
                scene.frames,
                scene.modal,
                scene.amodal,
                seed=settings.seed,
                steps=settings.steps,
                propagate=False,
                callback=after,
            ).frames
    except NonFiniteError as error:
        return error
    return _Drawn(latents[0], frames, masks)


def _check_component(
    bundle: Bundle, key: str, calls: list[Call], backend: Backend, source: Source, threads: int, say: Say
) -> ComponentCheck:
    entry, files = bundle.component(key), bundle.files(key)
    half = backend.engines is not None or entry.precision == "fp16"
    limit = UNET if half and entry.kind == "unet" else TOLERANCES["fp16" if half else "fp32"]
    if not calls:
        problem = "it was never reached: the run in float32 ended before."
        return ComponentCheck(key, entry.precision, 0, math.inf, limit, (), (problem,))
    found: dict[str, tuple[list[Any], list[Any]]] = {}
    with backend.active():
        executable = backend.load(entry, source.files(key))
        for call in calls:
            outputs = executable(call.inputs)
            for name, value in call.outputs.items():
                mine, twins = found.setdefault(name, ([], []))
                mine.append(np.ravel(backend.to_host(outputs[name])))
                twins.append(np.ravel(value))
        executable.close()
    # All calls together: a U-Net's velocities are of unit size in training at every noise level (EDM), and where they
    # happen to be small, at the last steps, rounding is large beside them and nothing beside the picture.
    differences = [_difference(np.concatenate(mine), np.concatenate(twins)) for mine, twins in found.values()]
    ranges: list[Range] = []
    if entry.precision == "fp16":
        say(f"{key}: greatest values")
        ranges = measure_ranges(files[0], [call.inputs for call in calls], threads)
    worst, problems = max(differences), []
    if not all(np.isfinite(value).all() for call in calls for value in call.outputs.values()):
        problems.append("its float32 twin gives values that are not finite; check the checkpoint's weights.")
    elif math.isinf(worst):
        problems.append("it gives values that are not finite; export the bundle again with --precision fp32.")
    elif not worst <= limit:
        problems.append(f"it differs from its float32 twin by {worst:.1e} (relative L2), more than {limit:.0e}.")
    beyond = over(ranges, HALF_MAX)
    if beyond:
        problems.append(
            f"{named(beyond)} beyond {HALF_MAX:.0f}, where half precision is infinite; export the bundle again with "
            "--precision fp32."
        )
    return ComponentCheck(key, entry.precision, len(calls), worst, limit, tuple(ranges), tuple(problems))


def _check_stage(
    bundle: Bundle,
    stage: StageName,
    drawn: _Drawn | NonFiniteError,
    expected: _Drawn | NonFiniteError,
    engines: bool,
) -> StageCheck:
    keys = bundle.manifest.stages[stage].components.values()
    half = engines or any(bundle.component(key).precision == "fp16" for key in keys)
    precision: Precision = "fp16" if half else "fp32"
    limit, least = LATENTS[precision], MASK_IOU[precision]
    for what, result in (("in float32: ", expected), ("", drawn)):
        if isinstance(result, NonFiniteError):
            return StageCheck(stage, math.inf, limit, None, None, None, (f"{what}{result}",))
    assert isinstance(drawn, _Drawn)
    assert isinstance(expected, _Drawn)
    latents, problems = relative_l2(drawn.latents, expected.latents), []
    if not latents <= limit:
        problems.append(
            f"its last latents differ from float32's by {latents:.1e} (relative L2), more than {limit:.0e}."
        )
    iou = None
    if drawn.masks is not None and expected.masks is not None:
        iou = mask_iou(drawn.masks, expected.masks)
        if iou < least:
            problems.append(f"its masks have an IoU of {iou:.4f} with float32's, less than {least}.")
    apart = np.abs(drawn.frames.astype(np.int16) - expected.frames)
    return StageCheck(stage, latents, limit, iou, int(apart.max()), float(apart.mean()), tuple(problems))


# Engines


class _Saying:
    """A builder's progress, as `Say` wants it; see `amodal.engines.build.Progress`."""

    def __init__(self, say: Say) -> None:
        self._say, self._component = say, ""

    def start(self, component: str) -> None:
        self._component = component

    def phase(self, what: str) -> None:
        self._say(f"{self._component}: {what}")


def _check_engines(bundle: Bundle, keys: list[str], settings: VerifySettings, say: Say) -> tuple[EngineCheck, ...]:
    (backend,) = (name for name in get_args(EngineBackend) if name == settings.backend)
    chosen = BuildSettings(
        backend, target=settings.target, components=settings.components, engine_dir=settings.engine_dir
    )
    built = {}
    if settings.build:
        built = {row.record.key.component: row.reason for row in build_engines(bundle, chosen, _Saying(say))}
    say(backend)
    library = describe(backend)
    target = target_of(chosen, library)
    store = store_of(bundle, chosen, library, target)
    rows = []
    for key in keys:
        say(f"{key}: engine")
        try:
            # Whatever options it was built with: they change where weights lie, not what is computed.
            streaming = bool(store.read(key).key.options.get("weight_streaming"))
            wanted = key_of(bundle, key, replace(chosen, weight_streaming=streaming), library, target)
            record = store.find(wanted, verify=not settings.build)  # what was just built or kept was hashed there
        except EngineError as error:
            rows.append(EngineCheck(key, None, built.get(key), (str(error),)))
        else:
            rows.append(EngineCheck(key, str(store.engine_file(record)), built.get(key), ()))
    return tuple(rows)


def _difference(candidate: Any, reference: Any) -> float:
    """See `relative_l2`; infinite where either is not finite."""
    return relative_l2(candidate, reference) if np.isfinite(reference).all() else math.inf
