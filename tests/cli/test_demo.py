"""`amodal scenes` and `amodal demo`: what a stranger types first."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import amodal
from amodal.runtime.bundle.reading import find_bundle
from amodal.runtime.errors import BundleNotFoundError
from amodal.runtime.families import Bundle
from amodal.runtime.files.masks import read_masks
from amodal.runtime.scenes import make_scene

from .conftest import issue, leftovers


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("demo") / "demo"
    outcome = issue("demo", "-o", out, "--steps", "4", "--threads", "1", "--seed", "5")
    assert outcome.code == 0, outcome.err
    assert "mIoU_occ" in outcome.out
    assert f"Pictures: {out / 'sheet.png'}, {out / 'demo.gif'}" in outcome.out
    return out


def test_demo_leaves_pictures_results_and_the_scene(demo: Path) -> None:
    result = json.loads((demo / "result.json").read_text())
    for name in result["files"]:
        assert (demo / name).exists(), name
    with Image.open(demo / "demo.gif") as gif:
        assert gif.n_frames == 8
    with Image.open(demo / "sheet.png") as sheet:
        assert sheet.width > 4 * 240
    scene = make_scene(5)
    np.testing.assert_array_equal(read_masks(demo / "scene" / "masks"), scene.modal)
    assert result["settings"] == {"seed": 23, "scene": 5, "steps": 4}
    assert leftovers(demo.parent) == []


def test_demo_says_what_eval_says_of_the_same_masks(demo: Path) -> None:
    quality = json.loads((demo / "result.json").read_text())["quality"]
    outcome = issue("eval", demo, "--truth", demo / "scene", "--mode", "strict", "--json")
    assert outcome.code == 0, outcome.err
    rows = {row["name"]: row for row in json.loads(outcome.out)["rows"]}
    mine = {row["name"]: row for row in quality["rows"]}
    for name in ("modal", "convex", "Top-1"):
        assert mine[name]["strict"] == pytest.approx(rows[name]["strict"]), name


@pytest.mark.slow
def test_the_default_bundle_completes_better_than_it_was_given() -> None:
    """Three unseen scenes, few steps: far from the figures in the README, and far from chance."""
    with amodal.load("default", threads=1) as model:
        gained = []
        for seed in (500_001, 500_002, 500_004):
            scene = make_scene(seed)
            found = model.segment(scene.modal, depth=scene.depth, steps=8).masks
            ious = [(m & scene.amodal).sum() / (m | scene.amodal).sum() for m in (found, scene.modal)]
            gained.append(ious[0] - ious[1])
    assert np.mean(gained) > 0.05


def test_the_default_bundle_is_small_and_whole() -> None:
    bundle = Bundle("default")
    assert bundle.path == find_bundle("default")
    for name in bundle.manifest.components:
        bundle.verify(name)
    assert sum(file.stat().st_size for file in bundle.path.rglob("*") if file.is_file()) <= 20e6
    assert bundle.manifest.tasks["segment"].licence == "apache-2.0"
    assert (bundle.path / "README.md").is_file()


def test_default_is_a_name_and_a_folder_of_that_name_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_bundle("default") == find_bundle(Path("default")) != Path("default")
    with pytest.raises(BundleNotFoundError):
        Bundle(tmp_path / "default")


def test_a_strangers_video_without_depth_gets_a_sentence(demo: Path, tmp_path: Path) -> None:
    scene = demo / "scene"
    outcome = issue("run", "default", "--frames", scene / "frames", "--masks", scene / "masks", "-o", tmp_path / "out")
    assert outcome.code == 2
    assert "--depth" in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.slow
def test_run_takes_default_by_name(demo: Path, tmp_path: Path) -> None:
    scene = demo / "scene"
    places = ("--frames", scene / "frames", "--masks", scene / "masks", "--depth", scene / "depth")
    outcome = issue("run", "default", *places, "-o", tmp_path / "out", "--steps", "4", "--threads", "1")
    assert outcome.code == 0, outcome.err
    # The scene's depth is in 16 bits here and was in floats there, so a pixel may fall on the other side.
    again, first = read_masks(tmp_path / "out" / "amodal_masks"), read_masks(demo / "amodal_masks")
    assert (again != first).mean() < 1e-3


def test_demo_does_not_overwrite_what_is_not_its_own(tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "file").write_text("mine")
    for options in ((), ("--overwrite",)):
        outcome = issue("demo", "-o", tmp_path / "precious", *options)
        assert outcome.code == 2
        assert (tmp_path / "precious" / "file").read_text() == "mine"


def test_scenes_writes_as_many_as_asked(tmp_path: Path) -> None:
    outcome = issue("scenes", "-o", tmp_path / "scenes", "-n", "3", "--seed", "4", "--frames", "5", "--size", "32x64")
    assert outcome.code == 0, outcome.err
    assert "scene_0000 ... scene_0002" in outcome.out
    assert sorted(path.name for path in (tmp_path / "scenes").iterdir()) == [
        *("scene_0000", "scene_0001", "scene_0002", "scenes.json")
    ]
    scene = make_scene(5, 5, (32, 64))
    np.testing.assert_array_equal(read_masks(tmp_path / "scenes" / "scene_0001" / "masks"), scene.modal)
    facts = json.loads((tmp_path / "scenes" / "scenes.json").read_text())
    assert [row["seed"] for row in facts["scenes"]] == [4, 5, 6]


def test_scenes_prints_json_and_replaces_only_when_told(tmp_path: Path) -> None:
    first = issue("scenes", "-o", tmp_path / "s", "--json")
    assert json.loads(first.out)["scenes"][0]["name"] == "scene_0000"
    again = issue("scenes", "-o", tmp_path / "s")
    assert again.code == 2
    assert "--overwrite" in again.err
    assert issue("scenes", "-o", tmp_path / "s", "--overwrite", "-q").code == 0


@pytest.mark.parametrize("size", ["8x8", "axb"])
def test_scenes_refuses_sizes_in_a_sentence(tmp_path: Path, size: str) -> None:
    outcome = issue("scenes", "-o", tmp_path / "s", "--size", size)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("fps", ["0", "-2", "nan", "inf"])
def test_scenes_refuses_a_frame_rate_in_a_sentence(tmp_path: Path, fps: str) -> None:
    outcome = issue("scenes", "-o", tmp_path / "s", "--fps", fps)
    assert outcome.code == 2
    assert "expected a number above 0" in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_demo_prints_what_it_wrote(tmp_path: Path) -> None:
    outcome = issue("demo", "-o", tmp_path / "d", "--steps", "1", "--threads", "1", "--json", "-q")
    assert json.loads(outcome.out) == json.loads((tmp_path / "d" / "result.json").read_text())
