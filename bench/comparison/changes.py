"""How one figure changed between two results files, and whether that is more than noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from .. import statistics
from ..schema import Record
from ..statistics import Ratio

MEMORY_FLOOR = 0.03
"""Peaks of the same run differ by a percent or two: threads' stacks, and what the allocator had not given back."""
COLD_FLOOR = statistics.SINGLE_FLOOR
"""Loading and the first clip are measured once, and depend on what the disk's cache held."""
SHARE_FLOOR = 0.005
"""Half a point of IoU: less comes from another order of summation alone, at the edges of masks."""
GREY_FLOOR = 1.0
"""A mean difference of less than one of 255 levels cannot be seen."""
LATENTS_FLOOR = 1e-3
"""Relative differences below it are what float32 leaves; above it a growth by half is a change of arithmetic."""
LATENTS_GROWTH = 0.5

Verdict = Literal["worse", "better", "same"]
Unit = Literal["s", "B", "share", "grey levels", "relative", "FLOP/s", "B/s"]


class Change(Record):
    """One figure, before and after.

    Attributes:
        what: the figure's name, such as `clip` or `segment/unet`.
        ratio, low, high: of after to before, with its interval; None where before is 0, or where a fixed rule judges.
        more_is_worse: whether it is a cost, as time is, or a gain, as mIoU is.
        verdict: `same` unless it left the noise.
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
        """Share of `before` by which it is worse; negative if it is better; infinite where a cost was 0."""
        if not self.before:
            return float("inf") if self.after > 0 and self.more_is_worse else 0.0
        share = self.after / self.before - 1
        return share if self.more_is_worse else -share

    @property
    def word(self) -> str:
        """The verdict in the words of its unit: slower, larger, worse, or their opposites."""
        words = {"s": ("slower", "faster"), "B": ("larger", "smaller")}.get(self.unit, ("worse", "better"))
        return "same" if self.verdict == "same" else words[self.verdict == "better"]

    def fails(self, limit: float) -> bool:
        """Whether it is worse beyond noise, and by more than `limit`.

        The interval must leave "no change" out, and the estimate must be above the limit. If the whole interval had to
        be above it, a slow-down would have to be the limit and the noise together before anybody heard of it; if the
        estimate alone decided, noise would.
        """
        return self.counts and self.verdict == "worse" and self.worse_by > limit


def of_samples(
    what: str,
    unit: Unit,
    before: Sequence[float],
    after: Sequence[float],
    floor: float,
    *,
    more_is_worse: bool = True,
    counts: bool = True,
) -> Change | None:
    """The change of a median; None where either has no sample above 0."""
    before, after = [x for x in before if x > 0], [x for x in after if x > 0]
    first, second = statistics.summarise(before), statistics.summarise(after)
    if first is None or second is None:
        return None
    ratio = statistics.compare(before, after, floor)
    remark = (
        ""
        if ratio.judged
        else f"fewer than {statistics.ENOUGH} samples; less than {ratio.high / ratio.value - 1:.0%} is taken for noise"
    )
    return _change(what, unit, first.median, second.median, ratio, more_is_worse, counts, remark)


def of_values(
    what: str, unit: Unit, before: float, after: float, floor: float, *, counts: bool = True, remark: str = ""
) -> Change | None:
    """The change of a cost that was measured once; None where either is not above 0."""
    if before <= 0 or after <= 0:
        return None
    return _change(what, unit, before, after, statistics.compare_single(before, after, floor), True, counts, remark)


def of_shares(
    what: str,
    before: float,
    after: float,
    floor: float = SHARE_FLOOR,
    *,
    unit: Unit = "share",
    more_is_worse: bool = False,
    counts: bool = True,
) -> Change:
    """The change of what is judged by its difference, as IoU and grey levels are; within `floor` it is the same."""
    difference = after - before if more_is_worse else before - after
    verdict: Verdict = "worse" if difference > floor else "better" if difference < -floor else "same"
    ratio, width = (after / before, floor / before) if before > 0 else (None, None)
    return Change(
        what=what,
        unit=unit,
        before=before,
        after=after,
        ratio=ratio,
        low=None if ratio is None or width is None or unit != "share" else max(0.0, ratio - width),
        high=None if ratio is None or width is None or unit != "share" else ratio + width,
        more_is_worse=more_is_worse,
        verdict=verdict,
        counts=counts,
    )


def of_latents(what: str, before: float, after: float) -> Change:
    """The change of a relative difference to the reference."""
    noise = max(before, after) <= LATENTS_FLOOR
    grew, shrank = after > before * (1 + LATENTS_GROWTH), before > after * (1 + LATENTS_GROWTH)
    verdict: Verdict = "same" if noise else "worse" if grew else "better" if shrank else "same"
    return Change(
        what=what,
        unit="relative",
        before=before,
        after=after,
        ratio=after / before if before > 0 else None,
        low=None,
        high=None,
        verdict=verdict,
        remark=f"both below {LATENTS_FLOOR:g}, which float32 leaves" if noise else "",
    )


def _change(
    what: str, unit: Unit, before: float, after: float, ratio: Ratio, more_is_worse: bool, counts: bool, remark: str
) -> Change:
    worse = "more" if more_is_worse else "less"
    verdict: Verdict = "same" if ratio.verdict == "same" else "worse" if ratio.verdict == worse else "better"
    return Change(
        what=what,
        unit=unit,
        before=before,
        after=after,
        ratio=ratio.value,
        low=ratio.low,
        high=ratio.high,
        more_is_worse=more_is_worse,
        verdict=verdict,
        counts=counts,
        remark=remark,
    )
