"""Sampler and conditioning settings of a run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypedDict

from ...errors import InputError
from ...pictures.depth import DepthChannels, check_channels
from ...sampling.denoiser import guidance_ramp, is_guided
from ...sampling.schedule import Churn, karras_sigmas
from .config import ContextLayout

CfgRows = Literal["auto", "batched", "separate"]
PRESETS = {"exact": 25, "balanced": 10, "fast": 6}
"""Sampler steps by name; `exact` is as released."""


@dataclass(frozen=True)
class Settings:
    """Settings of a run.

    Attributes:
        steps: sampler steps.
        guidance: guidance scale of the first and of the last frame, linear in between. If neither exceeds 1, there is
            no guidance and a step costs half.
        fps: frames per second of the clip, a condition of the U-Net (8 in the authors' demo, 2 for TAO-Amodal).
        churn: EDM's stochasticity; None for none, as released.
        context: context layout, `reference` or `aligned` if the bundle's graphs serve both; None for the bundle's.
        decode_chunk: frames that the VAE decodes at once; None for the bundle's. It changes the result, because the
            decoder is temporal.
        cfg_rows: both CFG rows in one call (`batched`), or one after the other in less memory (`separate`). `auto`
            follows the memory plan; without one, on a CPU, the rows run side by side.
        depth_channels: order of the channels that the depth network is given: `demo` (blue first) or `rgb`, see
            `amodal.runtime.pictures.depth.prepare_depth_input`; None for the bundle's.

    Raises:
        InputError: a value out of its range.
    """

    steps: int = 25
    guidance: tuple[float, float] = (1.5, 1.5)
    fps: float = 8.0
    churn: Churn | None = None
    context: ContextLayout | None = None
    decode_chunk: int | None = None
    cfg_rows: CfgRows = "auto"
    depth_channels: DepthChannels | None = None

    def __post_init__(self) -> None:
        # These two raise for steps and guidance out of range.
        karras_sigmas(self.steps, 1.0, 2.0)
        guidance_ramp(self.guidance, 1)
        if self.decode_chunk is not None and self.decode_chunk < 1:
            raise InputError(f"decode chunk {self.decode_chunk}: expected 1 frame or more.", field="decode_chunk")
        if self.cfg_rows not in ("auto", "batched", "separate"):
            raise InputError(
                f"cfg_rows {self.cfg_rows!r} is unknown; expected auto, batched or separate.", field="cfg_rows"
            )
        check_channels(self.depth_channels)
        if not 0 < self.fps < math.inf:
            raise InputError(f"fps {self.fps}: expected a number above 0.", field="fps")

    @property
    def guided(self) -> bool:
        """Whether there is an unconditional row."""
        return is_guided(self.guidance)


class SettingsKeywords(TypedDict, total=False):
    """The fields of `Settings` as keyword arguments."""

    steps: int
    guidance: tuple[float, float]
    fps: float
    churn: Churn | None
    context: ContextLayout | None
    decode_chunk: int | None
    cfg_rows: CfgRows
    depth_channels: DepthChannels | None
