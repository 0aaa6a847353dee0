"""Runs the decoder on any number of prompts of a picture, a few in one call."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from ...arrays.interop import Array, as_input
from ...errors import InputError, NonFiniteError
from ...execution.components import Component
from ...execution.session import Session, components_of
from ...files.rle import encode_rle
from .config import MASKS, TASK, Config, config_of
from .encoding import Encoding, encoding_of
from .prompts import Prompts, read_prompts
from .results import Prediction, RlePrediction
from .selection import Select, check_select, choose
from .shape import PictureRun
from .upsampling import masks_at

CELLS_ON_HOST = 2**17
"""Pixels of low-resolution masks in one call of the decoder on a CPU, or those of 2 boxes if that is more. Of
EfficientSAM-Ti at 1024x1024, 16 boxes give the same bits 2 at a time, on one thread in no more time, and the process
peaks at 384 MB instead of 1318."""


class PredictKeywords(TypedDict, total=False):
    """The options of `Model.predict`, which documents them."""

    select: Select
    threshold: float
    batch: int | None
    logits: bool
    cut_points: bool


@dataclass(frozen=True)
class Options:
    """How prompts are answered; see `Model.predict`."""

    select: Select = "best"
    threshold: float = 0.0
    batch: int | None = None
    logits: bool = False
    cut_points: bool = False

    def __post_init__(self) -> None:
        check_select(self.select)
        threshold: object = self.threshold
        if not isinstance(threshold, int | float | np.number) or not math.isfinite(threshold):
            raise InputError(f"threshold {self.threshold}: expected a finite logit; 0 is usual.", field="threshold")

    def at_once(self, config: Config) -> int:
        """Returns the prompts of one call; raises `InputError` if the bundle takes fewer."""
        if self.batch is None:
            return config.boxes_at_once
        if not 1 <= self.batch <= config.boxes_at_once:
            raise InputError(
                f"batch {self.batch}: expected 1 to {config.boxes_at_once}, the most that this bundle decodes at once.",
                field="batch",
            )
        return self.batch


@dataclass(frozen=True)
class Asked:
    """Boxes and points of one picture as `Model.predict` takes them."""

    boxes: Any = None
    points: Any = None
    point_labels: Any = None
    scores: Any = None

    def read(self, session: Session, encoding: Encoding, options: Options) -> Prompts:
        """Returns the prompts; raises `InputError` if they do not fit the picture."""
        given = (None if value is None else _on_host(session, value, name) for name, value in vars(self).items())
        boxes, points, labels, scores = given
        config = config_of(session.manifest)
        return read_prompts(config, encoding.size, boxes, points, labels, scores, options.cut_points)


def predict(session: Session, image: Any, asked: Asked, options: Options) -> Prediction:
    """Runs `Model.predict`."""
    session.components.start_timing()
    return answer(session, image, asked, options)


def answer(session: Session, image: Any, asked: Asked, options: Options) -> Prediction:
    """Does the same without setting the timings of components to zero."""
    start = time.perf_counter()
    encoding, prompts = _begin(session, image, asked, options)
    (height, width), axis = encoding.size, (MASKS,) if options.select == "all" else ()
    try:
        masks = np.empty((prompts.count, *axis, height, width), np.bool_)
    except MemoryError as error:
        raise InputError(
            f"{prompts.count} masks of {height}x{width} do not fit into memory; use `predict_rle`.",
            field="boxes",
        ) from error
    parts, at = [], 0
    for part in decode(session, encoding, prompts, options):
        masks[at : at + len(part)] = part.masks
        at += len(part)
        parts.append((part.iou, part.score, part.index, part.logits))
    iou, score, index, logits = (_joined(arrays) for arrays in zip(*parts, strict=True))
    return Prediction(masks, iou, score, index, logits, time.perf_counter() - start, dict(session.components.timings))


def predict_rle(session: Session, image: Any, asked: Asked, options: Options) -> RlePrediction:
    """Runs `Model.predict_rle`."""
    if options.select == "all" or options.logits:
        name = "select" if options.select == "all" else "logits"
        raise InputError(f"`{name}`: run-length masks are one per prompt, without logits; use `predict`.", field=name)
    start = time.perf_counter()
    session.components.start_timing()
    encoding, prompts = _begin(session, image, asked, options)
    rles, parts = [], []
    for part in decode(session, encoding, prompts, options):
        rles += [encode_rle(mask) for mask in part.masks]
        parts.append((part.iou, part.score, part.index))
    iou, score, index = (_joined(arrays) for arrays in zip(*parts, strict=True))
    return RlePrediction(rles, iou, score, index, time.perf_counter() - start, dict(session.components.timings))


def predict_pieces(session: Session, image: Any, asked: Asked, options: Options) -> Iterator[Prediction]:
    """Runs `Model.predict_pieces`; inputs are checked before it returns."""
    session.components.start_timing()
    encoding, prompts = _begin(session, image, asked, options)
    return decode(session, encoding, prompts, options)


def decode(session: Session, encoding: Encoding, prompts: Prompts, options: Options) -> Iterator[Prediction]:
    """Yields the results of prompts, as many at a time as the decoder takes; an empty one if there are none."""
    step = options.at_once(config_of(session.manifest))
    with _held(session, "mask_decoder") as network:
        for start in range(0, max(prompts.count, 1), step):
            piece = prompts.piece(start, start + step)
            with session.backend.active():
                found = _decode(session, network, encoding, piece, options)
            yield found


def _decode(session: Session, network: Component, encoding: Encoding, prompts: Prompts, options: Options) -> Prediction:
    start, backend, xp = time.perf_counter(), session.backend, session.backend.xp
    config, count = config_of(session.manifest), prompts.count
    if count:
        at_once = count if backend.on_gpu else max(2, CELLS_ON_HOST // math.prod(config.low_size))
        logits, ious = _call(network, encoding, prompts, at_once, xp)
        if not bool(xp.isfinite(logits).all()):
            raise _overflow()
        iou = backend.to_host(ious)
    else:
        logits, iou = xp.empty((0, MASKS, *config.low_size), np.float32), np.empty((0, MASKS), np.float32)
    if not np.isfinite(iou).all():
        raise _overflow()
    index = choose(iou, options.select)
    rows = np.arange(count).reshape(-1, *[1] * (index.ndim - 1))
    low = logits[xp.asarray(rows), xp.asarray(index)]
    flat = low.reshape(-1, *config.low_size)
    masks = backend.to_host(masks_at(flat, encoding.size, options.threshold, xp))
    chosen = iou[rows, index]
    return Prediction(
        masks.reshape(*index.shape, *encoding.size),
        chosen,
        prompts.scores.reshape(rows.shape) * chosen,
        index,
        backend.to_host(low) if options.logits else None,
        time.perf_counter() - start,
    )


def _call(network: Component, encoding: Encoding, prompts: Prompts, at_once: int, xp: Any) -> tuple[Array, Array]:
    """Calls the decoder; returns logits [N, 4, h, w] and expected IoU [N, 4].

    No call is of a single prompt unless there is no other: products of one row are summed in another order, so that an
    object's bits would depend on the number of the others.
    """
    starts = list(range(0, prompts.count, at_once))
    if len(starts) > 1 and prompts.count - starts[-1] == 1:
        starts.pop()
    made = []
    for start, end in zip(starts, [*starts[1:], prompts.count], strict=True):
        piece = prompts.piece(start, end)
        asked = {"prompts": xp.asarray(piece.points), "labels": xp.asarray(piece.labels)}
        made.append(network({**encoding.arrays, **asked}))
    if len(made) == 1:
        return made[0]["logits"], made[0]["iou"]
    return xp.concatenate([one["logits"] for one in made]), xp.concatenate([one["iou"] for one in made])


def _begin(session: Session, image: Any, asked: Asked, options: Options) -> tuple[Encoding, Prompts]:
    """Encodes the picture and reads its prompts; raises if the memory plan cannot serve the call."""
    at_once = options.at_once(config_of(session.manifest))
    encoding = encoding_of(session, image)
    prompts = asked.read(session, encoding, options)
    if session.planned is not None:
        boxes = min(at_once, max(prompts.count, 1))
        session.planned.fit_to_budget(PictureRun((TASK,), boxes=boxes, given=encoding.size))
    return encoding, prompts


@contextmanager
def _held(session: Session, role: str) -> Iterator[Component]:
    """Keeps a component loaded in the block; the device is current only while it is loaded and closed."""
    key, held = components_of(session.bundle, TASK)[role], ExitStack()
    with session.backend.active():
        network = held.enter_context(session.components.use(key))
    try:
        yield network
    finally:
        with session.backend.active():
            held.close()


def _joined(arrays: Iterable[NDArray[Any] | None]) -> Any:
    found = [array for array in arrays if array is not None]
    return np.concatenate(found) if found else None


def _on_host(session: Session, value: Any, name: str) -> NDArray[Any]:
    with session.backend.active():
        array: Array = as_input(value, name, session.backend.xp)
        return session.backend.to_host(array)


def _overflow() -> NonFiniteError:
    return NonFiniteError(
        0,
        0.0,
        "The logits of the masks are not finite: the model overflowed; export it again with "
        "`amodal export --precision fp32`, or check the checkpoint's weights.",
    )
