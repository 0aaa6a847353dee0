"""Runs a task: prepares the caller's arrays, runs the stage, and delivers the results."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...arrays.interop import Array
from ...arrays.resampling import Size
from ...clips.noise import FrameNoise
from ...errors import InputError
from ...execution.components import Timings
from ...execution.delivery import Delivery, Out, To
from ...execution.session import Session
from ...pictures.depth import DepthChannels, normalise_clip
from ...pictures.depth_kind import DepthKind
from ...pictures.images import prepare_modal, resize_frames, resize_masks, threshold
from ...pictures.padding import Padding
from ...pictures.propagation import Propagated, propagate
from ...sampling.finiteness import Finiteness
from ...sampling.noise import NoiseStream
from ...sampling.sampler import Callback
from .config import StageName, config_of
from .inputs import GivenDepth, Inputs, complete_inputs, segment_inputs
from .results import Completion, Segmentation
from .settings import Settings
from .shape import RunShape, run_shape
from .stage import Stage, StageOutput, run_stage

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """Arguments of `Model.segment` and `Model.complete` other than arrays."""

    settings: Settings = field(default_factory=Settings)
    seed: int | NoiseStream | FrameNoise = 23
    padding: Padding | None = None
    samples: int = 1
    callback: Callback | None = None
    to: To = "host"
    out: Out | None = None
    propagate: bool | None = None


@dataclass(frozen=True)
class SegmentInputs:
    """Arguments of `Model.segment`."""

    modal: Any
    depth: Any = None
    rgb: Any = None
    request: Request = field(default_factory=Request)
    depth_kind: DepthKind | None = None


@dataclass(frozen=True)
class CompleteInputs:
    """Arguments of `Model.complete`."""

    rgb: Any
    modal: Any
    amodal: Any
    request: Request = field(default_factory=Request)


def run_segment(session: Session, inputs: SegmentInputs) -> Segmentation:
    """Runs `Model.segment`."""
    start, backend, request = time.perf_counter(), session.backend, inputs.request
    modal, depth, rgb = inputs.modal, inputs.depth, inputs.rgb
    xp, padding, config = backend.xp, request.padding, config_of(session.manifest)
    stage, streams = _begin(session, "segment", request, (modal, rgb if depth is None else depth), depth is None)
    if request.out and request.samples > 1:
        raise InputError(f"out takes the results of one sample, not of {request.samples}.")
    deliver, finite = Delivery(backend, request.to, request.out), Finiteness(xp)

    def ready(count: int, full_size: Size) -> None:
        at_size = (count, *config.size)
        deliver.expect(
            {"masks": (at_size, bool), "masks_full": ((count, *full_size), bool), "frames": ((*at_size, 3), np.uint8)}
        )

    with backend.active():
        find = partial(find_depth, session, channels=request.settings.depth_channels)
        given = GivenDepth(depth, inputs.depth_kind)
        prepared = segment_inputs(config, backend, modal, given, rgb, padding, find, ready)
        outputs = _run(stage, prepared, streams, request, finite)
        results: list[dict[str, Any]] = []
        for output in outputs:
            frames = output.frames[: prepared.count]
            masks = threshold(frames, prepared.visible)
            full = padding.masks(frames, prepared.raw, xp) if padding else resize_masks(masks, prepared.full_size, xp)
            results.append({"masks": masks, "masks_full": full, "frames": frames})
        results = deliver(results, finite)
    seconds, timings = _timed("segment", session, start)
    one, *others = (
        Segmentation(**result, noise=output.noise, seconds=seconds, timings=timings)
        for result, output in zip(results, outputs, strict=True)
    )
    return replace(one, others=tuple(others))


def run_complete(session: Session, inputs: CompleteInputs) -> Completion:
    """Runs `Model.complete`."""
    start, backend, request = time.perf_counter(), session.backend, inputs.request
    arrays = (inputs.rgb, inputs.modal, inputs.amodal)
    xp, config = backend.xp, config_of(session.manifest)
    stage, streams = _begin(session, "complete", request, arrays)
    propagates = config.propagate if request.propagate is None else request.propagate
    deliver, finite = Delivery(backend, request.to, request.out), Finiteness(xp)

    def ready(count: int, full_size: Size) -> None:
        at_size = (count, *config.size)
        wanted: dict[str, tuple[tuple[int, ...], Any]] = {
            "frames": ((*at_size, 3), np.uint8),
            "frames_full": ((count, *full_size, 3), np.uint8),
        }
        deliver.expect(wanted | ({"known": (at_size, bool)} if propagates else {}))

    def timed(*clip: NDArray[Any]) -> Propagated:
        begin = time.perf_counter()
        propagated = propagate(*clip)
        session.components.timings["propagation"] = time.perf_counter() - begin
        return propagated

    with backend.active():
        prepared = complete_inputs(config, backend, *arrays, request.padding, timed if propagates else None, ready)
        (output,) = _run(stage, prepared, streams, request, finite)
        result = {"frames": output.frames[: prepared.count]}
        if prepared.propagated is not None:
            result = paste_known(result["frames"], prepared.propagated, xp)
        result["frames_full"] = resize_frames(result["frames"], prepared.full_size, xp)
        (result,) = deliver([result], finite)
    seconds, timings = _timed("complete", session, start)
    return Completion(**result, noise=output.noise, seconds=seconds, timings=timings)


def _timed(stage: str, session: Session, start: float) -> tuple[float, Timings]:
    """Returns the seconds since `start` and those of each component, and logs them."""
    seconds, timings = time.perf_counter() - start, dict(session.components.timings)
    parts = ", ".join(f"{name} {value:.2f}" for name, value in timings.items())
    _LOG.info("%s took %.2f s: %s", stage, seconds, parts)
    return seconds, timings


def rehearse(
    session: Session, stages: Sequence[str], request: Request, frame_size: Size | None, from_rgb: bool
) -> None:
    """Makes every kind of call that clips will make, once, on blank pictures; see `Model.warm_up`."""
    config, backend, padding = config_of(session.manifest), session.backend, request.padding
    height, width = frame_size or (config.size if padding is None else (padding.height, padding.width))
    seen = np.zeros((config.frames, height, width), np.uint8)
    rgb = np.zeros((*seen.shape, 3), np.uint8)
    with backend.active():
        prepare_modal(seen > 0, config.size, backend.xp)  # bool has kernels of its own
    with session.components.rehearsing():
        for stage in stages:
            if stage == "segment":
                depth = None if from_rgb else seen.astype(np.float32)
                run_segment(session, SegmentInputs(seen, depth, rgb, request, depth_kind="relative"))
            else:
                run_complete(session, CompleteInputs(rgb, seen, seen > 0, request))
    session.components.start_timing()


def paste_known(frames: Array, propagated: Propagated, xp: Any) -> dict[str, Array]:
    """Pastes the known pixels into drawn frames uint8 [T, H, W, 3]; returns both as `frames` and `known`."""
    known = xp.asarray(propagated.known)
    return {"frames": xp.where(known[..., None], xp.asarray(propagated.rgb), frames), "known": known}


def find_depth(session: Session, pictures: Array, channels: DepthChannels | None = None) -> Array:
    """Computes prepared depth float32 [T, H, W] from prepared frames [T, 3, H, W], on the backend's device.

    Args:
        channels: their order for the network; None for the bundle's.

    Raises:
        InputError: the bundle has no depth component.
    """
    return normalise_clip(find_maps(session, pictures, channels), session.backend.xp)


def find_maps(session: Session, pictures: Array, channels: DepthChannels | None = None) -> Array:
    """Computes relative depth [T, H, W], nearer is larger, not yet normalised; otherwise as `find_depth`."""
    from ...pictures import depth as chain

    config, xp = config_of(session.manifest), session.backend.xp
    keys = [entry.components["depth"] for entry in session.manifest.tasks.values() if "depth" in entry.components]
    if config.depth is None or not keys:
        raise InputError(
            f"bundle {session.bundle.path} has no depth component; pass `depth`, or export it again with "
            "`amodal export --depth CHECKPOINT`.",
            field="depth",
        )
    frames = chain.quantise_frames(pictures, xp)
    order, maps = channels or config.depth.channels, []
    with session.components.use(keys[0]) as network:
        for index in range(len(frames)):
            pixels = chain.prepare_depth_input(frames[index : index + 1], channels=order, xp=xp)
            maps.append(chain.resize_align_corners(network({"pixels": pixels})["depth"], config.size, xp))
    depth = xp.concatenate(maps)
    return depth if config.depth.kind == "relative" else chain.invert_distances(depth, xp)


def _begin(
    session: Session, name: StageName, request: Request, arrays: Sequence[Any], depth: bool = False
) -> tuple[Stage, list[NoiseStream]]:
    """Returns the stage and the noise of each sample; raises if this bundle or the memory plan cannot serve the call.

    Args:
        arrays: the caller's unchecked pictures.
        depth: whether depth is computed.
    """
    stage = Stage(session.components, name, request.settings)
    session.components.start_timing()
    seed, samples = request.seed, request.samples
    if samples < 1:
        raise InputError(f"{samples} samples: expected 1 or more.", field="samples")
    if isinstance(seed, NoiseStream) and samples > 1:
        raise InputError(f"{samples} samples need a whole number as seed, which others follow; not a noise stream.")
    if isinstance(seed, FrameNoise):
        seed = seed.of_clip()
    streams = [seed] if isinstance(seed, NoiseStream) else [NoiseStream(seed + index) for index in range(samples)]
    if session.planned is None:
        return stage, streams
    sizes = [*_sizes_of(arrays), *((request.padding.size,) if request.padding else ())]
    largest = (max(height for height, _ in sizes), max(width for _, width in sizes)) if sizes else None
    shape = run_shape((name,), request.settings, samples=request.samples, depth=depth, given=largest)
    fitted: RunShape = session.planned.fit_to_budget(shape)
    return replace(stage, settings=replace(request.settings, cfg_rows=fitted.cfg_rows)), streams


def _sizes_of(arrays: Sequence[Any]) -> list[Size]:
    """Returns the (h, w) of unchecked masks and pictures, leaving out those of no plausible shape."""
    shapes = [shape_of(array) for array in arrays]
    shapes = [shape[:3] if len(shape) == 4 and shape[-1] == 3 else shape for shape in shapes]  # RGB, channels last
    return [(int(shape[-2]), int(shape[-1])) for shape in shapes if len(shape) in (3, 4) and 0 not in shape]


def shape_of(array: Any) -> tuple[int, ...]:
    """Returns the shape of an unchecked array; () if it has none."""
    if isinstance(array, list | tuple):
        return (len(array), *shape_of(array[0])) if array else ()
    shape = getattr(array, "shape", None) or getattr(array, "__cuda_array_interface__", {}).get("shape", ())
    return tuple(shape)


def _run(
    stage: Stage, prepared: Inputs, streams: list[NoiseStream], request: Request, finite: Finiteness
) -> list[StageOutput]:
    callback, count = request.callback, prepared.count
    trimmed = None if callback is None else lambda step, sigma, latents: callback(step, sigma, latents[:count])
    return run_stage(stage, prepared.conditions, streams, trimmed, finite)
