"""Summaries of raw samples, and whether two sets of them differ.

Times are skewed to the right (another process, a page fault) and never to the left, so everything here is based on
medians. Two runs of one program also differ in ways that samples within a run cannot show: clocks and temperature,
where the loader placed code and data, other load. Mytkowicz et al., "Producing wrong data without doing anything
obviously wrong!" (ASPLOS 2009) measured several percent from the length of the environment alone; Kalibera and Jones,
"Rigorous benchmarking in reasonable time" (ISMM 2013), treat it as a variance of its own. So does `compare`: its
interval includes a floor for the noise between runs, in addition to the scatter of the samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (50, 90, 95, 99)
FLOOR = 0.03
"""Relative half-width by which a median may move between two runs on one quiet machine. Such runs differ by 2 to 3 %
and must agree within 5 %; with 3 %, a change of 10 % is still well outside."""
SINGLE_FLOOR = 0.20
"""The same where there are too few samples to estimate their scatter."""
ENOUGH = 5
"""With fewer samples, a bootstrap keeps drawing the same few medians, and its interval is far too narrow."""
CONFIDENCE = 0.99
"""Of the interval. Not 95 %: a comparison has ten to thirty rows, and one in twenty would be wrong."""
RESAMPLES = 2000

Verdict: TypeAlias = Literal["more", "less", "same"]
_Array: TypeAlias = NDArray[np.float64]


@dataclass(frozen=True)
class Summary:
    """Statistics of samples, in their own unit, with the interquartile range and percentiles by percent.

    Percentiles are linear between samples, and None if on average less than one sample lies beyond: p90 needs 10
    samples, p95 20 and p99 100. The p99 of thirty samples would be their maximum.
    """

    count: int
    median: float
    iqr: float
    minimum: float
    maximum: float
    percentiles: dict[int, float | None]


def samples_needed(percent: int) -> int:
    """Number of samples for which, on average, one lies beyond the percentile."""
    return 1 if percent <= 50 else round(100 / (100 - percent))


def summarise(samples: Sequence[float]) -> Summary | None:
    """Median, percentiles and spread of samples; None if there are none."""
    if not samples:
        return None
    known = {p: float(np.percentile(samples, p)) if len(samples) >= samples_needed(p) else None for p in PERCENTILES}
    return Summary(len(samples), float(np.median(samples)), iqr_of(samples) or 0.0, min(samples), max(samples), known)


def median_of(samples: Sequence[float]) -> float | None:
    """The median; None if there are no samples."""
    return float(np.median(samples)) if samples else None


def iqr_of(samples: Sequence[float]) -> float | None:
    """The interquartile range; None of fewer than two samples."""
    return float(np.subtract(*np.quantile(samples, (0.75, 0.25)))) if len(samples) > 1 else None


@dataclass(frozen=True)
class Ratio:
    """Ratio of medians with its interval; `judged` is False with fewer than `ENOUGH` samples (see `SINGLE_FLOOR`)."""

    value: float
    low: float
    high: float
    judged: bool = True

    @property
    def verdict(self) -> Verdict:
        """`more` or `less` if the interval excludes 1, else `same`."""
        return "more" if self.low > 1 else "less" if self.high < 1 else "same"


def compare(before: Sequence[float], after: Sequence[float], floor: float = FLOOR, seed: int = 0) -> Ratio:
    """Median of `after` over median of `before`, with the noise within and between runs.

    Noise within a run: both sets are resampled in blocks of n^(1/3) neighbours (Kuensch 1989), because neighbouring
    clips share clocks and load; the interval is made of quantiles of the log-ratio. Noise between runs: `floor`, added
    in quadrature, as independent errors add.

    Args:
        before, after: samples above 0, in the order they were measured.
        floor: relative, such as 0.03.
        seed: of the resampling.

    Raises:
        ValueError: there are no samples, or one is not above 0.
    """
    if min(before, default=0) <= 0 or min(after, default=0) <= 0:
        raise ValueError("Samples to compare must be there and above 0.")
    first, second = np.log(before), np.log(after)
    centre = float(np.median(second) - np.median(first))
    if min(len(first), len(second)) < ENOUGH:
        width = np.log1p(max(floor, SINGLE_FLOOR))
        return _ratio(centre, width, width, judged=False)
    rng = np.random.default_rng(seed)
    below, above = _margins(_medians(second, rng) - _medians(first, rng), centre)
    width = np.log1p(floor)
    return _ratio(centre, float(np.hypot(below, width)), float(np.hypot(above, width)))


def compare_single(before: float, after: float, floor: float) -> Ratio:
    """`compare` for one value each: only `floor` makes the interval."""
    width = float(np.log1p(floor))
    return _ratio(float(np.log(after) - np.log(before)), width, width)


def paired_ratio(base: Sequence[float], other: Sequence[float], seed: int = 0) -> Ratio | None:
    """Median of `other[i] / base[i]`, for samples measured in turns, so that drift affects both alike.

    No floor is added, because both are of one run. None if there are no pairs or a sample is not above 0.
    """
    pairs = list(zip(base, other, strict=False))
    if not pairs or min(map(min, pairs)) <= 0:
        return None
    logs = np.log([b / a for a, b in pairs])
    centre = float(np.median(logs))
    if len(logs) < ENOUGH:
        return _ratio(centre, centre - float(logs.min()), float(logs.max()) - centre, judged=False)
    return _ratio(centre, *_margins(_medians(logs, np.random.default_rng(seed)), centre))


@dataclass(frozen=True)
class Difference:
    """Difference of two means with its interval (`CONFIDENCE`)."""

    value: float
    low: float
    high: float


def paired_difference(base: Sequence[_Array], other: Sequence[_Array], seed: int = 0) -> Difference:
    """Mean of `other` minus mean of `base` over the values of all clips, NaN left out of both.

    The interval is a bootstrap over clips, since the frames of one clip are alike.

    Args:
        base, other: the values of each clip, of the same clips and frames in the same order; one clip or more.
        seed: of the resampling.
    """
    gains = [after - before for before, after in zip(base, other, strict=True)]
    sums, counts = (np.array([f(gain) for gain in gains]) for f in (np.nansum, lambda g: np.isfinite(g).sum()))
    drawn = np.random.default_rng(seed).integers(0, len(gains), (RESAMPLES, len(gains)))
    means = sums[drawn].sum(axis=1) / np.maximum(counts[drawn].sum(axis=1), 1)
    low, high = np.quantile(means, ((1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2))
    return Difference(float(sums.sum() / max(counts.sum(), 1)), float(low), float(high))


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Indices of the points (cost, gain) that no other beats in both, by rising cost; the first of equal points."""
    best, frontier = -np.inf, []
    for index in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1])):
        if points[index][1] > best:
            best = points[index][1]
            frontier.append(index)
    return frontier


def _medians(values: _Array, rng: np.random.Generator) -> _Array:
    """Medians of `RESAMPLES` series made of blocks of neighbours; the series wraps around at its end."""
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
