"""What `amodal run` is asked, what it reads, and what it finds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.bundle.manifest import StageName
from amodal.runtime.execution.findings import Completion, Segmentation
from amodal.runtime.memory.buffers import RunShape
from amodal.runtime.pictures.padding import Padding
from amodal.runtime.sampling.guidance import is_guided
from amodal.runtime.sampling.schedule import Churn


@dataclass(frozen=True)
class RunOptions:
    """The options of `amodal run`, by their names there."""

    bundle: str
    frames: str
    masks: str
    out: str
    depth: str | None
    stage: str | None
    amodal: str | None
    object_id: int | None
    seed: int
    samples: int
    pad: bool
    propagate: bool | None
    steps: int
    guidance: tuple[float, float]
    fps: float
    churn: float
    churn_sigmas: tuple[float, float]
    churn_noise: float
    context: Any
    decode_chunk: int | None
    cfg_rows: Any
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

    @property
    def seeds(self) -> list[int]:
        """One per sample."""
        return [self.seed + index for index in range(self.samples)]

    @property
    def shape(self) -> RunShape:
        """What of the run decides its memory."""
        stages: dict[str | None, tuple[StageName, ...]] = {
            "segment": ("segment",),
            "complete": ("complete",),
            "both": ("segment", "complete"),
        }
        return RunShape(
            stages.get(self.stage, ()),
            depth=self.depth is None,
            guided=is_guided(self.guidance),
            steps=self.steps,
            samples=self.samples,
            decode_chunk=self.decode_chunk,
            cfg_rows=self.cfg_rows,
        )

    @property
    def sampling(self) -> dict[str, Any]:
        """The arguments that both stages share."""
        return {
            "steps": self.steps,
            "guidance": self.guidance,
            "fps": self.fps,
            "churn": Churn(self.churn, *self.churn_sigmas, self.churn_noise),
            "context": self.context,
            "decode_chunk": self.decode_chunk,
            "cfg_rows": self.cfg_rows,
        }


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
