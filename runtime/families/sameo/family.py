"""SAMEO as a family: `predict` turns the boxes of a picture's objects into their whole masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from ...execution.family import Task, Trial
from ...execution.session import Session, components_of
from ...pictures.images import Size
from ...scenes import make_scene
from . import calls as description
from .config import TASK, check, config_of
from .encoding import encode_pictures, pictures_at_once
from .predicting import Asked, Options, predict
from .streaming import open_stream
from .visible import boxes_of

_SHIFT = 0.1
"""Deviation of a trial's boxes from the object's, as a part of their sides."""


@dataclass(frozen=True)
class PredictInputs:
    """Arguments of `Model.predict`."""

    image: Any
    asked: Asked
    options: Options = field(default_factory=Options)


class Predict:
    """The one task."""

    def trial(self, session: Session, trial: Trial) -> dict[str, NDArray[Any]]:
        """Predicts masks in a scene, from as many boxes as the decoder takes at once, around its object.

        Returns:
            `logits` float32 [N, h, w], `iou` float32 [N] and `masks` bool [N, H, W].
        """
        config, keys = config_of(session.manifest), components_of(session.bundle, TASK)
        scene = make_scene(trial.seed, 1, config.size)
        trial.progress(TASK)
        if trial.components is not None and keys["mask_decoder"] not in trial.components:
            list(encode_pictures(session, scene.frames))
            return {}
        boxes = some_boxes(scene.amodal[0], config.boxes_at_once, trial.seed)
        found = predict(session, scene.frames[0], Asked(boxes), Options(logits=True))
        assert found.logits is not None
        return {"logits": found.logits, "iou": found.iou, "masks": found.masks}


class Sameo:
    """The family; see `amodal.runtime.execution.family.Family`."""

    tasks: Mapping[str, Task] = {TASK: Predict()}
    config = staticmethod(check)
    profiles = staticmethod(description.profiles)
    calls = staticmethod(description.calls)
    open_stream = staticmethod(open_stream)

    def run(self, task: str, session: Session, inputs: Any) -> Any:
        """Runs `predict` on `PredictInputs`; see `Model.predict` for the result and the errors."""
        components_of(session.bundle, task)
        if not isinstance(inputs, PredictInputs):
            raise InputError(f"{task} was given {type(inputs).__name__}; expected PredictInputs.")
        return predict(session, inputs.image, inputs.asked, inputs.options)


def some_boxes(mask: NDArray[np.bool_], count: int, seed: int) -> NDArray[np.float64]:
    """Returns boxes float64 [count, 4] around an object of a picture: its own first, then some beside it.

    Args:
        mask: bool [h, w]; without pixels, the whole picture is the object.
    """
    (box,) = boxes_of(mask[None] if mask.any() else np.ones((1, *mask.shape), np.bool_))
    sides = np.tile(box[2:] - box[:2], 2)
    shifts = np.random.default_rng(seed).uniform(-_SHIFT, _SHIFT, (count, 4))
    shifts[0] = 0
    boxes: NDArray[np.float64] = box + shifts * sides
    return boxes


def rehearse(session: Session, frame_size: Size | None) -> None:
    """Makes every kind of call of pictures of some size once; see `Model.warm_up`."""
    config = config_of(session.manifest)
    picture = np.zeros((*(frame_size or config.size), 3), np.uint8)
    several = [picture] * pictures_at_once(session.backend.on_gpu)
    boxes = some_boxes(picture[..., 0] > 0, config.boxes_at_once, 0)
    encodings = list(encode_pictures(session, several))
    if len(several) > 1:
        encodings = list(encode_pictures(session, [picture]))
    predict(session, encodings[0], Asked(boxes), Options())
    session.components.start_timing()


FAMILY = Sameo()
