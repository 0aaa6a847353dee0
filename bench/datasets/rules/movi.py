"""The protocols of EoRaS and C2F-Seg on MOVi, with their quirks, and a strict one beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...quality.measures import hidden_iou, iou
from ..clip import Bools, Clip, Prediction
from .diffusion_vas import _masks
from .rules import Measured, Scores, Values, by_row, column, listed, mean

_EPSILON = np.float32(1e-6)
_LANES = 8


@dataclass(frozen=True)
class MoviRules:
    """One of `eoras`, `c2f-seg` and `strict`; frames in which the object is visible count.

    The prediction is united with the visible mask. Arithmetic is float32, as theirs: only so is the IoU of equal
    hidden parts exactly 1 once they have some pixels.
    """

    kind: str

    @property
    def name(self) -> str:
        """See `Rules`."""
        return self.kind

    @property
    def title(self) -> str:
        """See `Rules`."""
        return {"eoras": "EoRaS on MOVi (ICCV 2023)", "c2f-seg": "C2F-Seg on MOVi (ICCV 2023)"}.get(
            self.kind, "MOVi, strict: every frame with hidden pixels"
        )

    @property
    def notes(self) -> str:
        """See `Rules`."""
        return {
            "eoras": "Frames whose hidden IoU is exactly 1 are left out of miou_occ, but frames without hidden pixels "
            "count 0, which pulls it down. Whole frames are scored; the published row is of crops of twice the "
            "visible box.",
            "c2f-seg": "As eoras per frame, then the mean per object, then over objects.",
        }.get(self.kind, "miou_occ is over every frame with a hidden pixel; a miss counts 0.")

    def measure(self, clip: Clip, prediction: Prediction | None) -> dict[str, Any]:
        """See `Rules`."""
        frames = clip.facts["visible_frames"]
        amodal, modal = clip.amodal()[frames], clip.modal()[frames]
        guess = modal if prediction is None else _masks(prediction, clip)[frames] | modal
        if self.kind == "strict":
            return {"iou": listed(iou(guess, amodal)), "occ": listed(hidden_iou(guess, amodal, modal))}
        hidden = _theirs(guess & ~modal, amodal & ~modal)
        if self.kind == "eoras":
            hidden = np.where(hidden == 1, np.nan, hidden)
        return {"iou": listed(_theirs(guess, amodal)), "occ": listed(hidden)}

    def rows(self, clips: Sequence[Measured], about: Mapping[str, Any]) -> dict[str, Scores]:
        """See `Rules`."""
        rows: dict[str, Scores] = {}
        for name, values in by_row(clips).items():
            occ = column(values, "occ")
            counts = {"frames": len(occ), "frames_occ": int((~np.isnan(occ)).sum()), "objects": len(values)}
            whole, hidden = self._mean(values, "iou"), self._mean(values, "occ")
            rows[name] = {"miou": whole, "miou_occ": hidden, **counts}
        return rows

    def _mean(self, clips: Sequence[Values], name: str) -> float | None:
        if self.kind == "strict":
            return mean(column(clips, name))
        known = [values[~np.isnan(values)].astype(np.float32) for values in (column([clip], name) for clip in clips)]
        if self.kind == "c2f-seg":
            return mean(np.asarray([float(np.float32(_sum(own)) / np.float32(own.size)) for own in known if own.size]))
        count = sum(own.size for own in known)
        return sum(_sum(own) for own in known) / count if count else None


def _sum(values: NDArray[np.float32]) -> float:
    """The float32 sum of up to 31 values in the order in which torch adds on a CPU: eight lanes, then the rest first.

    The authors add the frames of a video in float32; another order changes the eighth digit.
    """
    whole = len(values) // _LANES * _LANES
    lanes = np.zeros(_LANES, np.float32)
    for start in range(0, whole, _LANES):
        lanes += values[start : start + _LANES]
    total = np.float32(0)
    for value in (*values[whole:], *lanes):
        total = np.float32(total + value)
    return float(total)


def _theirs(a: Bools, b: Bools) -> NDArray[np.float32]:
    shared = (a & b).sum(axis=(1, 2)).astype(np.float32)
    union = (a | b).sum(axis=(1, 2)).astype(np.float32)
    return np.asarray(shared / (union + _EPSILON), np.float32)
