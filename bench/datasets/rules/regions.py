"""SSSD's and PACO's figures on COCOA: sums over all regions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..clip import Clip, Prediction
from .diffusion_vas import _masks
from .rules import Measured, Scores, by_row, column


@dataclass(frozen=True)
class RegionRules:
    """`sssd` over all regions, `paco` without stuff."""

    kind: str

    @property
    def name(self) -> str:
        """See `Rules`."""
        return self.kind

    @property
    def title(self) -> str:
        """See `Rules`."""
        return "SSSD on COCOA (CVPR 2020)" if self.kind == "sssd" else "PACO on COCOA, without stuff"

    @property
    def notes(self) -> str:
        """See `Rules`."""
        return (
            "miou is the sum of intersections over the sum of unions of all regions, not a mean of IoUs "
            "(mean_of_ious). pacc is the share of the regions' pixels that are found."
        )

    def measure(self, clip: Clip, prediction: Prediction | None) -> dict[str, Any]:
        """See `Rules`."""
        amodal = clip.amodal()
        guess = clip.modal() if prediction is None else _masks(prediction, clip)
        kept = [self.kind == "sssd" or not stuff for stuff in clip.facts["stuff"]]
        amodal, guess = amodal[kept], guess[kept]
        counts = {"shared": amodal & guess, "union": amodal | guess, "whole": amodal}
        return {name: [int(n) for n in masks.sum(axis=(1, 2))] for name, masks in counts.items()}

    def rows(self, clips: Sequence[Measured], about: Mapping[str, Any]) -> dict[str, Scores]:
        """See `Rules`; Top-K keeps the best of each count, so it has the mean of IoUs only."""
        rows: dict[str, Scores] = {}
        for name, values in by_row(clips).items():
            if name not in ("Modal", "Top-1"):
                continue
            shared, union, whole = (column(values, key) for key in ("shared", "union", "whole"))
            rows[name] = {
                "miou": float(shared.sum() / union.sum()),
                "pacc": float(shared.sum() / whole.sum()),
                "mean_of_ious": float(np.mean(shared / np.maximum(union, 1))),
                "regions": len(shared),
            }
        return rows
