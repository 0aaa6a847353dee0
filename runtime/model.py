"""The Python face: a bundle, loaded, with one method per stage."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .backends import AUTO, DEFAULT, Backend, availability, create, preferred
from .bundle import Bundle
from .components import Components, Memory, Source, Timings, Watch, stage_keys
from .context import check_layout
from .errors import EngineError, InputError
from .frames import PathLike
from .images import (
    prepare_amodal,
    prepare_depth,
    prepare_modal,
    prepare_rgb,
    resize_frames,
    resize_masks,
    threshold,
    visible_rgb,
)
from .manifest import ContextLayout, Manifest, StageName
from .memory_buffers import RunShape
from .memory_choice import MemoryWish, Planned, Vram, plan_model
from .memory_plan import MemoryPlan
from .noise import NoiseStream
from .sampler import Callback, Churn
from .stage import CfgRows, Settings, run_stage

if TYPE_CHECKING:
    from .padding import Padding


@dataclass(frozen=True)
class Segmentation:
    """What `Model.segment` found.

    Attributes:
        masks: bool [T, H, W], the whole object, at the bundle's size.
        masks_full: bool [T, h, w], the same at the size of the masks handed in; with `padding`, of the padded frame.
        frames: uint8 [T, H, W, 3], the decoded picture before the threshold.
        noise: the noise stream after this stage; hand it to `complete` as its seed to go on with it.
        seconds: wall time, of all samples together; `timings` has it by component.
        others: what the further seeds found, if `samples` were asked for.
    """

    masks: NDArray[np.bool_]
    masks_full: NDArray[np.bool_]
    frames: NDArray[np.uint8]
    noise: NoiseStream
    seconds: float
    timings: Timings
    others: tuple[Segmentation, ...] = ()

    @property
    def samples(self) -> tuple[Segmentation, ...]:
        """One per seed, this one first."""
        return self, *self.others


@dataclass(frozen=True)
class Completion:
    """What `Model.complete` drew.

    Attributes:
        frames: uint8 [T, H, W, 3], RGB of the whole object, at the bundle's size.
        frames_full: uint8 [T, h, w, 3], the same at the size of the frames handed in; with `padding`, of the padded
            frame.
        noise: the noise stream after this stage.
        seconds: wall time; `timings` has it by component.
    """

    frames: NDArray[np.uint8]
    frames_full: NDArray[np.uint8]
    noise: NoiseStream
    seconds: float
    timings: Timings


def load(
    bundle: PathLike,
    backend: str = DEFAULT,
    *,
    memory: MemoryWish = "resident",
    vram: Vram = None,
    engine_dir: PathLike | None = None,
    shape: RunShape | None = None,
    device: str | None = None,
    threads: int | None = None,
    verify: bool = True,
    watch: Watch | None = None,
    wrap: Callable[[Backend], Backend] | None = None,
) -> Model:
    """Opens a bundle for running; use the result as a context manager, or close it.

    Args:
        bundle: folder that `amodal export` made, or `default` for the small trained one inside the package, which
            draws the shapes of `amodal.runtime.scenes` in 8 frames of 64x128.
        backend: what executes: `onnxruntime`, `tensorrt_rtx`, `tensorrt`, or `auto` for the first of those with
            engines that is usable here and whose engines are there, and `onnxruntime` otherwise.
        memory: `resident` keeps components loaded, `sequential` holds one at a time; `auto` is the faster of what
            fits, which on a CPU is `resident`.
        vram: the most GPU memory that may be taken, in bytes or as text (`6GB`); only for a backend that runs engines.
        engine_dir: where that one's engines lie; None for the bundle's own folder.
        shape: the runs that the memory is planned for; None for every stage of the bundle, with the settings that
            `segment` has by default. A run that takes more is held to `vram` again before it starts.
        device: where: `cpu`, `cuda`, `cuda:1`; None for where the backend runs.
        threads: CPU threads; None for all cores.
        verify: compare each component with its hash before loading it.
        watch: called with a component's kind and what begins with it: `check` (its hashes), `load` or `run`.
        wrap: given the backend, gives what is used in its place: for whoever observes its calls.

    Raises:
        BundleError: no finished, readable, undamaged bundle.
        BackendUnavailableError: the backend cannot be used here.
        EngineError: its engines are not there, or not of this bundle.
        MemoryBudgetError: no way of running fits into `vram`.
    """
    opened = Bundle(bundle)

    def opening(name: str) -> Model:
        executor = create(name, device=device, threads=threads)
        if wrap is not None:
            executor = wrap(executor)
        planned = plan_model(
            opened, executor.name, memory, vram=vram, engine_dir=engine_dir, shape=shape, needs=executor.engines
        )
        return Model(opened, executor, memory, planned, verify=verify, watch=watch)

    if backend == AUTO:
        for name in preferred():
            if name != DEFAULT and availability(name).usable:
                with suppress(EngineError):
                    return opening(name)
        backend = DEFAULT if availability(DEFAULT).usable else AUTO  # which says of each why not
    return opening(backend)


class Model:
    """A loaded bundle, as `load` makes it. Not for use by two threads at once; load one per thread.

    Args:
        planned: its `memory` counts, and each run is held to what it allows; None where no GPU memory is used.
        source: what the backend loads from; None for the engines of `planned`, or the bundle.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        memory: MemoryWish = "resident",
        planned: Planned | None = None,
        *,
        source: Source | None = None,
        verify: bool = True,
        watch: Watch | None = None,
    ) -> None:
        self.bundle, self.backend, self._planned = bundle, backend, planned
        if planned is not None:
            memory = planned.plan.memory
        chosen: Memory = "resident" if memory == "auto" else memory
        if source is None and planned is not None and backend.engines is not None:
            source = planned.build
        self._components = Components(bundle, backend, chosen, source=source, verify=verify, watch=watch)

    @property
    def memory(self) -> Memory:
        """Whether components stay loaded (`resident`) or are held one at a time (`sequential`)."""
        return self._components.memory

    @property
    def plan(self) -> MemoryPlan | None:
        """The GPU memory that the model was loaded for; None on a backend that uses none."""
        return None if self._planned is None else self._planned.plan

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    def segment(
        self,
        modal: Any,
        *,
        depth: Any = None,
        rgb: Any = None,
        seed: int | NoiseStream = 23,
        steps: int = 25,
        guidance: tuple[float, float] = (1.5, 1.5),
        fps: float = 8.0,
        churn: Churn | None = None,
        context: ContextLayout | None = None,
        decode_chunk: int | None = None,
        cfg_rows: CfgRows = "auto",
        padding: Padding | None = None,
        samples: int = 1,
        callback: Callback | None = None,
    ) -> Segmentation:
        """Whole-object masks from visible ones.

        Args:
            modal: visible masks [T, h, w]: raw (bool, or integers where any value above 128, or 1 if that is the
                maximum, is object; any size), or prepared floats in [-1, 1] of the bundle's size. At most the
                bundle's number of frames; fewer are padded by repeating the last, and the result is trimmed.
            depth: [T, h, w] relative depth, nearer is larger, at any size; or prepared like `modal`. None to compute
                it from `rgb`.
            rgb: frames uint8 [T, h, w, 3] or prepared floats [T, 3, H, W] in [-1, 1]; needed only without depth.
            seed: seed of torch's CPU generator, or a noise stream to go on with (it is not changed).
            steps: sampler steps.
            guidance: scale for the first and the last frame; at most 1 throughout means none, at half the cost.
            fps: frames per second of the clip.
            churn: EDM's stochasticity; None for none, as released.
            context: `reference` or `aligned` where the bundle's graphs serve both; None for the bundle's own.
            decode_chunk: frames the VAE decodes at once; None for the bundle's.
            cfg_rows: `batched`, `separate` where memory is short, or `auto` for what the plan says, or where there is
                none, what the backend does best.
            padding: room around the frame, for objects that leave it; `modal` must be raw and of the frame's size.
            samples: how many seeds to run, `seed` and those that follow it. The result is the first one's, as if it
                were alone; the rest are in its `others`. What does not depend on noise is computed once.
            callback: called after each step with (step, sigma, latents [T, 4, h, w]), sample after sample.

        Raises:
            InputError: shapes, dtypes or ranges that do not fit, or no depth and no way to compute it.
            MemoryBudgetError: the run would take more GPU memory than was allowed.
            NonFiniteError: the latents became NaN or infinite.
        """
        start = time.perf_counter()
        settings = Settings(steps, guidance, fps, churn or Churn(), context, decode_chunk, cfg_rows)
        streams = _further(self._begin("segment", settings, seed), seed, samples)
        if self._planned is not None:
            settings = self._planned.settle("segment", settings, samples, depth is None)
        shape = np.shape(modal)
        size = self.manifest.size
        prepared = prepare_modal(modal, size) if padding is None else padding.prepare_modal(modal, size)
        count = self._count("modal", len(prepared))
        maps = self._depth(depth, rgb, count, padding)
        images, conditions = (np.repeat(self._padded(x)[:, None], 3, axis=1) for x in (prepared, maps))
        with self.backend.active():
            outputs = run_stage(
                self._components,
                "segment",
                images,
                conditions,
                streams,
                settings,
                _trimmed(callback, count),
            )
        found = []
        for output in outputs:
            frames = output.frames[:count]
            masks = threshold(frames, prepared)
            if padding is None:
                full = resize_masks(masks, (int(shape[-2]), int(shape[-1])))
            else:
                full = padding.masks(frames, modal)
            found.append((masks, full, frames, output.noise))
        seconds, timings = time.perf_counter() - start, dict(self._components.timings)
        first, *others = (Segmentation(*drawn, seconds, timings) for drawn in found)
        return replace(first, others=tuple(others))

    def complete(
        self,
        rgb: Any,
        modal: Any,
        amodal: Any,
        *,
        seed: int | NoiseStream = 23,
        steps: int = 25,
        guidance: tuple[float, float] = (1.5, 1.5),
        fps: float = 8.0,
        churn: Churn | None = None,
        context: ContextLayout | None = None,
        decode_chunk: int | None = None,
        cfg_rows: CfgRows = "auto",
        padding: Padding | None = None,
        callback: Callback | None = None,
    ) -> Completion:
        """RGB of the whole object from its visible part and its amodal masks.

        Args:
            rgb: frames uint8 [T, h, w, 3], or prepared floats [T, 3, H, W] in [-1, 1].
            modal: visible masks as in `segment`.
            amodal: bool [T, H, W], whole-object masks, as `segment` gives them (other sizes: nearest neighbour).
            seed: as in `segment`; with `seen.noise` both stages share one stream, as in the authors' demo.
            padding: as in `segment`; `rgb` and `modal` must be raw and of the frame's size, `amodal` shows the padded
                frame.

        The other arguments and the errors are those of `segment`.
        """
        start = time.perf_counter()
        settings = Settings(steps, guidance, fps, churn or Churn(), context, decode_chunk, cfg_rows)
        stream = self._begin("complete", settings, seed)
        if self._planned is not None:
            settings = self._planned.settle("complete", settings, 1, False)
        size = self.manifest.size
        raw = np.asarray(rgb)
        if padding is None:
            prepared = prepare_modal(modal, size)
        else:  # the edge goes on, so that resizing does not mix another colour into it
            raw, prepared = padding.pad(raw), padding.prepare_modal(modal, size)
        full_size = raw.shape[1:3] if raw.ndim == 4 and raw.dtype == np.uint8 else raw.shape[-2:]
        pictures, whole = prepare_rgb(raw, size), prepare_amodal(amodal, size)
        count = self._count("rgb", len(pictures))
        for name, other in (("modal", prepared), ("amodal", whole)):
            _same_count("rgb", count, name, len(other))
        images = visible_rgb(self._padded(pictures), self._padded(prepared))
        signed = np.where(self._padded(whole), np.float32(1.0), np.float32(-1.0))
        conditions = np.repeat(signed[:, None], 3, axis=1)
        with self.backend.active():
            (output,) = run_stage(
                self._components,
                "complete",
                images,
                conditions,
                [stream],
                settings,
                _trimmed(callback, count),
            )
        frames = output.frames[:count]
        full = resize_frames(frames, (int(full_size[0]), int(full_size[1])))
        return Completion(frames, full, output.noise, time.perf_counter() - start, dict(self._components.timings))

    def depth(self, rgb: Any) -> NDArray[np.float32]:
        """Prepared depth float32 [T, H, W] in [-1, 1] from frames, as in `segment`.

        Raises:
            InputError: the bundle has no depth component.
        """
        from . import depth as chain

        entry = self.manifest.depth
        if entry is None:
            raise InputError(
                f"bundle {self.bundle.path} has no depth component; pass depth (--depth DIR), or export it again with "
                "--depth CHECKPOINT."
            )
        frames = chain.quantise_frames(prepare_rgb(rgb, self.manifest.size))
        maps = []
        with self.backend.active(), self._components.use("depth") as network:
            for frame in frames:
                pixels = chain.prepare_depth_input(frame[None])
                relative = self.backend.to_host(network({"pixels": pixels})["depth"])
                maps.append(chain.resize_align_corners(relative, self.manifest.size)[0])
        return chain.normalise_clip(np.stack(maps))

    def close(self) -> None:
        """Gives all memory back; calling again does nothing."""
        with self.backend.active():
            self._components.close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _begin(self, stage: StageName, settings: Settings, seed: int | NoiseStream) -> NoiseStream:
        """Finds out what this bundle cannot do before anything runs; gives the noise stream to draw from."""
        stage_keys(self.bundle, stage)
        check_layout(settings.context, self.manifest.context_layout)
        self._components.start_timing()
        return seed if isinstance(seed, NoiseStream) else NoiseStream(seed)

    def _depth(self, depth: Any, rgb: Any, count: int, padding: Padding | None) -> NDArray[np.float32]:
        if depth is None and rgb is None:
            raise InputError("segment needs depth, or rgb to compute it from; neither was given.")
        if depth is None:
            pictures = prepare_rgb(rgb, self.manifest.size)
            _same_count("modal", count, "rgb", len(pictures))  # before the network runs
            maps = self.depth(pictures)
            return maps if padding is None else padding.prepare_depth(maps, self.manifest.size)
        prepare = prepare_depth if padding is None else padding.prepare_depth
        maps = prepare(depth, self.manifest.size)
        _same_count("modal", count, "depth", len(maps))
        return maps

    def _count(self, name: str, count: int) -> int:
        limit = self.manifest.frames
        if count > limit:
            raise InputError(
                f"{name} has {count} frames, this bundle takes at most {limit}; pass {limit} at a time, or export "
                f"it again with --frames {count}."
            )
        return count

    def _padded(self, array: NDArray[Any]) -> NDArray[Any]:
        missing = self.manifest.frames - len(array)
        return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


def _same_count(name: str, count: int, other: str, found: int) -> None:
    if count != found:
        raise InputError(f"{name} has {count} frames and {other} has {found}; expected the same number.")


def _further(first: NoiseStream, seed: int | NoiseStream, samples: int) -> list[NoiseStream]:
    """The streams of all samples."""
    if samples < 1:
        raise InputError(f"{samples} samples: expected 1 or more (--samples).")
    if isinstance(seed, NoiseStream):
        if samples > 1:
            raise InputError(f"{samples} samples need a whole number as seed, which others follow; not a noise stream.")
        return [first]
    return [first, *(NoiseStream(seed + index) for index in range(1, samples))]


def _trimmed(callback: Callback | None, count: int) -> Callback | None:
    if callback is None:
        return None
    return lambda step, sigma, latents: callback(step, sigma, latents[:count])
