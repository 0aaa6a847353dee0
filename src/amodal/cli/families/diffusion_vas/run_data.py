"""The settings, inputs and outputs of `amodal run`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.cli.console import settings_from
from amodal.runtime.families.diffusion_vas.config import STAGES
from amodal.runtime.families.diffusion_vas.results import Completion, Segmentation
from amodal.runtime.families.diffusion_vas.settings import Settings
from amodal.runtime.families.diffusion_vas.shape import RunShape, run_shape
from amodal.runtime.pictures.padding import Padding
from amodal.runtime.sampling.schedule import Churn


def settings_of(options: Mapping[str, Any]) -> Settings:
    """The sampler's settings.

    Raises:
        InputError: a value is out of range.
    """
    least, most = options["churn_sigmas"]
    return settings_from(Settings, options, churn=Churn(options["churn"], least, most, options["churn_noise"]))


def shape_of(options: Mapping[str, Any]) -> RunShape:
    """What determines the memory of the run."""
    stage = options["stage"]
    tasks: tuple[str, ...] = STAGES if stage == "both" else (stage,) if stage else ()
    return run_shape(tasks, settings_of(options), samples=options["samples"], depth=options["depth"] is None)


@dataclass(frozen=True)
class Clip:
    """The inputs: frames uint8 [T, H, W, 3], masks bool [T, H, W], depth [T, h, w], and the frames' file names."""

    frames: NDArray[np.uint8]
    modal: NDArray[np.bool_]
    depth: NDArray[np.float32] | None
    amodal: NDArray[np.bool_] | None
    names: list[str] | None
    warnings: list[str]


@dataclass(frozen=True)
class Outputs:
    """The stages' results; `padding` is the room around the frame, with --pad."""

    segmentation: Segmentation | None
    completion: Completion | None
    padding: Padding | None

    @property
    def stages(self) -> dict[str, Segmentation | Completion]:
        """Results by stage, of those that ran."""
        named = {"segment": self.segmentation, "complete": self.completion}
        return {stage: output for stage, output in named.items() if output is not None}

    @property
    def masks(self) -> list[NDArray[np.bool_]]:
        """Whole-object masks bool [T, H, W] per seed, with the padding; empty without `segment`."""
        return [sample.masks_full for sample in self.segmentation.samples] if self.segmentation else []

    def in_frame(self, pictures: NDArray[Any]) -> NDArray[Any]:
        """Crops the padding off."""
        return pictures if self.padding is None else self.padding.crop(pictures)
