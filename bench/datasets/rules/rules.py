"""What a protocol is, and means over frames and seeds that several share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..clip import Clip, Prediction

Values = Mapping[str, Any]
"""What was measured in a clip, of values that json holds: lists by frame, None where a measure does not apply."""
Scores = dict[str, float | None]


@dataclass(frozen=True)
class Measured:
    """What was measured in a clip under one protocol.

    Attributes:
        id: the clip's.
        modal: values of the visible masks themselves, which need no model; empty if the protocol has no such row.
        seeds: values by seed, Top-1 first.
    """

    id: str
    modal: Values = field(default_factory=dict)
    seeds: Sequence[Values] = ()


class Rules(Protocol):
    """A protocol. `name` is its key in tables, `title` says whose it is, `notes` its conventions and units."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def title(self) -> str: ...  # noqa: D102
    @property
    def notes(self) -> str: ...  # noqa: D102

    def measure(self, clip: Clip, prediction: Prediction | None) -> dict[str, Any]:
        """Measures a prediction, or with None the visible masks; an empty dict if there is no such row."""
        ...

    def rows(self, clips: Sequence[Measured], about: Mapping[str, Any]) -> dict[str, Scores]:
        """Figures by row: shares in [0, 1] and counts. `about` is what the data set says, see `Dataset.about`."""
        ...


def column(clips: Sequence[Values], name: str) -> NDArray[np.float64]:
    """The values of a measure over the frames of all clips, float64, NaN for None."""
    lists = [clip[name] for clip in clips]
    return np.asarray([np.nan if value is None else value for values in lists for value in values], np.float64)


def mean(values: NDArray[np.float64]) -> float | None:
    """The mean without NaN; None if nothing is left."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else None


def best(seeds: Sequence[Values]) -> dict[str, list[float | None]]:
    """The best value of each frame and measure over several seeds: the row Top-K."""
    return {
        name: listed(np.fmax.reduce([column([seed], name) for seed in seeds]))
        for name, values in seeds[0].items()
        if isinstance(values, list)
    }


def listed(values: NDArray[np.floating[Any]]) -> list[float | None]:
    """Floats as json holds them, None for NaN."""
    return [None if np.isnan(value) else float(value) for value in values]


def by_row(clips: Sequence[Measured]) -> dict[str, list[Values]]:
    """The clips' values of the rows `Modal`, `Top-1` and, of several seeds, `Top-K`; rows without values left out."""
    rows = {"Modal": [clip.modal for clip in clips]}
    count = min((len(clip.seeds) for clip in clips), default=0)
    if count:
        rows["Top-1"] = [clip.seeds[0] for clip in clips]
    if count > 1:
        rows[f"Top-{count}"] = [best(clip.seeds[:count]) for clip in clips]
    return {name: values for name, values in rows.items() if values and values[0]}
