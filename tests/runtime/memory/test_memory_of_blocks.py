"""The planned memory of long clips and several objects, with made-up engines of the default bundle."""

from __future__ import annotations

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from amodal.runtime.errors import MemoryBudgetError
from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.block_settings import fit_objects
from amodal.runtime.families.diffusion_vas.shape import RunShape
from amodal.runtime.memory.choice import Planned, Planner
from amodal.runtime.memory.plan import Footprint, MemoryPlan, plan_memory

BLOCK = 128


@pytest.fixture(scope="module")
def planner() -> Planner:
    bundle = Bundle("default")
    sizes = {
        key: Footprint(10**6, {profile.name: 10**6 for profile in bundle.family.profiles(bundle.manifest, key)})
        for key in bundle.manifest.components
    }
    return Planner(bundle.family, bundle.manifest, sizes)


def plan(planner: Planner, **more: Any) -> MemoryPlan:
    run = RunShape(("segment",), depth=False, cfg_rows="batched", **more)
    return plan_memory(planner.family, planner.manifest, planner.footprints, run, "resident")


def buffers(plan: MemoryPlan, phase: str) -> dict[str, int]:
    return next(p.buffers for p in plan.phases if p.name == phase)


def test_each_object_takes_the_same_buffers_more_and_the_engines_nothing(planner: Planner) -> None:
    plans = [plan(planner, objects=n, block=BLOCK) for n in (1, 2, 4, 8)]
    assert len({str(one.activations) for one in plans}) == 1
    for phase in ("encode", "condition", "denoise"):
        sums = [sum(buffers(one, phase).values()) for one in plans]
        assert all(after > before for before, after in pairwise(sums))
        np.testing.assert_array_equal(np.diff(sums) / [1, 2, 4], sums[1] - sums[0])


def test_the_arrays_of_a_block_are_counted_by_its_frames(planner: Planner) -> None:
    latents = 3 * BLOCK * 4 * 16 * 32 * 4  # 3 objects; latents of 4 channels, 16x32, float32
    found = buffers(plan(planner, objects=3, block=BLOCK), "denoise")
    assert found["latents"] == found["last"] == latents
    assert found["conditioning"] == 2 * latents
    assert found["velocity"] == 2 * 3 * latents  # joint windows: twice the frames; two rows and the guided one


def test_a_clip_of_one_window_and_object_is_planned_as_before(planner: Planner) -> None:
    found = buffers(plan(planner), "denoise")
    assert "windows" not in found
    assert "last" not in found


def test_as_many_objects_as_fit_run_together(planner: Planner) -> None:
    shape = RunShape(("segment",), depth=False, objects=8, block=BLOCK)
    peaks = [plan(planner, objects=n, block=BLOCK).peak_bytes for n in range(1, 9)]

    def session(budget: int | None) -> Any:
        planned = Planned(planner, budget, plan(planner))
        return SimpleNamespace(planned=planned)

    assert fit_objects(session(None), shape).objects == 8
    assert fit_objects(session(peaks[4]), shape).objects == 5
    assert fit_objects(session(peaks[0]), shape).objects == 1
    with pytest.raises(MemoryBudgetError, match="not enough"):
        fit_objects(session(peaks[4]), shape, settled=True)
    with pytest.raises(MemoryBudgetError, match="block_frames"):
        fit_objects(session(peaks[0] - 1), shape)
    without = fit_objects(SimpleNamespace(planned=None), shape)  # type: ignore[arg-type]
    assert without == shape
