"""The study of small objects, on a toy: that it runs what it says, and tabulates what it ran."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import amodal
from amodal.bench.quality.measures import hidden_iou, iou
from amodal.bench.running import scene_runs
from amodal.bench.running.scene_runs import FIRST_SEED, SEED, Setting
from amodal.bench.studies import small_objects
from amodal.bench.studies.small_objects import Scores, run_scene, tabulate
from amodal.runtime.pictures.cropping import Crop
from amodal.runtime.scenes import make_scene


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers would import everything anew."""

    class Pool:
        def submit(self, function: Any, *args: Any) -> Future[Any]:
            done: Future[Any] = Future()
            done.set_result(function(*args))
            return done

    monkeypatch.setattr(small_objects, "new_processes", contextmanager(lambda *_: iter([Pool()])))
    scene_runs._model.cache_clear()
    scene_runs._loaded.cache_clear()


def test_a_scene_is_run_whole_and_in_its_window(toy_bundle: Path) -> None:
    size = (96, 96)
    scores = run_scene(FIRST_SEED, 4.0, size, Setting(str(toy_bundle), steps=2), [2.0])
    assert list(scores) == ["off", "2"]
    with amodal.load(toy_bundle, threads=1) as model:
        scene = make_scene(FIRST_SEED, model.config.frames, size, 4.0)
        options = {"steps": 2, "seed": SEED}
        whole = model.segment(scene.modal, depth=scene.depth, **options).masks_full
        crop = Crop.around(scene.modal)
        window = model.segment(crop.cut(scene.modal), depth=crop.cut(scene.depth), **options).masks_full
    for way, masks in (("off", whole), ("2", crop.paste(window, False))):
        masks = masks | scene.modal
        np.testing.assert_array_equal(scores[way].iou, iou(masks, scene.amodal))
        np.testing.assert_array_equal(scores[way].hidden, hidden_iou(masks, scene.amodal, scene.modal))


def test_rows_are_means_over_all_frames_and_gains_over_the_whole_frame() -> None:
    nan = np.nan
    first = {"off": Scores(np.array([0.5, 1.0]), np.array([0.2, nan])), "2": Scores(np.ones(2), np.array([0.6, nan]))}
    second = {"off": Scores(np.array([0.0, 0.5]), np.array([0.1, 0.3])), "2": Scores(np.ones(2), np.array([0.5, 0.4]))}
    off, cropped = tabulate(8.0, [first, second])
    assert (off.zoom, off.way, off.miou, off.difference.value) == (8.0, "off", 50.0, 0.0)
    assert off.miou_occ == pytest.approx(20)
    assert (cropped.way, cropped.miou) == ("2", 100.0)
    assert cropped.difference.value == pytest.approx(30)


def test_the_command_prints_a_line_per_way(toy_bundle: Path) -> None:
    options = ["-n", "1", "--zoom", "4", "--crop", "2", "--height", "64", "--width", "64", "--steps", "1"]
    outcome = CliRunner().invoke(small_objects.main, [*options, "--bundle", str(toy_bundle)])
    assert outcome.exit_code == 0, outcome.output
    assert "| 4 | off |" in outcome.output
    assert "| 4 | 2 |" in outcome.output
