"""What raw samples say: medians, percentiles, spread, and whether two sets of them differ.

Times are skewed to the right (another process, a page fault) and never to the left, so everything here is built on the
median. Two runs of the same program also differ by something that no sample within either run shows: clocks and
temperature, where the loader put code and data, what else the machine does that day. Mytkowicz et al., "Producing
wrong data without doing anything obviously wrong!" (ASPLOS 2009) saw several percent from the length of the
environment alone; Kalibera and Jones, "Rigorous benchmarking in reasonable time" (ISMM 2013), treat it as a variance of
its own. So does `compare`: its interval holds a floor between runs, besides what the samples scatter.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (50, 90, 95, 99)
FLOOR = 0.03
"""Half-width of what the median of the same thing may move between two runs on one quiet machine, as a share. Runs may
differ by 2 to 3 % there and must agree within 5 %; with 3 %, a change of 10 % stays far outside."""
SINGLE_FLOOR = 0.20
"""The same where there are too few samples to know how they scatter."""
ENOUGH = 5
"""Samples below which a bootstrap draws nearly always the same few medians, and is sure of itself for no reason."""
CONFIDENCE = 0.99
"""Of the interval. Not 95 %: a comparison asks about ten to thirty rows at once, and one in twenty would be wrong."""
RESAMPLES = 2000

Verdict: TypeAlias = Literal["more", "less", "same"]
_Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """Some samples in a few numbers, in the samples' own unit.

    Attributes:
        count: of samples. iqr: the third quartile minus the first.
        percentiles: by percent, linear between samples. None where fewer samples lie beyond it than one, on
            average: p90 needs 10 samples, p95 20 and p99 100. What is called p99 of thirty samples is their maximum.
    """

    count: int
    median: float
    iqr: float
    minimum: float
    maximum: float
    percentiles: dict[int, float | None]

    @property
    def spread(self) -> float:
        """`iqr` as a share of the median; 0 if the median is 0."""
        return self.iqr / self.median if self.median else 0.0


def samples_needed(percent: int) -> int:
    """How many samples a percentile needs for one of them to lie beyond it, on average."""
    return 1 if percent <= 50 else round(100 / (100 - percent))


def summarise(samples: Sequence[float]) -> Summary | None:
    """Median, percentiles and spread; None of no samples."""
    if not samples:
        return None
    values = np.asarray(samples, np.float64)
    low, high = np.quantile(values, (0.25, 0.75))
    found = {p: float(np.percentile(values, p)) if len(values) >= samples_needed(p) else None for p in PERCENTILES}
    return Summary(
        len(values), float(np.median(values)), float(high - low), float(values.min()), float(values.max()), found
    )


@dataclass(frozen=True)
class Ratio:
    """How much more one thing takes than another: the ratio of medians, and an interval around it.

    Attributes:
        value, low, high: 1.1 is 10 % more.
        verdict: `more` or `less` if the interval leaves 1 out, else `same`.
        judged: False if there were fewer than `ENOUGH` samples, so that the floor was `SINGLE_FLOOR`.
    """

    value: float
    low: float
    high: float
    judged: bool = True

    @property
    def verdict(self) -> Verdict:
        """What the interval says."""
        return "more" if self.low > 1 else "less" if self.high < 1 else "same"


def compare(before: Sequence[float], after: Sequence[float], floor: float = FLOOR, seed: int = 0) -> Ratio:
    """The median of `after` over that of `before`, with the noise within and between runs.

    Noise within a run: medians of both sets are drawn again, in blocks of n^(1/3) neighbours (Kuensch 1989), because
    neighbouring clips share clocks and load; the quantiles of the ratio's logarithm are the interval. Between
    runs: `floor`, added in quadrature, as independent errors add.

    Args:
        before, after: samples above 0, in the order they were taken.
        floor: a share, such as 0.03.
        seed: of the resampling.

    Raises:
        ValueError: no samples, or one that is not above 0.
    """
    first, second = _logarithms(before), _logarithms(after)
    centre = float(np.median(second) - np.median(first))
    if min(len(first), len(second)) < ENOUGH:
        width = np.log1p(max(floor, SINGLE_FLOOR))
        return _ratio(centre, width, width, judged=False)
    rng = np.random.default_rng(seed)
    drawn = _medians(second, rng) - _medians(first, rng)
    below, above = _margins(drawn, centre)
    width = np.log1p(floor)
    return _ratio(centre, float(np.hypot(below, width)), float(np.hypot(above, width)))


def compare_single(before: float, after: float, floor: float) -> Ratio:
    """The same of one value each, whose noise is not known from samples: `floor` is all there is."""
    width = float(np.log1p(floor))
    return _ratio(float(np.log(after) - np.log(before)), width, width)


def paired_ratio(base: Sequence[float], other: Sequence[float], seed: int = 0) -> Ratio | None:
    """The median of `other[i] / base[i]`, for samples that were taken in turns, so that drift takes both along.

    Returns:
        None if there are no pairs or a sample is not above 0. No floor is added: both are of one run.
    """
    pairs = list(zip(base, other, strict=False))
    if not pairs or min(map(min, pairs)) <= 0:
        return None
    logs = np.log([b / a for a, b in pairs])
    centre = float(np.median(logs))
    if len(logs) < ENOUGH:
        return _ratio(centre, centre - float(logs.min()), float(logs.max()) - centre, judged=False)
    below, above = _margins(_medians(logs, np.random.default_rng(seed)), centre)
    return _ratio(centre, below, above)


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, gain) that no other beats in both, by rising cost.

    Of points that are equal, the first.
    """
    best, frontier = -np.inf, []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[index][1] > best:
            best = points[index][1]
            frontier.append(index)
    return frontier


def _logarithms(samples: Sequence[float]) -> _Array:
    values = np.asarray(samples, np.float64)
    if not values.size or values.min() <= 0:
        raise ValueError("Samples to compare must be there and above 0.")
    return np.log(values)


def _medians(values: _Array, rng: np.random.Generator) -> _Array:
    """Medians of `RESAMPLES` series made of blocks of neighbours; the last sample's neighbour is the first."""
    count = len(values)
    length = max(1, round(count ** (1 / 3)))
    begins = rng.integers(0, count, (RESAMPLES, -(-count // length)))
    index = (begins[..., None] + np.arange(length)) % count
    return np.median(values[index.reshape(RESAMPLES, -1)[:, :count]], axis=1)


def _margins(drawn: _Array, centre: float) -> tuple[float, float]:
    low, high = np.quantile(drawn, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return max(0.0, centre - float(low)), max(0.0, float(high) - centre)


def _ratio(centre: float, below: float, above: float, judged: bool = True) -> Ratio:
    value, low, high = np.exp((centre, centre - below, centre + above)).tolist()
    return Ratio(value, low, high, judged)
