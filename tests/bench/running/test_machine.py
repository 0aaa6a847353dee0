"""What a measurement says of itself."""

from __future__ import annotations

from amodal.bench.running.machine import work_of
from amodal.bench.wording import describe_work
from amodal.runtime.families import Bundle


def test_steps_and_guidance_are_told_of_a_family_that_samples_alone() -> None:
    told = describe_work(work_of(Bundle("default"), steps=7, guidance=1.5, churn=0.5, seed=3))
    assert "7 steps, guidance 1.5, churn 0.5" in told
    told = describe_work(work_of(Bundle("default-sameo"), steps=7, guidance=1.5, churn=0.5, seed=3))
    assert told == "predict, 1 frame of 64x128, seed 3"
