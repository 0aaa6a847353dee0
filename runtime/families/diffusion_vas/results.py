"""Results of `Model.segment` and `Model.complete`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...clips.noise import FrameNoise
from ...execution.components import Timings
from ...sampling.noise import NoiseStream


@dataclass(frozen=True)
class Segmentation:
    """Result of `Model.segment`.

    Arrays are numpy's; with `to="device"`, the backend's (CuPy's on a GPU); with `out`, the given buffers.

    Attributes:
        masks: bool [T, H, W], the whole object, at the bundle's size.
        masks_full: bool [T, h, w], the same at the size of the input masks; with `padding`, of the padded frame.
        frames: uint8 [T, H, W, 3], the decoded pictures before the threshold.
        noise: the noise after this stage; pass it to `complete` as its seed to continue it. That of clips longer than
            the bundle's is by frame.
        seconds: wall time of all samples together; `timings` has it by component.
        others: the results of the further seeds, with several `samples`.
    """

    masks: NDArray[np.bool_]
    masks_full: NDArray[np.bool_]
    frames: NDArray[np.uint8]
    noise: NoiseStream | FrameNoise
    seconds: float
    timings: Timings
    others: tuple[Segmentation, ...] = ()

    @property
    def samples(self) -> tuple[Segmentation, ...]:
        """The results of all seeds, this one first."""
        return self, *self.others


@dataclass(frozen=True)
class Completion:
    """Result of `Model.complete`; arrays as in `Segmentation`.

    Attributes:
        frames: uint8 [T, H, W, 3], RGB of the whole object, at the bundle's size.
        frames_full: uint8 [T, h, w, 3], the same at the size of the input frames; with `padding`, of the padded frame.
        noise: the noise stream after this stage.
        seconds: wall time; `timings` has it by component.
        known: bool [T, H, W], the pixels of `frames` that are visible or copied from other frames; the network drew all
            others. None without propagation: then it drew all.
    """

    frames: NDArray[np.uint8]
    frames_full: NDArray[np.uint8]
    noise: NoiseStream | FrameNoise
    seconds: float
    timings: Timings
    known: NDArray[np.bool_] | None = None
