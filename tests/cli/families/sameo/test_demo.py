"""`amodal demo --family sameo`: the same pictures and scores as of the other family."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import amodal
from amodal.runtime.bundle.reading import find_bundle
from amodal.runtime.files.masks import read_masks
from amodal.runtime.scenes import make_scene

from ...conftest import issue

with_default = pytest.mark.skipif(not find_bundle("default-sameo").is_dir(), reason="there is no default-sameo")


@with_default
def test_the_demo_draws_and_scores_what_the_default_model_finds(tmp_path: Path) -> None:
    start = time.process_time()
    outcome = issue("demo", "--family", "sameo", "--seed", "5", "--threads", "1", "-o", tmp_path / "demo")
    assert outcome.code == 0, outcome.err
    assert time.process_time() - start < 20
    assert "mIoU_occ" in outcome.out
    result = json.loads((tmp_path / "demo" / "result.json").read_text())
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {name.rstrip("/") for name in result["files"]}
    assert result["settings"] == {"family": "sameo", "scene": 5, "box": "visible"}
    with Image.open(tmp_path / "demo" / "demo.gif") as gif:
        assert gif.n_frames == 8
    scene = make_scene(5)
    with amodal.load("default-sameo", threads=1) as model:
        expected = model.segment(scene.modal, rgb=scene.frames).masks_full
    np.testing.assert_array_equal(read_masks(tmp_path / "demo" / "amodal_masks"), expected)


@pytest.mark.parametrize("option", ["--steps", "--noise-seed"])
def test_options_about_noise_are_refused(refused: Callable[..., str], option: str) -> None:
    assert f"{option} is about drawing from noise" in refused("demo", "--family", "sameo", option, "4")
