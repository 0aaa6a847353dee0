"""The measurements of the default model, on a toy: that they run what they say, and tabulate what they ran."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import amodal
from amodal.bench.quality import evaluate
from amodal.bench.running import scene_runs
from amodal.bench.running.clips import Execution
from amodal.bench.running.scene_runs import FIRST_SEED, SEED, Setting, run_scene
from amodal.bench.studies import default_model
from amodal.runtime.scenes import make_scene


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers would import everything anew."""
    monkeypatch.setattr(default_model, "run_scenes", lambda jobs, workers, what: [run_scene(*job) for job in jobs])
    scene_runs._model.cache_clear()
    scene_runs._loaded.cache_clear()


@pytest.mark.parametrize(("true_masks", "propagate"), [(False, None), (True, True)])
def test_a_scene_is_run_as_set(toy_bundle: Path, true_masks: bool, propagate: bool | None) -> None:
    setting = Setting(str(toy_bundle), steps=3, guidance=2.0, true_masks=true_masks, propagate=propagate)
    clip = run_scene(7, setting, samples=2, complete=True)
    with amodal.load(toy_bundle, threads=1) as model:
        scene = make_scene(7, model.config.frames, model.config.size)
        options = {"steps": 3, "guidance": (2.0, 2.0)}
        first, second = (model.segment(scene.modal, depth=scene.depth, seed=SEED + k, **options) for k in (0, 1))
        painted = scene.amodal if true_masks else first.masks
        whole = model.complete(scene.frames, scene.modal, painted, seed=first.noise, propagate=propagate, **options)
    for got, want in zip(clip.prediction.samples, (first, second), strict=True):
        np.testing.assert_array_equal(got, want.masks)
    np.testing.assert_array_equal(clip.prediction.rgb, whole.frames)
    np.testing.assert_array_equal(clip.truth.amodal, scene.amodal)


def test_loading_for_another_number_of_cfg_rows_is_no_part_of_a_clip(toy_bundle: Path) -> None:
    """With two threads, a guided clip has two sessions of the U-Net, and one without guidance has one."""
    two = Execution(threads=2)
    for guidance in (1.5, 1.0, 1.5):
        model = scene_runs._model(str(toy_bundle), two, guidance > 1)
        scene = make_scene(7, model.config.frames, model.config.size)
        seen = model.segment(scene.modal, depth=scene.depth, steps=1, guidance=(guidance, guidance))
        assert "load" not in seen.timings


def test_figures_are_those_of_the_unseen_scenes(toy_bundle: Path) -> None:
    setting = Setting(str(toy_bundle), steps=2)
    report, clips = default_model.figures(2, 1, 1, setting, complete=False)
    assert [clip.truth.name for clip in clips] == [f"scene {FIRST_SEED}", f"scene {FIRST_SEED + 1}"]
    again = evaluate([(clip.truth, clip.prediction) for clip in clips], "both")
    assert report == again
    assert {"modal", "convex", "Top-1"} <= {row.name for row in report.rows}


@pytest.mark.slow
def test_the_table_has_a_line_per_setting(toy_bundle: Path) -> None:
    lines = default_model.tradeoffs(1, 1, str(toy_bundle), None).splitlines()
    names = [line.split("|")[1].strip() for line in lines[2:]]
    assert names[:2] == ["modal", "convex"]
    assert {"4 steps", "50 steps, churn", "guidance 1.0", "context aligned"} <= set(names)
    assert "context sequence" not in names
    times = {name: line.split("|")[-2].strip() for name, line in zip(names, lines[2:], strict=True)}
    assert times["25 steps"] == "1.00"


def test_the_command_prints_the_report(toy_bundle: Path) -> None:
    outcome = CliRunner().invoke(
        default_model.main, ["figures", "-n", "1", "--samples", "2", "--bundle", str(toy_bundle), "--steps", "2"]
    )
    assert outcome.exit_code == 0, outcome.output
    for name in ("mIoU_occ", "Top-2", "mean colour", "median seconds per clip"):
        assert name in outcome.output


@pytest.mark.parametrize("command", ["figures", "tradeoffs"])
def test_a_bundle_that_is_not_there_is_a_sentence(command: str, tmp_path: Path) -> None:
    outcome = CliRunner().invoke(default_model.main, [command, "-n", "1", "--bundle", str(tmp_path / "none")])
    assert outcome.exit_code == 1
    assert "is not a bundle" in outcome.output
