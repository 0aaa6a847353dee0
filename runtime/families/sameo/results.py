"""Results of `Model.predict` and of what is built on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...execution.components import Timings
from ..diffusion_vas.results import Segmentation


@dataclass(frozen=True)
class Prediction:
    """The whole masks of a picture's objects, on the host; for `select="all"` with an axis of four after N.

    Attributes:
        masks: bool [N, h, w], at the picture's size.
        iou: float32 [N], the IoU that the network expects of each mask; around [0, 1], but not limited to it.
        score: float64 [N], the front end's score times `iou`.
        index: int64 [N], which of the decoder's masks 0 to 3 it is; [N, 4] for all.
        logits: float32 [N, low_h, low_w] of the bundle's `low_size`, before bicubic upsampling; None unless asked for.
        seconds: wall time; `timings` has it by component.
    """

    masks: NDArray[np.bool_]
    iou: NDArray[np.float32]
    score: NDArray[np.float64]
    index: NDArray[np.int64]
    logits: NDArray[np.float32] | None = None
    seconds: float = 0.0
    timings: Timings = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.masks)


@dataclass(frozen=True)
class RlePrediction:
    """The same with masks as COCO's compressed RLEs, `{"size": [h, w], "counts": text}`, for any number of boxes.

    Attributes:
        rles: one per prompt.
        iou, score, index: as in `Prediction`.
    """

    rles: list[dict[str, Any]]
    iou: NDArray[np.float32]
    score: NDArray[np.float64]
    index: NDArray[np.int64]
    seconds: float = 0.0
    timings: Timings = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rles)


@dataclass(frozen=True)
class PictureSegmentation(Segmentation):
    """Result of `Model.segment` of a SAMEO bundle: that of a clip, found picture by picture.

    `frames` are the probabilities of the masks in grey, round(255 * sigmoid(logit)), without what is visible; `noise`
    is that of the seed, from which nothing was drawn. `masks` have the shape of the encoder's input, which may be of
    another ratio than the frames: give `masks_full` to `complete` of another bundle.

    Attributes:
        iou: float32 [T], the IoU that the network expects of each mask; 0 in frames that do not show the object, where
            the mask is empty.
    """

    iou: NDArray[np.float32] = field(default_factory=lambda: np.empty(0, np.float32))
