"""What `amodal run` is asked, what it reads, and what it finds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.families.diffusion_vas.config import STAGES
from amodal.runtime.families.diffusion_vas.results import Completion, Segmentation
from amodal.runtime.families.diffusion_vas.settings import Settings
from amodal.runtime.families.diffusion_vas.shape import RunShape, run_shape
from amodal.runtime.pictures.padding import Padding
from amodal.runtime.sampling.schedule import Churn


@dataclass(frozen=True)
class RunOptions:
    """The options of `amodal run`, by their names there; those of the sampler are `settings`."""

    bundle: str
    frames: str
    masks: str
    out: str
    settings: Settings
    depth: str | None
    stage: str | None
    amodal: str | None
    object_id: int | None
    seed: int
    samples: int
    pad: bool
    propagate: bool | None
    backend: str
    device: str | None
    threads: int | None
    memory: Any
    vram: int | None
    engine_dir: Path | None
    verify: bool
    overlay: bool
    overwrite: bool
    as_json: bool
    quiet: bool

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> RunOptions:
        """From what click parsed.

        Raises:
            InputError: a sampler setting that is out of range.
        """
        least, most = options["churn_sigmas"]
        churn = Churn(options["churn"], least, most, options["churn_noise"])
        named = {field.name: options[field.name] for field in fields(Settings) if field.name != "churn"}
        settings = Settings(churn=churn, **named)
        return cls(settings=settings, **{f.name: options[f.name] for f in fields(cls) if f.name != "settings"})

    @property
    def seeds(self) -> list[int]:
        """One per sample."""
        return [self.seed + index for index in range(self.samples)]

    @property
    def shape(self) -> RunShape:
        """What of the run decides its memory."""
        tasks: tuple[str, ...] = STAGES if self.stage == "both" else (self.stage,) if self.stage else ()
        return run_shape(tasks, self.settings, samples=self.samples, depth=self.depth is None)


@dataclass(frozen=True)
class Clip:
    """What was read: frames uint8 [T, H, W, 3], masks bool [T, H, W], depth [T, h, w], and the frames' file names."""

    frames: NDArray[np.uint8]
    modal: NDArray[np.bool_]
    depth: NDArray[np.float32] | None
    amodal: NDArray[np.bool_] | None
    names: list[str] | None
    warnings: list[str]


@dataclass(frozen=True)
class Found:
    """What the stages found; `padding` is the room around the frame, with --pad."""

    seen: Segmentation | None
    whole: Completion | None
    padding: Padding | None

    @property
    def outputs(self) -> dict[str, Segmentation | Completion]:
        """The results of the stages that ran, by their names."""
        named = {"segment": self.seen, "complete": self.whole}
        return {stage: output for stage, output in named.items() if output is not None}

    @property
    def masks(self) -> list[NDArray[np.bool_]]:
        """Whole-object masks bool [T, H, W] of each seed, as large as the run drew them; none without `segment`."""
        return [sample.masks_full for sample in self.seen.samples] if self.seen else []

    def in_frame(self, pictures: NDArray[Any]) -> NDArray[Any]:
        """What lies in the frame."""
        return pictures if self.padding is None else self.padding.crop(pictures)
