"""How a stage is run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, TypedDict

import numpy as np

from ...errors import InputError
from ...sampling.denoiser import guidance_ramp, is_guided
from ...sampling.schedule import Churn, karras_sigmas
from .config import ContextLayout

CfgRows = Literal["auto", "batched", "separate"]


@dataclass(frozen=True)
class Settings:
    """How a stage is run.

    Attributes:
        steps: sampler steps.
        guidance: guidance scale of the first and of the last frame, linear in between; at most 1 throughout means none,
            at half the cost.
        fps: frames per second of the clip, a condition of the U-Net (8 in the authors' demo, 2 for TAO-Amodal).
        churn: EDM's stochasticity; none by default, as released.
        context: context layout, `reference` or `aligned` where the bundle's graphs serve both; None for the bundle's.
        decode_chunk: frames that the VAE decodes at once; None for the bundle's. Part of the result: the decoder is
            temporal.
        cfg_rows: both CFG rows in one call (`batched`), one after the other, in less memory (`separate`), or what the
            memory plan says, and where there is none, the backend is best at (`auto`): on a CPU, side by side.

    Raises:
        InputError: a value out of its range.
    """

    steps: int = 25
    guidance: tuple[float, float] = (1.5, 1.5)
    fps: float = 8.0
    churn: Churn = field(default_factory=Churn)
    context: ContextLayout | None = None
    decode_chunk: int | None = None
    cfg_rows: CfgRows = "auto"

    def __post_init__(self) -> None:
        # Checked here so that nothing runs before.
        karras_sigmas(self.steps, 1.0, 2.0)
        guidance_ramp(self.guidance, 1)
        if self.decode_chunk is not None and self.decode_chunk < 1:
            raise InputError(f"decode chunk {self.decode_chunk}: expected 1 frame or more.", field="decode_chunk")
        if self.cfg_rows not in ("auto", "batched", "separate"):
            raise InputError(
                f"cfg_rows {self.cfg_rows!r} is unknown; expected auto, batched or separate.", field="cfg_rows"
            )
        if not np.isfinite(self.fps) or self.fps <= 0:
            raise InputError(f"fps {self.fps}: expected a number above 0.", field="fps")

    @property
    def guided(self) -> bool:
        """Whether there is an unconditional row."""
        return is_guided(self.guidance)


class SettingsKeywords(TypedDict, total=False):
    """The fields of `Settings` as keywords; `churn` may be None."""

    steps: int
    guidance: tuple[float, float]
    fps: float
    churn: Churn | None
    context: ContextLayout | None
    decode_chunk: int | None
    cfg_rows: CfgRows


def settings_of(keywords: SettingsKeywords) -> Settings:
    """Settings from keywords.

    Raises:
        InputError: a value out of its range.
        TypeError: a keyword that `Settings` does not have.
    """
    given = dict(keywords)
    if given.get("churn", ...) is None:
        del given["churn"]
    return Settings(**given)  # type: ignore[arg-type]
