"""How a clip grows: the fit, the points, and what cannot be had."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from amodal.bench.measures import scaling
from amodal.bench.measures.scaling import measure_scaling, sweep_of
from amodal.bench.running.clips import Execution
from amodal.bench.running.machine import work_of
from amodal.bench.schema import Point
from amodal.runtime.errors import BackendError, InputError
from amodal.runtime.families import Bundle

ONE = Execution(threads=1)


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """New processes would import everything anew."""
    monkeypatch.setattr(scaling, "in_new_process", lambda function, *args: function(*args))


def test_the_fit_finds_the_line_that_the_medians_lie_on() -> None:
    points = [Point(value=v, seconds=[0.5 + 0.2 * v, 0.5 + 0.2 * v, 99.0], peak=1) for v in (5.0, 10.0, 25.0)]
    sweep = sweep_of("steps", points, {})
    assert sweep.fixed == pytest.approx(0.5)
    assert sweep.each == pytest.approx(0.2)
    power = sweep_of("pixels", [Point(value=v, seconds=[3e-9 * v**1.5], peak=1) for v in (1e3, 1e4, 1e5)], {})
    assert power.exponent == pytest.approx(1.5)
    alone = sweep_of("steps", points[:1], {"3": "why"})
    assert (alone.fixed, alone.each, alone.exponent, alone.predicted(3)) == (None, None, None, None)
    assert alone.skipped == {"3": "why"}


@pytest.mark.slow
def test_steps_and_samples_grow_on_the_bundle_itself(toy_bundle: Path, in_this_process: None) -> None:
    work = work_of(Bundle(toy_bundle), "segment", steps=4)
    found = measure_scaling(toy_bundle, work, ONE, axes=["steps", "samples"], repeats=1)
    steps, samples = found.sweeps
    assert [point.value for point in steps.points] == [1, 2, 4, 6]
    assert [point.value for point in samples.points] == [1, 2, 3]
    assert all(len(point.seconds) == 1 and point.peak > 0 for sweep in found.sweeps for point in sweep.points)
    assert found.executed.options["threads"] == "1"


@pytest.mark.slow
def test_other_frames_and_sizes_are_exported_again(toy_bundle: Path, in_this_process: None) -> None:
    ran: list[tuple[int, tuple[int, int]]] = []
    run = scaling._run

    def noted(bundle: str, work: Any, *rest: Any) -> Any:
        config = Bundle(bundle).config
        ran.append((config.frames, config.size))
        return run(bundle, work, *rest)

    noted.__name__ = "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scaling, "_run", noted)
        patch.setattr(scaling, "_SHARES", (1.0, 2.0))
        patch.setattr(scaling, "_SIDES", (1.0, 2.0))
        work = work_of(Bundle(toy_bundle), "segment", steps=1)
        found = measure_scaling(toy_bundle, work, ONE, axes=["frames", "pixels"], repeats=1)
    assert ran == [(3, (64, 64)), (6, (64, 64)), (3, (64, 64)), (3, (128, 128))]
    assert [[point.value for point in sweep.points] for sweep in found.sweeps] == [[3, 6], [4096, 16384]]


def test_without_its_checkpoint_a_bundle_says_what_to_give(in_this_process: None) -> None:
    pytest.importorskip("torch")
    work = work_of(Bundle("default"), "segment", steps=1)
    found = measure_scaling("default", work, ONE, axes=["frames"], repeats=1)
    (sweep,) = found.sweeps
    assert [point.value for point in sweep.points] == [8]
    assert all("give it with `segment`" in why for why in sweep.skipped.values())
    assert set(sweep.skipped) == {"2", "4", "12"}


def test_a_point_that_fails_leaves_the_others(
    toy_bundle: Path, in_this_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = scaling._run

    def failing(bundle: str, work: Any, *rest: Any) -> Any:
        if work.samples == 2:
            raise BackendError("out of memory.")
        return run(bundle, work, *rest)

    monkeypatch.setattr(scaling, "_run", failing)
    work = work_of(Bundle(toy_bundle), "segment", steps=1)
    (sweep,) = measure_scaling(toy_bundle, work, ONE, axes=["samples"], repeats=1).sweeps
    assert [point.value for point in sweep.points] == [1, 3]
    assert sweep.skipped == {"2": "out of memory."}


def test_unknown_axes_are_named(toy_bundle: Path) -> None:
    with pytest.raises(InputError, match="axis width is unknown"):
        measure_scaling(toy_bundle, work_of(Bundle(toy_bundle)), ONE, axes=["width"])
