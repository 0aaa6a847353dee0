"""What the tasks of Diffusion-VAS find."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...execution.components import Timings
from ...sampling.noise import NoiseStream


@dataclass(frozen=True)
class Segmentation:
    """What `Model.segment` found.

    Arrays are numpy's; those of the backend with `to="device"` (CuPy's on a GPU); or the buffers of `out`.

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
    """What `Model.complete` drew; arrays as in `Segmentation`.

    Attributes:
        frames: uint8 [T, H, W, 3], RGB of the whole object, at the bundle's size.
        frames_full: uint8 [T, h, w, 3], the same at the size of the frames handed in; with `padding`, of the padded
            frame.
        noise: the noise stream after this stage.
        seconds: wall time; `timings` has it by component.
        known: bool [T, H, W], the pixels of `frames` that are visible or carried over from other frames; all others
            are drawn. None without propagation: then all are.
    """

    frames: NDArray[np.uint8]
    frames_full: NDArray[np.uint8]
    noise: NoiseStream
    seconds: float
    timings: Timings
    known: NDArray[np.bool_] | None = None
