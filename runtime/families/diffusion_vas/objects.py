"""Runs the tasks on arrays of any length and any number of objects."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...arrays.interop import as_input
from ...clips.noise import FrameNoise
from ...clips.source import ArraySource, require_distinct
from ...errors import InputError
from ...execution.components import Timings
from ...execution.session import Session
from ...pictures import images
from ...pictures.depth_kind import DepthKind, check_kind, orient_depth
from ...pictures.objects import ObjectId
from ...sampling.noise import NoiseStream
from .block_settings import BlockRequest
from .blocks import CompletedBlock, SegmentedBlock, complete_blocks, segment_blocks
from .config import config_of
from .results import Completion, Segmentation

Objects = Mapping[ObjectId, Any] | Sequence[tuple[ObjectId, Any]] | Any
"""Masks by object: a mapping, pairs, or one array [N, T, h, w] whose objects are 0 to N - 1."""


@dataclass(frozen=True)
class SegmentedObjects(Mapping[ObjectId, Segmentation]):
    """Results of `Model.segment_objects`, by object.

    Attributes:
        results: in the order of the objects.
        judged: with a gate, its judgement of each frame, uint8 [T], by object; indices into
            `amodal.runtime.clips.gate.JUDGEMENTS`.
        empty: the objects that are seen in no frame; their masks are empty.
        noise: the noise after this stage, the seed of `complete_objects` that continues it.
        seconds: wall time of all objects together; `timings` has it by component.
    """

    results: dict[ObjectId, Segmentation]
    judged: dict[ObjectId, NDArray[np.uint8]] | None
    empty: tuple[ObjectId, ...]
    noise: NoiseStream | FrameNoise
    seconds: float
    timings: Timings = field(default_factory=dict)

    def __getitem__(self, object_id: ObjectId) -> Segmentation:
        return self.results[object_id]

    def __iter__(self) -> Iterator[ObjectId]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)


@dataclass(frozen=True)
class CompletedObjects(Mapping[ObjectId, Completion]):
    """Results of `Model.complete_objects`, by object; `seconds` and `timings` are of all together."""

    results: dict[ObjectId, Completion]
    noise: NoiseStream | FrameNoise
    seconds: float
    timings: Timings = field(default_factory=dict)

    def __getitem__(self, object_id: ObjectId) -> Completion:
        return self.results[object_id]

    def __iter__(self) -> Iterator[ObjectId]:
        return iter(self.results)

    def __len__(self) -> int:
        return len(self.results)


def segment_objects(
    session: Session,
    objects: Objects,
    request: BlockRequest,
    *,
    depth: Any = None,
    rgb: Any = None,
    depth_kind: DepthKind | None = None,
) -> SegmentedObjects:
    """Runs `Model.segment_objects`."""
    begin = time.perf_counter()
    session.components.start_timing()
    maps = None if depth is None else _relative(on_host(depth, "depth", session), depth_kind)
    if depth is None and depth_kind is not None:
        raise InputError("`depth_kind` says what `depth` is, and there is none; give it, or omit `depth_kind`.")
    if depth is None and rgb is None:
        raise InputError("segment needs depth, or rgb to compute it from; neither was given.", field="depth")
    frames = None if rgb is None else frames_of(rgb, session)
    source = ArraySource(masks_of(objects, session, config_of(session.manifest).size), frames, maps)
    if source.frame_size is not None:
        require_one_ratio(source.size, source.frame_size, config_of(session.manifest).size)
    empty = tuple(o for o in source.objects if not source.modal(o, range(source.count)).any())
    blocks = list(segment_blocks(session, source, request))
    seconds, timings = time.perf_counter() - begin, dict(session.components.timings)
    results = {
        o: Segmentation(
            masks := _joined(blocks, "masks", o),
            images.resize_masks(masks, source.size),
            _joined(blocks, "frames", o),
            blocks[-1].noise,
            seconds,
            timings,
        )
        for o in source.objects
    }
    judged = None if request.gate is None else {o: _joined(blocks, "judged", o) for o in source.objects}
    return SegmentedObjects(results, judged, empty, blocks[-1].noise, seconds, timings)


def complete_objects(
    session: Session, rgb: Any, objects: Objects, amodal: Mapping[ObjectId, Any], request: BlockRequest
) -> CompletedObjects:
    """Runs `Model.complete_objects`; `amodal` holds masks, or the segmentations that have them."""
    begin = time.perf_counter()
    session.components.start_timing()
    source = ArraySource(masks_of(objects, session, config_of(session.manifest).size), frames_of(rgb, session))
    if source.frame_size is not None:
        require_one_ratio(source.size, source.frame_size, config_of(session.manifest).size)
    whole: dict[ObjectId, NDArray[Any]] = {}
    for object_id in source.objects:
        if object_id not in amodal:
            raise InputError(f"amodal has no masks of object {object_id}, only of {list(amodal)}.", field="amodal")
        given = amodal[object_id]
        whole[object_id] = on_host(given.masks if isinstance(given, Segmentation) else given, "amodal", session)
        if len(whole[object_id]) != source.count:
            raise InputError(
                f"amodal has {len(whole[object_id])} masks of object {object_id}, for {source.count} frames.",
                field="amodal",
            )

    def masks_in(object_id: ObjectId, numbers: range) -> NDArray[np.bool_]:
        return whole[object_id][numbers.start : numbers.stop]

    blocks = list(complete_blocks(session, source, masks_in, request))
    seconds, timings = time.perf_counter() - begin, dict(session.components.timings)
    results = {
        o: Completion(
            frames := _joined(blocks, "frames", o),
            images.resize_frames(frames, source.size),
            blocks[-1].noise,
            seconds,
            timings,
            None if blocks[0].known is None else _joined(blocks, "known", o),
        )
        for o in source.objects
    }
    return CompletedObjects(results, blocks[-1].noise, seconds, timings)


def _joined(blocks: Sequence[SegmentedBlock] | Sequence[CompletedBlock], name: str, object_id: ObjectId) -> Any:
    return np.concatenate([getattr(block, name)[object_id] for block in blocks])


def masks_of(objects: Objects, session: Session, size: images.Size) -> dict[ObjectId, NDArray[np.bool_]]:
    """Returns the visible masks of each object, bool [T, h, w], each read as a whole.

    Args:
        size: (H, W) at which floats are prepared masks.

    Raises:
        InputError: an id twice, another shape, or values that can be read in two ways.
    """
    if isinstance(objects, Mapping):
        pairs = list(objects.items())
    elif isinstance(objects, Sequence) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in objects):
        pairs = list(objects)
    else:
        array = on_host(objects, "objects", session)
        if array.ndim != 4:
            raise InputError(
                f"objects are an array {list(array.shape)}; expected masks by object, or an array [N, T, h, w].",
                field="masks",
            )
        pairs = list(enumerate(array))
    require_distinct([object_id for object_id, _ in pairs])
    masks = {}
    for object_id, given in pairs:
        array = on_host(given, f"object {object_id}", session)
        if array.ndim != 3 or 0 in array.shape:
            raise InputError(
                f"object {object_id} has masks {list(array.shape)}; expected [T, h, w], none of them 0.", field="masks"
            )
        masks[object_id] = images.binarise(array) if images.is_raw(array, size) else array > 0
    return masks


def frames_of(rgb: Any, session: Session) -> NDArray[np.uint8]:
    """Returns frames uint8 [T, h, w, 3] on the host; raises `InputError` for anything else."""
    frames = on_host(rgb, "rgb", session)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3:
        raise InputError(
            f"rgb is {frames.dtype} {list(frames.shape)}; expected uint8 [T, h, w, 3] for long clips and several "
            "objects.",
            field="rgb",
        )
    return frames


def on_host(array: Any, name: str, session: Session) -> NDArray[Any]:
    """Returns the caller's array on the host; raises `InputError` if it cannot be read."""
    with session.backend.active():
        return session.backend.to_host(as_input(array, name, session.backend.xp))


def _relative(depth: NDArray[Any], kind: DepthKind | None) -> NDArray[Any]:
    check_kind(kind)
    if depth.ndim != 3 or depth.dtype.kind not in "fiu" or 0 in depth.shape:
        raise InputError(f"depth is {depth.dtype} {list(depth.shape)}; expected numbers [T, h, w].", field="depth")
    relative, notes = orient_depth(depth, kind)
    for note in notes:
        warnings.warn(note, stacklevel=5)  # at the call of the model's method
    return relative


def require_one_ratio(masks: images.Size, frames: images.Size, size: images.Size) -> None:
    """Raises `InputError` if frames have another ratio than the masks, by more than a pixel at the bundle's size.

    Args:
        masks, frames, size: (h, w) of the masks, of the frames, and of the bundle.
    """
    (height, width), (h, w), (rows, columns) = masks, frames, size
    if abs(height * w - width * h) * max(rows / (height * w), columns / (width * h)) > 1:
        raise InputError(
            f"the masks are {height}x{width} and rgb is {h}x{w}; expected one ratio of sides.", field="rgb"
        )
