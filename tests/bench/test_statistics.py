from __future__ import annotations

import numpy as np
import pytest

from amodal.bench.statistics import (
    ENOUGH,
    FLOOR,
    compare,
    compare_single,
    paired_difference,
    paired_ratio,
    pareto,
    summarise,
)

RUNS, CLIPS = 100, 10


def clips(rng, slower=1.0, noise=0.02, drift=0.01, shift=0.01, count=CLIPS):
    """Seconds of clips as machines give them: neighbours are alike, some are far too slow, and each run is off.

    `shift` and `drift` are the deviations of what a whole run is off by, and of its slope from first to last clip.
    """
    waves = np.empty(count)
    for i, fresh in enumerate(rng.normal(size=count)):
        waves[i] = fresh if i == 0 else 0.4 * waves[i - 1] + np.sqrt(1 - 0.4**2) * fresh
    disturbed = np.where(rng.random(count) < 0.08, rng.exponential(0.15, count), 0)
    slope = rng.normal(0, drift) * np.linspace(-0.5, 0.5, count)
    return (2 * slower * np.exp(noise * waves + disturbed + slope + rng.normal(0, shift))).tolist()


def verdicts(slower: float, **how: float) -> list[str]:
    found = []
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        found.append(compare(clips(rng, **how), clips(rng, slower, **how), seed=seed).verdict)
    return found


def test_a_slow_down_of_ten_percent_is_found_in_ten_clips_of_a_few_percent_noise() -> None:
    assert verdicts(1.10).count("more") >= 0.92 * RUNS
    assert verdicts(1.10, noise=0.03).count("more") >= 0.85 * RUNS
    assert verdicts(1 / 1.10).count("less") >= 0.92 * RUNS
    assert "less" not in verdicts(1.10)


def test_two_runs_of_the_same_thing_are_not_flagged() -> None:
    quiet = verdicts(1.0, drift=0, shift=0)
    assert quiet.count("same") >= 0.98 * RUNS
    drifting = verdicts(1.0)
    assert drifting.count("more") <= 0.05 * RUNS
    assert drifting.count("less") <= 0.05 * RUNS


def test_without_the_floor_the_drift_between_runs_would_be_flagged() -> None:
    flagged = []
    for seed in range(RUNS):
        rng = np.random.default_rng(seed)
        flagged.append(compare(clips(rng), clips(rng), floor=0, seed=seed).verdict != "same")
    assert sum(flagged) >= 0.10 * RUNS


def test_the_interval_holds_the_true_ratio_almost_always() -> None:
    inside = 0
    for seed in range(RUNS):
        rng = np.random.default_rng(1000 + seed)
        found = compare(clips(rng, count=20), clips(rng, 1.3, count=20), seed=seed)
        inside += found.low <= 1.3 <= found.high
    assert inside >= 0.95 * RUNS


def test_comparing_is_the_same_every_time_and_symmetric() -> None:
    rng = np.random.default_rng(3)
    a, b = clips(rng), clips(rng, 1.2)
    assert compare(a, b) == compare(a, b)
    assert compare(a, b).value == pytest.approx(1 / compare(b, a).value)
    assert compare(a, b).value == pytest.approx(np.median(b) / np.median(a), rel=0.01)


def test_few_samples_are_not_trusted_with_their_own_noise() -> None:
    few = compare([1.0] * (ENOUGH - 1), [1.1] * (ENOUGH - 1))
    assert (few.verdict, few.judged) == ("same", False)
    assert compare([1.0] * (ENOUGH - 1), [1.3] * (ENOUGH - 1)).verdict == "more"
    assert compare([1.0] * ENOUGH, [1.1] * ENOUGH).verdict == "more"


def test_a_single_value_is_judged_by_its_floor_alone() -> None:
    assert compare_single(100, 100 * (1 + FLOOR) * 0.999, FLOOR).verdict == "same"
    assert compare_single(100, 100 * (1 + FLOOR) * 1.001, FLOOR).verdict == "more"


@pytest.mark.parametrize("wrong", [[], [1.0, 0.0], [-1.0]])
def test_samples_that_are_no_times_are_refused(wrong: list[float]) -> None:
    with pytest.raises(ValueError, match="above 0"):
        compare([1.0], wrong)


def test_percentiles_are_those_of_a_sorted_list_and_only_where_samples_lie_beyond_them() -> None:
    values = np.random.default_rng(1).permutation(101).astype(float).tolist()
    every = summarise(values)
    assert every is not None
    assert every.percentiles == {50: 50, 90: 90, 95: 95, 99: 99}
    assert (every.median, every.iqr, every.minimum, every.maximum) == (50, 50, 0, 100)
    for count, missing in ((99, {99}), (19, {95, 99}), (9, {90, 95, 99})):
        found = summarise(values[:count])
        assert found is not None
        assert {p for p, value in found.percentiles.items() if value is None} == missing
    assert summarise([]) is None


def test_samples_taken_in_turns_lose_the_drift_they_share() -> None:
    rng = np.random.default_rng(2)
    drift = np.linspace(1, 2, 20)
    base, other = drift * rng.lognormal(0, 0.01, 20), 0.4 * drift * rng.lognormal(0, 0.01, 20)
    found = paired_ratio(base.tolist(), other.tolist())
    assert found is not None
    assert 0.39 < found.low < found.value < found.high < 0.41
    assert paired_ratio([], [1.0]) is None
    assert paired_ratio([0.0], [1.0]) is None


def test_a_difference_of_means_is_over_all_values_and_resampled_by_clip() -> None:
    rng = np.random.default_rng(6)
    base = [rng.normal(10 * clip, 1, 4 + clip % 3) for clip in range(30)]
    other = [values + 2 + rng.normal(0, 0.5) for values in base]
    base[3][1] = other[3][1] = np.nan
    found = paired_difference(base, other)
    gains = [b - a for first, second in zip(base, other, strict=True) for a, b in zip(first, second, strict=True)]
    assert found.value == pytest.approx(np.nanmean(gains))
    assert found.low < 2 < found.high
    assert 0.2 < found.high - found.low < 1.2, "about 2 * 2.6 * 0.5 / sqrt(30)"
    same = paired_difference(base, base)
    assert (same.value, same.low, same.high) == (0, 0, 0)


def test_the_frontier_is_what_no_point_beats() -> None:
    points = np.random.default_rng(4).integers(0, 30, (60, 2)).astype(float)
    slow = {
        tuple(p)
        for p in points
        if not any((q[0] <= p[0] and q[1] >= p[1]) and (q[0] < p[0] or q[1] > p[1]) for q in points)
    }
    found = pareto([(a, b) for a, b in points])
    assert {tuple(points[i]) for i in found} == slow
    assert len(found) == len(slow)
    assert sorted(points[i][0] for i in found) == [points[i][0] for i in found]
