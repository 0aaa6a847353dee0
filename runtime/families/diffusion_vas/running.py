"""One call of a model: what the caller handed over, a stage, and what it found."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...arrays.resampling import Size
from ...backends import Backend
from ...bundle.manifest import StageName
from ...bundle.reading import Bundle
from ...errors import InputError
from ...execution.components import Components, stage_keys
from ...execution.findings import Completion, Delivery, Out, Segmentation, To
from ...memory.choice import Planned
from ...pictures.images import resize_frames, resize_masks, threshold
from ...pictures.propagation import Propagated, propagate
from ...sampling.finiteness import Finiteness
from ...sampling.noise import NoiseStream
from ...sampling.sampler import Array, Callback
from .context import check_layout
from .inputs import Inputs, complete_inputs, segment_inputs
from .stage import Settings, StageOutput, run_stage

if TYPE_CHECKING:
    from ...pictures.padding import Padding


@dataclass(frozen=True)
class Loaded:
    """What a model holds: a bundle's components on a backend, and the plan that each run is held to."""

    bundle: Bundle
    backend: Backend
    components: Components
    planned: Planned | None


@dataclass(frozen=True)
class Call:
    """How a method of `Model` was called, but for its pictures; it has the meanings.

    Attributes:
        rehearsal: whether it is one, for `Model.warm_up`.
        propagate: see `Model.complete`; None for what the bundle says.
    """

    settings: Settings
    seed: int | NoiseStream
    padding: Padding | None = None
    samples: int = 1
    callback: Callback | None = None
    to: To = "host"
    out: Out | None = None
    rehearsal: bool = False
    propagate: bool | None = None


def run_segment(loaded: Loaded, modal: Any, depth: Any, rgb: Any, call: Call) -> Segmentation:
    """`Model.segment`."""
    start, manifest, backend = time.perf_counter(), loaded.bundle.manifest, loaded.backend
    xp, padding = backend.xp, call.padding
    streams = _further(_begin(loaded, "segment", call), call)
    if call.out and call.samples > 1:
        raise InputError(f"out takes the results of one sample, and {call.samples} were asked for.")
    call = _settled(loaded, "segment", call, depth is None, _sizes_of(modal, rgb if depth is None else depth))
    deliver, finite = Delivery(backend, call.to, call.out), Finiteness(xp)

    def ready(count: int, full_size: tuple[int, int]) -> None:
        at_size = (count, *manifest.size)
        deliver.expect(
            {"masks": (at_size, bool), "masks_full": ((count, *full_size), bool), "frames": ((*at_size, 3), np.uint8)}
        )

    with backend.active():
        given = segment_inputs(
            manifest, backend, modal, depth, rgb, padding, lambda pictures: find_depth(loaded, pictures), ready
        )
        outputs = _run(loaded, "segment", given, streams, call, finite)
        found: list[dict[str, Any]] = []
        for output in outputs:
            frames = output.frames[: given.count]
            masks = threshold(frames, given.visible)
            full = padding.masks(frames, given.raw, xp) if padding else resize_masks(masks, given.full_size, xp)
            found.append({"masks": masks, "masks_full": full, "frames": frames})
        found = deliver(found, finite)
    seconds, timings = time.perf_counter() - start, dict(loaded.components.timings)
    one, *others = (
        Segmentation(**drawn, noise=output.noise, seconds=seconds, timings=timings)
        for drawn, output in zip(found, outputs, strict=True)
    )
    return replace(one, others=tuple(others))


def run_complete(loaded: Loaded, rgb: Any, modal: Any, amodal: Any, call: Call) -> Completion:
    """`Model.complete`."""
    start, manifest, backend = time.perf_counter(), loaded.bundle.manifest, loaded.backend
    stream = _begin(loaded, "complete", call)
    call = _settled(loaded, "complete", call, False, _sizes_of(rgb, modal, amodal))
    xp, propagates = backend.xp, manifest.propagate if call.propagate is None else call.propagate
    deliver, finite = Delivery(backend, call.to, call.out), Finiteness(xp)

    def ready(count: int, full_size: tuple[int, int]) -> None:
        at_size = (count, *manifest.size)
        wanted: dict[str, tuple[tuple[int, ...], Any]] = {
            "frames": ((*at_size, 3), np.uint8),
            "frames_full": ((count, *full_size, 3), np.uint8),
        }
        deliver.expect(wanted | ({"known": (at_size, bool)} if propagates else {}))

    def carry(pictures: NDArray[np.uint8], seen: NDArray[np.bool_], whole: NDArray[np.bool_]) -> Propagated:
        begin = time.perf_counter()
        shown = propagate(pictures, seen, whole)
        loaded.components.timings["propagation"] = time.perf_counter() - begin
        return shown

    with backend.active():
        carrying = carry if propagates else None
        given = complete_inputs(manifest, backend, rgb, modal, amodal, call.padding, carrying, ready)
        (output,) = _run(loaded, "complete", given, [stream], call, finite)
        drawn = {"frames": output.frames[: given.count]}
        if given.shown is not None:
            drawn = composed(drawn["frames"], given.shown, xp)
        drawn["frames_full"] = resize_frames(drawn["frames"], given.full_size, xp)
        (found,) = deliver([drawn], finite)
    seconds, timings = time.perf_counter() - start, dict(loaded.components.timings)
    return Completion(**found, noise=output.noise, seconds=seconds, timings=timings)


def composed(frames: Array, shown: Propagated, xp: Any) -> dict[str, Array]:
    """Drawn frames uint8 [T, H, W, 3] with what the clip shows in its place, and where that is, bool [T, H, W]."""
    known = xp.asarray(shown.known)
    return {"frames": xp.where(known[..., None], xp.asarray(shown.rgb), frames), "known": known}


def find_depth(loaded: Loaded, pictures: Array) -> Array:
    """Prepared depth float32 [T, H, W] of prepared frames [T, 3, H, W], on the backend's device.

    Raises:
        InputError: the bundle has no depth component.
    """
    from ...pictures import depth as chain

    manifest, xp = loaded.bundle.manifest, loaded.backend.xp
    if manifest.depth is None:
        raise InputError(
            f"bundle {loaded.bundle.path} has no depth component; pass `depth`, or export it again with "
            "`amodal export --depth CHECKPOINT`.",
            field="depth",
        )
    frames = chain.quantise_frames(pictures, xp)
    maps = []
    with loaded.components.use("depth") as network:
        for index in range(len(frames)):
            pixels = chain.prepare_depth_input(frames[index : index + 1], xp=xp)
            maps.append(chain.resize_align_corners(network({"pixels": pixels})["depth"], manifest.size, xp))
    return chain.normalise_clip(xp.concatenate(maps), xp)


def _begin(loaded: Loaded, stage: StageName, call: Call) -> NoiseStream:
    """Finds out what this bundle cannot do before anything runs; gives the noise stream to draw from."""
    stage_keys(loaded.bundle, stage)
    check_layout(call.settings.context, loaded.bundle.manifest.context_layout)
    loaded.components.start_timing()
    return call.seed if isinstance(call.seed, NoiseStream) else NoiseStream(call.seed)


def _settled(loaded: Loaded, stage: StageName, call: Call, depth: bool, given: Sequence[Size]) -> Call:
    """The call, held to the memory plan; `given` has the sizes of what was handed over."""
    if loaded.planned is None:
        return call
    sizes = [*given, *((call.padding.size,) if call.padding else ())]
    largest = (max(height for height, _ in sizes), max(width for _, width in sizes)) if sizes else None
    return replace(call, settings=loaded.planned.settle(stage, call.settings, call.samples, depth, largest))


def _sizes_of(*given: Any) -> list[Size]:
    """(h, w) of masks and pictures that nobody has looked at yet; without those that do not say."""
    shapes = [_shape_of(pictures) for pictures in given]
    shapes = [shape[:3] if len(shape) == 4 and shape[-1] == 3 else shape for shape in shapes]  # RGB, channels last
    return [(int(shape[-2]), int(shape[-1])) for shape in shapes if len(shape) in (3, 4) and 0 not in shape]


def _shape_of(given: Any) -> tuple[int, ...]:
    if isinstance(given, list | tuple):
        return (len(given), *_shape_of(given[0])) if given else ()
    found = getattr(given, "shape", None) or getattr(given, "__cuda_array_interface__", {}).get("shape", ())
    return tuple(found)


def _run(
    loaded: Loaded, stage: StageName, given: Inputs, streams: list[NoiseStream], call: Call, finite: Finiteness
) -> list[StageOutput]:
    return run_stage(
        loaded.components,
        stage,
        given.conditions,
        streams,
        call.settings,
        _trimmed(call.callback, given.count),
        finite=finite,
        rehearsal=call.rehearsal,
    )


def _further(first: NoiseStream, call: Call) -> list[NoiseStream]:
    """The streams of all samples."""
    if call.samples < 1:
        raise InputError(f"{call.samples} samples: expected 1 or more.", field="samples")
    if isinstance(call.seed, NoiseStream):
        if call.samples > 1:
            raise InputError(
                f"{call.samples} samples need a whole number as seed, which others follow; not a noise stream."
            )
        return [first]
    return [first, *(NoiseStream(call.seed + index) for index in range(1, call.samples))]


def _trimmed(callback: Callback | None, count: int) -> Callback | None:
    if callback is None:
        return None
    return lambda step, sigma, latents: callback(step, sigma, latents[:count])
