"""The Python interface: a `Model` has one method per task; `amodal.runtime.loading.load` returns it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from typing import Any

import numpy as np
from typing_extensions import Unpack

from .arrays.interop import stream_of
from .backends import Backend
from .bundle.manifest import Manifest
from .clips.stream import Stream
from .clips.windows import WindowStrategy
from .errors import BackendError
from .execution.components import Components, Memory, Source
from .execution.delivery import Out, To
from .execution.session import Session
from .families import Bundle
from .families.diffusion_vas.block_settings import BlockKeywords, Seed, block_request, is_long, long_request
from .families.diffusion_vas.methods import DepthMethods
from .families.diffusion_vas.objects import (
    CompletedObjects,
    Objects,
    SegmentedObjects,
    complete_objects,
    segment_objects,
)
from .families.diffusion_vas.results import Completion, Segmentation
from .families.diffusion_vas.running import (
    CompleteInputs,
    Request,
    SegmentInputs,
    rehearse,
    run_complete,
    run_segment,
)
from .families.diffusion_vas.settings import Settings, SettingsKeywords
from .families.diffusion_vas.streaming import StreamKeywords
from .families.requirements import require_family, works_by_picture
from .families.sameo.family import rehearse as rehearse_pictures
from .families.sameo.methods import PictureMethods
from .families.sameo.segmenting import segment_clip, segment_clips
from .families.streaming import open_stream
from .memory.choice import MemoryWish, Planned
from .memory.plan import MemoryPlan
from .pictures.depth_kind import DepthKind
from .pictures.padding import Padding
from .progress import Progress, silent
from .sampling.sampler import Callback

_LOG = logging.getLogger(__name__)


class Model(DepthMethods, PictureMethods):
    """A loaded bundle, returned by `load`. Not thread-safe; load one per thread.

    `segment` of a SAMEO bundle finds the mask in each frame by itself, from `rgb` and the box of what is visible, with
    which it is united; frames may be any number, and of the options only `seed` and `windows` are not refused.

    Args:
        planned: the memory plan, which overrides `memory` and limits each run; None if no GPU memory is used.
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
        progress: Progress = silent,
    ) -> None:
        self.bundle, self.backend, self._planned = bundle, backend, planned
        if planned is not None:
            memory = planned.plan.memory
        chosen: Memory = "resident" if memory == "auto" else memory
        if source is None and planned is not None and backend.engines is not None:
            source = planned.build
        components = Components(bundle, backend, chosen, source=source, verify=verify, progress=progress)
        self.session = Session(components, planned)
        self._gpu: int | None = None  # its number
        if backend.xp is not np:
            with backend.active():
                self._gpu = int(backend.xp.cuda.Device().id)

    @property
    def memory(self) -> Memory:
        """Whether all components stay loaded (`resident`) or only one at a time (`sequential`)."""
        return self.session.components.memory

    @property
    def plan(self) -> MemoryPlan | None:
        """The plan of GPU memory; None on a backend that uses none, or whose graphs were not measured."""
        return None if self._planned is None else self._planned.plan

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest

    @property
    def config(self) -> Any:
        """The manifest's `config` as the family reads it; in every family it has `frames` and `size` (H, W)."""
        return self.bundle.config

    def run(self, task: str, inputs: Any) -> Any:
        """Runs any task of the bundle's family on the family's own inputs; returns its own result.

        Raises:
            InputError: the bundle lacks the task, or the inputs do not fit.
        """
        return self.bundle.family.run(task, self.session, inputs)

    def segment(
        self,
        modal: Any,
        *,
        depth: Any = None,
        rgb: Any = None,
        depth_kind: DepthKind | None = None,
        seed: Seed = 23,
        padding: Padding | None = None,
        samples: int = 1,
        callback: Callback | None = None,
        to: To = "host",
        out: Out | None = None,
        windows: WindowStrategy = "shifted",
        **settings: Unpack[SettingsKeywords],
    ) -> Segmentation:
        """Finds the whole-object masks of an object from its visible ones.

        Arrays are numpy's or any that support DLPack or `__cuda_array_interface__` (CuPy, torch, PyCUDA, Numba),
        contiguous or strided; arrays on the model's device are read there. All work is done when this returns.

        Args:
            modal: visible masks [T, h, w]: raw (bool; integers of any size that hold one object: one value besides 0,
                or soft edges, which are cut at half of the range; or such floats in [0, 1]), or prepared floats in
                [-1, 1] of the bundle's size. On a GPU, bool, integers of two values, or prepared. The size is that of
                the frames, or of their ratio. Fewer frames than the bundle's are padded by repeating the last, and the
                result is trimmed; more are run in windows.
            depth: relative depth [T, h, w] of any size, nearer is larger; or prepared like `modal`; None: from `rgb`.
            rgb: frames uint8 [T, h, w, 3] or prepared floats [T, 3, H, W] in [-1, 1]; needed only without depth.
            depth_kind: what the numbers of `depth` mean: `relative` (nearer is larger: disparity, 1 / z), `inverse`
                (nearer is smaller, without a unit) or `metric` (distances, in any unit). Pixels without a measurement
                are filled, with a warning. None for relative, unless it looks metric, which is refused
                (`amodal.runtime.pictures.depth_kind`).
            seed: seed of torch's CPU generator, or a noise stream to continue (it is not changed).
            padding: border around the frame, for objects that leave it; `modal` must be raw and of the frame's size.
            samples: number of seeds to run, `seed` and those that follow it. The result is that of the first, the same
                as without the others, which are in its `others`. What does not depend on noise is computed once.
            callback: called after each step with (step, sigma, latents [T, 4, h, w]), sample after sample.
            to: `host` for results in host memory, `device` to leave them on the backend's device.
            out: buffers to write results into instead, by name (`masks`, `masks_full`, `frames`), on the host or the
                device; after an error, their content is undefined. Not with several samples.
            windows: how clips of more frames than the bundle's are cut (`amodal.runtime.clips.windows`). They are run
                on the host's arrays, without `padding`, `samples`, `callback`, `to` and `out`.
            settings: `steps`, `guidance`, `fps`, `churn`, `context`, `decode_chunk`, `cfg_rows` and `depth_channels`,
                see `amodal.runtime.families.diffusion_vas.settings.Settings`.

        Raises:
            InputError: shapes, dtypes, ranges or devices that do not fit, masks of several objects or that can be read
                in two ways, or no depth and no way to compute it.
            MemoryBudgetError: the run would take more GPU memory than allowed.
            NonFiniteError: the latents became NaN or infinite.
        """
        request = Request(Settings(**settings), seed, padding, samples, callback, to, out)
        given: dict[str, Any] = {"depth": depth, "depth_kind": depth_kind}
        if works_by_picture(self.session):
            return segment_clip(self.session, modal, rgb, request, given | settings)
        if is_long(self.session, modal):
            blocks = long_request(request, windows)
            return segment_objects(self.session, [(0, modal)], blocks, rgb=rgb, **given)[0]
        return run_segment(self.session, SegmentInputs(modal, depth, rgb, request, depth_kind))

    def complete(
        self,
        rgb: Any,
        modal: Any,
        amodal: Any,
        *,
        seed: Seed = 23,
        padding: Padding | None = None,
        propagate: bool | None = None,
        callback: Callback | None = None,
        to: To = "host",
        out: Out | None = None,
        windows: WindowStrategy = "shifted",
        **settings: Unpack[SettingsKeywords],
    ) -> Completion:
        """Draws the RGB of the whole object from its visible part and its amodal masks.

        Args:
            rgb: frames uint8 [T, h, w, 3], or prepared floats [T, 3, H, W] in [-1, 1].
            modal: visible masks as in `segment`.
            amodal: whole-object masks bool [T, H, W], as returned by `segment` (other sizes: nearest neighbour).
            seed: as in `segment`; `segmentation.noise` continues its stream, as in the authors' demo.
            padding: as in `segment`; `rgb` and `modal` must be raw and of the frame's size, `amodal` of the padded one.
            propagate: keep visible pixels and copy hidden ones from frames that show them, at the bundle's size and on
                the host, before the network draws the rest (`amodal.runtime.pictures.propagation`). None for the
                bundle's default: the default bundle does; exported checkpoints, like the authors' code, do not.
            out: the results are `frames`, `frames_full` and, with propagation, `known`.

        The other arguments and the errors are those of `segment`.
        """
        require_family(self.session, "complete", "diffusion-vas")
        request = Request(Settings(**settings), seed, padding, 1, callback, to, out, propagate)
        if is_long(self.session, modal):
            blocks = long_request(request, windows)
            return complete_objects(self.session, rgb, [(0, modal)], {0: amodal}, blocks)[0]
        return run_complete(self.session, CompleteInputs(rgb, modal, amodal, request))

    def segment_objects(
        self,
        objects: Objects,
        *,
        depth: Any = None,
        rgb: Any = None,
        depth_kind: DepthKind | None = None,
        seed: Seed = 23,
        **more: Unpack[BlockKeywords],
    ) -> SegmentedObjects:
        """Finds the whole-object masks of several objects of a clip of any length.

        Depth, its encoding and noise are computed once. The result of an object is that of `segment`, bit for bit on a
        CPU, whatever the others.

        Args:
            objects: raw visible masks [T, h, w] as in `segment`, by object: a mapping, pairs of id and masks, or one
                array [N, T, h, w], whose objects are 0 to N - 1. One that is seen in no frame is in the result's
                `empty`.
            depth, rgb, depth_kind, seed: as in `segment`; `rgb` raw.
            more: settings as in `segment`; `windows`; `objects_at_once`, None for as many as fit into memory, at
                most 8; `gate`, an `amodal.Gate` that leaves out frames of which nothing is hidden; `block_frames`;
                `progress`; see `amodal.runtime.families.diffusion_vas.block_settings.BlockRequest`.

        Raises:
            InputError: no objects, an id twice, objects of different lengths or sizes; otherwise as `segment`.
        """
        if works_by_picture(self.session):
            given = {"depth": depth, "depth_kind": depth_kind, **more}
            return segment_clips(self.session, objects, rgb, seed, given)
        request = block_request(seed, more)
        return segment_objects(self.session, objects, request, depth=depth, rgb=rgb, depth_kind=depth_kind)

    def complete_objects(
        self,
        rgb: Any,
        objects: Objects,
        amodal: Mapping[Any, Any],
        *,
        seed: Seed = 23,
        **more: Unpack[BlockKeywords],
    ) -> CompletedObjects:
        """Draws the RGB of several whole objects of a clip of any length.

        Args:
            rgb: frames uint8 [T, h, w, 3].
            amodal: whole-object masks by object, or the result of `segment_objects`.

        The other arguments and the errors are those of `segment_objects`; `more` also takes `propagate`.
        """
        require_family(self.session, "complete_objects", "diffusion-vas")
        return complete_objects(self.session, rgb, objects, amodal, block_request(seed, more))

    def stream(self, **options: Unpack[StreamKeywords]) -> Stream:
        """Opens a stream of frames, whose objects are found as they come (`amodal.runtime.clips.stream`).

        Use it as a context manager, or close it. Call `warm_up` first, so that the first window is no slower. With a
        SAMEO bundle each frame is a window by itself, from its picture and without depth; of the options only
        `deadline`, `forget` and `clock` mean something.

        Args:
            every: new frames from window to window; default 2.
            lookahead: frames by which results lag, since the last frames of a window are drawn worst; default 2.
            windows: `newest` (default), or `dilated`, which look twice as far back for half as many U-Net calls more.
            deadline: seconds that a window may take; objects that do not fit keep their last mask. Default None.
            forget: seconds after which an object that is not seen ends, and a gap between frames after which the
                history begins anew; default 3.
            clock: gives seconds; default `time.monotonic`.
            preset: `fast` (default), `balanced` or `exact`; with `auto` the best for which there is time.
            gate: `amodal.Gate`, the default, leaves out objects that nothing hides; None draws all.
            depth_kind, seed: as in `segment`.
            settings: as in `segment`; `steps` instead of `preset`.

        Raises:
            InputError: an option is out of range, or means nothing to the bundle's family.
        """
        return open_stream(self.bundle, self.session, options)

    def warm_up(
        self,
        stages: Sequence[str] | None = None,
        *,
        frame_size: tuple[int, int] | None = None,
        from_rgb: bool | None = None,
        padding: Padding | None = None,
        **settings: Unpack[SettingsKeywords],
    ) -> None:
        """Prepares for clips, so that the first is as fast as the next: loading, kernels, CUDA graphs, memory.

        Every kind of call that a clip makes is made once, on blank pictures; the sampler takes two steps.

        Args:
            stages: the stages to prepare; None for all that the model was loaded for.
            frame_size: (h, w) of the pictures to come; None for the bundle's.
            from_rgb: whether depth will be computed; None for whether it can be.

        The other arguments and the errors are those of `segment`.
        """
        if works_by_picture(self.session):
            rehearse_pictures(self.session, frame_size)
            return
        loaded: Any = None if self._planned is None else self._planned.plan.run
        if from_rgb is None:
            from_rgb = self.config.depth is not None and (loaded is None or loaded.depth)
        if stages is None:
            stages = tuple(self.manifest.tasks) if loaded is None else loaded.tasks
        rehearse(self.session, stages, Request(Settings(**settings), 0, padding), frame_size, from_rgb)

    def on_stream(self, stream: Any) -> AbstractContextManager[None]:
        """Makes this thread's calls in the block run on the caller's CUDA stream, after the work that is queued there.

        The model's GPU, on which the stream must be, is the current one in the block.

        Args:
            stream: of CuPy, torch, PyCUDA, Numba or anything with `__cuda_stream__`, or its address. Ignored on a CPU.

        Raises:
            InputError: it is not a stream.
        """
        return nullcontext() if self._gpu is None else self._on_stream(stream, self._gpu)

    @contextmanager
    def _on_stream(self, stream: Any, gpu: int) -> Iterator[None]:
        # The device first: CuPy has a current stream for each.
        with self.backend.xp.cuda.Device(gpu), stream_of(stream, self.backend.xp):
            yield

    def close(self) -> None:
        """Frees the model's memory and ends its threads; calling it again does nothing.

        On a CPU, ONNX Runtime keeps its arena, which all models of a process share. Errors of a device that has failed
        are ignored, since an earlier call has reported them.
        """
        with suppress(BackendError), self.backend.active():
            self.session.components.close()
        self.session.components.close()  # if the device could not even be made the current one

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
