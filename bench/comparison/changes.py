"""The change of one figure between two results files, and whether it exceeds noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from .. import statistics
from ..schema import Record
from ..statistics import Ratio

MEMORY_FLOOR = 0.03
"""Peaks of equal runs differ by a percent or two: stacks of threads, and memory that the allocator has kept."""
COLD_FLOOR = statistics.SINGLE_FLOOR
"""Loading and the first clip are measured once, and depend on the disk cache."""
SHARE_FLOOR = 0.005
"""Half a point of IoU; another order of summation can change less than this, at the edges of masks."""
GREY_FLOOR = 1.0
"""A mean difference below one of 255 levels is invisible."""
LATENTS_FLOOR = 1e-3
"""Smaller relative differences are float32 rounding; above it, growth by half means changed arithmetic."""
LATENTS_GROWTH = 0.5

Verdict = Literal["worse", "better", "same"]
Unit = Literal["s", "B", "share", "grey levels", "relative", "FLOP/s", "B/s"]


class Change(Record):
    """One figure, before and after.

    Attributes:
        what: the figure's name, such as `clip` or `segment/unet`.
        ratio, low, high: of after to before, with its interval; None if before is 0, or if a fixed rule judges.
        more_is_worse: True for a cost such as time, False for a gain such as mIoU.
        verdict: `same` unless it exceeds noise.
        counts: whether it can be a failure.
        remark: what limits the verdict; empty if nothing does.
    """

    what: str
    unit: Unit
    before: float
    after: float
    ratio: float | None
    low: float | None
    high: float | None
    more_is_worse: bool = True
    verdict: Verdict
    counts: bool = True
    remark: str = ""

    @property
    def worse_by(self) -> float:
        """How much worse it is, as a share of `before`; negative if it is better, infinite if a cost was 0."""
        if not self.before:
            return float("inf") if self.after > 0 and self.more_is_worse else 0.0
        share = self.after / self.before - 1
        return share if self.more_is_worse else -share

    @property
    def word(self) -> str:
        """The verdict in words of its unit: slower, larger, worse, or their opposites."""
        words = {"s": ("slower", "faster"), "B": ("larger", "smaller")}.get(self.unit, ("worse", "better"))
        return "same" if self.verdict == "same" else words[self.verdict == "better"]

    def fails(self, limit: float) -> bool:
        """Whether it is worse beyond noise, and by more than `limit`.

        The interval must exclude "no change", and the estimate must exceed the limit. If the whole interval had to
        exceed it, only a slow-down by more than limit plus noise would fail; if the estimate alone decided, noise
        could fail.
        """
        return self.counts and self.verdict == "worse" and self.worse_by > limit


def compare_medians(
    what: str, unit: Unit, before: Sequence[float], after: Sequence[float], floor: float, **facts: Any
) -> Change | None:
    """The change of a median; None if either has no sample above 0. `facts` are fields of `Change`."""
    before, after = [x for x in before if x > 0], [x for x in after if x > 0]
    first, second = statistics.median_of(before), statistics.median_of(after)
    if first is None or second is None:
        return None
    ratio = statistics.compare(before, after, floor)
    if not ratio.judged:
        noise = f"less than {ratio.high / ratio.value - 1:.0%} is taken for noise"
        facts["remark"] = f"fewer than {statistics.ENOUGH} samples; {noise}"
    return _change(what, unit, first, second, ratio, facts)


def compare_values(what: str, unit: Unit, before: float, after: float, floor: float, **facts: Any) -> Change | None:
    """The change of a cost that was measured once; None if either is not above 0. `facts` are fields of `Change`."""
    if before <= 0 or after <= 0:
        return None
    return _change(what, unit, before, after, statistics.compare_single(before, after, floor), facts)


def compare_shares(what: str, before: float | None, after: float | None, **facts: Any) -> Change | None:
    """The change of a share, judged by its difference: up to `SHARE_FLOOR` it is the same. None if either is None."""
    if before is None or after is None:
        return None
    facts = {"more_is_worse": False, **facts}
    loss = after - before if facts["more_is_worse"] else before - after
    change = _judged(what, "share", before, after, loss, SHARE_FLOOR)
    if change.ratio is not None:
        width = SHARE_FLOOR / before
        facts |= {"low": max(0.0, change.ratio - width), "high": change.ratio + width}
    return change.model_copy(update=facts)


def compare_frames(what: str, before: float, after: float) -> Change:
    """The change of a mean difference in grey levels; up to `GREY_FLOOR` it is the same."""
    return _judged(what, "grey levels", before, after, after - before, GREY_FLOOR)


def compare_latents(what: str, before: float, after: float) -> Change:
    """The change of a relative difference from the reference."""
    change = _judged(what, "relative", before, after, after - before, LATENTS_GROWTH * min(before, after))
    if max(before, after) > LATENTS_FLOOR:
        return change
    remark = f"both below {LATENTS_FLOOR:g}, which is float32 rounding"
    return change.model_copy(update={"verdict": "same", "remark": remark})


def _judged(what: str, unit: Unit, before: float, after: float, loss: float, floor: float) -> Change:
    """A change whose verdict depends on whether its loss exceeds a floor."""
    verdict: Verdict = "worse" if loss > floor else "better" if -loss > floor else "same"
    ratio = after / before if before > 0 else None
    return Change(what=what, unit=unit, before=before, after=after, ratio=ratio, low=None, high=None, verdict=verdict)


def _change(what: str, unit: Unit, before: float, after: float, ratio: Ratio, facts: dict[str, Any]) -> Change:
    """A change whose verdict is that of a ratio's interval."""
    worse = "more" if facts.get("more_is_worse", True) else "less"
    verdict: Verdict = "same" if ratio.verdict == "same" else "worse" if ratio.verdict == worse else "better"
    facts |= {"ratio": ratio.value, "low": ratio.low, "high": ratio.high}
    return Change(what=what, unit=unit, before=before, after=after, verdict=verdict, **facts)
