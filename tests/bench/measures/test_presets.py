"""Presets: that each is run as it says, and scored as everything else is."""

from __future__ import annotations

from pathlib import Path

import pytest

import amodal
from amodal.bench.measures import presets
from amodal.bench.measures.presets import PRESETS, measure_quality
from amodal.bench.quality import ClipPrediction, ClipTruth, evaluate
from amodal.bench.running.clips import Execution
from amodal.bench.running.scene_runs import FIRST_SEED, SEED, run_scene
from amodal.runtime.errors import InputError
from amodal.runtime.scenes import make_scene


@pytest.mark.slow
def test_quality_is_that_of_the_masks_each_preset_draws(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "run_scenes", lambda jobs, workers, what: [run_scene(*job) for job in jobs])
    found = measure_quality(toy_bundle, Execution(threads=1), scenes=2, workers=2, names=("draft", "fast, churned"))
    assert [preset.name for preset in found.presets] == ["draft", "fast, churned"]
    assert found.workers == 2
    setting = PRESETS["fast, churned"]
    pairs = []
    with amodal.load(toy_bundle, threads=1) as model:
        for seed in (FIRST_SEED, FIRST_SEED + 1):
            scene = make_scene(seed, model.config.frames, model.config.size)
            seen = model.segment(
                scene.modal, depth=scene.depth, seed=SEED, steps=setting.steps, churn=amodal.Churn(setting.churn)
            )
            truth = ClipTruth("", scene.modal, scene.amodal, None, None, scene.boxes)
            pairs.append((truth, ClipPrediction([seen.masks], None)))
    row = evaluate(pairs, "strict").row("Top-1")
    assert row.strict is not None
    churned = found.presets[1]
    assert (churned.miou, churned.miou_occ, churned.flicker) == (row.strict.miou, row.strict.miou_occ, row.flicker)
    assert (churned.work.steps, churned.work.churn, churned.work.stages) == (6, 3.0, ["segment"])
    assert len(churned.seconds) == 2
    baseline = evaluate(pairs, "strict").row("modal").strict
    assert baseline is not None
    assert found.baselines["modal mIoU"] == baseline.miou


def test_a_preset_that_does_not_exist_is_named(toy_bundle: Path) -> None:
    with pytest.raises(InputError, match="preset warp is unknown; expected some of: draft; fast;"):
        measure_quality(toy_bundle, Execution(), names=("warp",))
