"""The studies of long clips, on a toy: that they run what they say, go on where they stopped, and tabulate that."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import amodal
from amodal.bench.quality.measures import flicker, hidden_iou, iou
from amodal.bench.running import scene_runs
from amodal.bench.running.long_scenes import long_scene
from amodal.bench.running.scene_runs import SEED, Setting
from amodal.bench.studies import propagation, windows
from amodal.bench.studies.windows import Record, Scores, run_scene, tabulate
from amodal.runtime.pictures.propagation import propagate


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers would import everything anew."""

    class Pool:
        def submit(self, function: Any, *args: Any) -> Future[Any]:
            done: Future[Any] = Future()
            done.set_result(function(*args))
            return done

    for study in (windows, propagation):
        monkeypatch.setattr(study, "new_processes", contextmanager(lambda *_: iter([Pool()])))
    scene_runs._model.cache_clear()
    scene_runs._loaded.cache_clear()


def test_long_scenes_are_of_two_kinds_and_lengths_and_always_the_same() -> None:
    made = [long_scene(index) for index in range(6)]
    assert [kind for kind, _ in made] == ["paced", "slow"] * 3
    assert all(24 <= len(scene.modal) <= 40 for _, scene in made)
    assert len({len(scene.modal) for _, scene in made}) == 6
    np.testing.assert_array_equal(long_scene(1)[1].frames, made[1][1].frames)


@pytest.mark.slow
@pytest.mark.parametrize("way", ["shifted", "blended"])
def test_a_scene_is_scored_as_segment_cuts_it(toy_bundle: Path, way: Any) -> None:
    setting = Setting(str(toy_bundle), steps=2)
    found = run_scene(2, ["chunks", way], setting)
    assert set(found) == {"chunks", way}
    with amodal.load(toy_bundle, threads=1) as model:
        kind, scene = long_scene(2, model.config.size)
        guidance = (setting.guidance, setting.guidance)
        seen = model.segment(scene.modal, depth=scene.depth, windows=way, seed=SEED, steps=2, guidance=guidance)
        frames = model.config.frames
    scores = found[way]
    assert scores.kind == kind == "paced"
    assert scores.miou == pytest.approx(100 * iou(seen.masks, scene.amodal).mean())
    assert scores.miou_occ == pytest.approx(100 * np.nanmean(hidden_iou(seen.masks, scene.amodal, scene.modal)))
    changes = 100 * flicker(seen.masks, scene.amodal)
    borders = [t for t in range(len(changes)) if (t + 1) % frames == 0]
    assert scores.seam == pytest.approx(np.nanmean(changes[borders]))
    assert scores.inside == pytest.approx(np.nanmean(np.delete(changes, borders)))


def scores_of(miou_occ: float | None, seconds: float, seam: float | None = 4.0) -> Scores:
    return Scores(kind="slow", miou=80.0, miou_occ=miou_occ, seam=seam, inside=2.0, seconds=seconds, calls=1.0)


def test_a_row_has_means_the_gain_with_its_error_and_the_median_of_times() -> None:
    chunks = [scores_of(50.0, 1.0), scores_of(60.0, 2.0), scores_of(None, 4.0)]
    row = tabulate([scores_of(51.0, 2.0), scores_of(64.0, 2.0, None), scores_of(None, 12.0)], chunks)
    assert (row.miou_occ, row.gain, row.seam, row.time) == (57.5, 2.5, 4.0, 2.0)
    assert row.error == pytest.approx(np.std([1, 4], ddof=1) / np.sqrt(2))


def test_the_command_goes_on_with_what_is_recorded(toy_bundle: Path, tmp_path: Path) -> None:
    record = tmp_path / "record.json"
    given = {f"1 {way} {index}": scores_of(50.0 + index, 1.0) for way in ("chunks", "joint") for index in (0, 1)}
    del given["1 joint 1"]
    record.write_text(Record(scores=given).model_dump_json())
    options = ["-n", "2", "--steps", "1", "--windows", "joint", "--bundle", str(toy_bundle), "--record", str(record)]
    outcome = CliRunner().invoke(windows.main, options)
    assert outcome.exit_code == 0, outcome.output
    assert "| chunks | 80.0 | 50.5 |  | 4.0 / 2.0 | 1.00 | 1.00 |" in outcome.output
    assert "| joint |" in outcome.output
    kept = Record.model_validate_json(record.read_text()).scores
    assert set(kept) == {*given, "1 joint 1"}
    assert kept["1 joint 0"] == given["1 joint 0"]


@pytest.mark.slow
def test_the_study_of_propagation_compares_windows_with_the_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    kind, scene = long_scene(0)
    short = type(scene)(*(x[:20] if isinstance(x, np.ndarray) else x for x in vars(scene).values()))
    monkeypatch.setattr(propagation, "long_scene", lambda _: (kind, short))
    found = propagation.run_scene(0)
    assert found is not None
    hidden = short.amodal & ~short.modal
    whole = propagate(short.frames, short.modal, short.amodal).known
    one, *_, every = found.values()
    assert every.share == pytest.approx(whole[hidden].mean())
    assert 0 < one.share < every.share
    outcome = CliRunner().invoke(propagation.main, ["-n", "1"])
    assert f"| windows of 8 frames | paced | 1 | {one.share:.2f} | {one.psnr:.1f} |" in outcome.output
