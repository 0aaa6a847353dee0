"""Whole masks from visible ones: of a picture's objects, and of a clip's, picture by picture."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...clips.source import ArraySource
from ...errors import InputError
from ...execution.session import Session
from ...pictures.images import binarise, resize_modal
from ...pictures.objects import ObjectId
from ...progress import Progress, silent
from ...sampling.noise import NoiseStream
from ..diffusion_vas.block_settings import Seed
from ..diffusion_vas.objects import Objects, SegmentedObjects, frames_of, masks_of, on_host, require_one_ratio
from ..diffusion_vas.running import Request
from .config import TASK, Config, config_of
from .encoding import PICTURES_AT_ONCE, Encoding, encode_pictures, encoding_of
from .predicting import Asked, Options, answer
from .prompts import SHOWN
from .results import PictureSegmentation, Prediction
from .upsampling import bicubic
from .visible import boxes_of, check_points, points_on

Bools = NDArray[np.bool_]
_ANY_SIZE = (0, 0)  # no size at which masks count as prepared, as those of Diffusion-VAS do


def predict_from_masks(
    session: Session,
    image: Any,
    modal: Any,
    points: int,
    unite: bool,
    scores: Any,
    options: Options,
) -> Prediction:
    """Runs `Model.predict_from_masks`."""
    start = time.perf_counter()
    session.components.start_timing()
    check_points(points, config_of(session.manifest).slots)
    masks = _visible(on_host(modal, "modal", session))
    encoding = encoding_of(session, image)
    if masks.shape[1:] != encoding.size:
        (height, width), (rows, columns) = encoding.size, masks.shape[1:]
        raise InputError(
            f"modal is {rows}x{columns} and the picture {height}x{width} (height x width); expected the same size.",
            field="modal",
        )
    found = from_visible(session, encoding, masks, points, unite, scores, options)
    return replace(found, seconds=time.perf_counter() - start)


def from_visible(
    session: Session, encoding: Encoding, masks: Bools, points: int, unite: bool, scores: Any, options: Options
) -> Prediction:
    """Predicts from visible masks [N, h, w] of the encoding's size; those without pixels get an empty mask, IoU 0."""
    seen: Bools = np.any(masks, axis=(1, 2))
    where = labels = None
    if points and seen.any():
        where = np.stack([points_on(mask, points) for mask in masks[seen]])
        labels = np.full(where.shape[:2], SHOWN)
    given = np.ones(len(masks)) if scores is None else on_host(scores, "scores", session)
    if given.shape != (len(masks),):
        raise InputError(f"scores have shape {list(given.shape)}; expected {len(masks)}, one per mask.", field="scores")
    found = answer(session, encoding, Asked(boxes_of(masks)[seen], where, labels, given[seen]), options)
    if not seen.all():
        found = _with_unseen(found, seen)
    if unite:
        found.masks[...] |= masks[:, None] if options.select == "all" else masks
    return found


def _with_unseen(found: Prediction, seen: Bools) -> Prediction:
    """Inserts empty results where an object is not seen."""

    def spread(array: NDArray[Any] | None, fill: Any = 0) -> Any:
        if array is None:
            return None
        whole = np.full((len(seen), *array.shape[1:]), fill, array.dtype)
        whole[seen] = array
        return whole

    lowest = np.finfo(np.float32).min
    return replace(
        found,
        masks=spread(found.masks),
        iou=spread(found.iou),
        score=spread(found.score),
        index=spread(found.index),
        logits=spread(found.logits, lowest),
    )


def segment_clip(
    session: Session, modal: Any, rgb: Any, request: Request, given: Mapping[str, Any]
) -> PictureSegmentation:
    """Runs `Model.segment`: one object in a clip of any length; see `segment_clips` for `given` and the errors."""
    usual = Request()
    own = {
        name: getattr(request, name)
        for name in ("padding", "samples", "callback", "to", "out")
        if getattr(request, name) != getattr(usual, name)
    }
    found: Any = segment_clips(session, [(0, modal)], rgb, request.seed, {**given, **own})[0]
    assert isinstance(found, PictureSegmentation)
    return found


def segment_clips(
    session: Session, objects: Objects, rgb: Any, seed: Seed, given: Mapping[str, Any]
) -> SegmentedObjects:
    """Runs `Model.segment_objects`: each frame by itself, from the boxes of what is visible, united with it.

    Args:
        given: further options by name; None where they were not given. `progress` is called frame by frame; those of
            Diffusion-VAS would change nothing, and are refused.

    Raises:
        InputError: one of them was given, there are no frames, or masks and frames do not fit together.
    """
    start, config = time.perf_counter(), config_of(session.manifest)
    session.components.start_timing()
    progress: Progress = given.get("progress") or silent
    _require_unused({name: value for name, value in given.items() if name != "progress"})
    if rgb is None:
        raise InputError("segment of a SAMEO bundle needs rgb, the frames; it uses no depth.", field="rgb")
    masks, frames = masks_of(objects, session, _ANY_SIZE), frames_of(rgb, session)
    source = ArraySource(masks, frames)
    require_one_ratio(source.size, (int(frames.shape[1]), int(frames.shape[2])), config.size)
    drawn = {o: _Drawn(config, source) for o in masks}
    seen = np.any([m.any(axis=(1, 2)) for m in masks.values()], axis=0)
    for number, encoding in _encoded(session, frames, seen):
        progress(TASK, f"frame {number + 1} of {source.count}", number, source.count)
        visible = np.stack([m[number] for m in masks.values()])
        of_masks = replace(encoding, size=source.size)
        found = from_visible(session, of_masks, visible, 0, True, None, Options(logits=True))
        for index, each in enumerate(drawn.values()):
            if visible[index].any():
                each.put(number, found, index, visible[index])
    noise = NoiseStream(seed) if isinstance(seed, (int, np.integer)) else seed
    seconds, timings = time.perf_counter() - start, dict(session.components.timings)
    results: dict[ObjectId, Any] = {
        o: PictureSegmentation(d.masks, d.full, d.frames, noise, seconds, timings, (), d.iou) for o, d in drawn.items()
    }
    empty = tuple(o for o in masks if not masks[o].any())
    return SegmentedObjects(results, None, empty, noise, seconds, timings)


class _Drawn:
    """What was found of one object, frame by frame."""

    def __init__(self, config: Config, source: ArraySource) -> None:
        count, self._size = source.count, config.size
        self.masks = np.zeros((count, *config.size), np.bool_)
        self.full = np.zeros((count, *source.size), np.bool_)
        self.frames = np.zeros((count, *config.size, 3), np.uint8)
        self.iou = np.zeros(count, np.float32)

    def put(self, number: int, found: Prediction, index: int, visible: Bools) -> None:
        assert found.logits is not None
        wide = bicubic(found.logits[index], self._size)
        self.masks[number] = (wide >= 0) | (resize_modal(visible[None], self._size)[0] >= 128)
        self.full[number] = found.masks[index]
        self.frames[number] = np.rint(255 / (1 + np.exp(-np.clip(wide, -50, 50))))[..., None]
        self.iou[number] = found.iou[index]


def _encoded(session: Session, frames: NDArray[np.uint8], wanted: Bools) -> Iterator[tuple[int, Encoding]]:
    """Yields the numbers and encodings of the wanted frames; a few are encoded before the first of them is decoded."""
    numbers = [int(number) for number in np.flatnonzero(wanted)]
    for start in range(0, len(numbers), PICTURES_AT_ONCE):
        some = numbers[start : start + PICTURES_AT_ONCE]
        yield from zip(some, list(encode_pictures(session, (frames[number] for number in some))), strict=True)


def _require_unused(unused: Mapping[str, Any]) -> None:
    for name, value in unused.items():
        if value is not None:
            raise InputError(
                f"`{name}`: a SAMEO bundle finds masks in each picture by itself, from rgb and modal alone; omit it.",
                field=name,
            )


def _visible(modal: NDArray[Any]) -> Bools:
    """Returns visible masks bool [N, h, w] of the objects of a picture."""
    if modal.ndim != 3 or 0 in modal.shape[1:]:
        advice = "; for one object, write `modal[None]`" if modal.ndim == 2 else ""
        raise InputError(
            f"modal has shape {list(modal.shape)}; expected [N, h, w], the visible mask of each object{advice}.",
            field="modal",
        )
    if not len(modal):
        return modal.astype(np.bool_)
    # One at a time: unlike the frames of a clip, they may differ in their value.
    return np.concatenate([binarise(mask[None], f"modal {index}") for index, mask in enumerate(modal)])
