"""`amodal eval`: every layout of predictions and truth, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from amodal.bench.quality import ClipPrediction, ClipTruth, evaluate
from amodal.runtime.files.results import write_frames_png, write_json, write_masks_png
from amodal.runtime.files.rle import encode_rle
from amodal.runtime.scenes import Scene, make_scene

from .conftest import assert_refusal, issue

SEEDS = (3, 5)
SIZE = (24, 48)
COUNT = 4
IDS = [[100 * seed + t for t in range(COUNT)] for seed in SEEDS]


def guess(scene: Scene, seed: int) -> Any:
    """Somewhat more than the visible mask."""
    return scene.modal | (scene.amodal & (np.random.default_rng(seed).random(scene.amodal.shape) < 0.7))


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene(seed, COUNT, SIZE) for seed in SEEDS]


@pytest.fixture
def truth(tmp_path: Path, scenes: list[Scene]) -> Path:
    """Scene folders, to be damaged."""
    root = tmp_path / "scenes"
    for i, scene in enumerate(scenes):
        folder = root / f"scene_{i:04d}"
        write_frames_png(folder / "frames", scene.frames)
        write_masks_png(folder / "masks", scene.modal)
        write_masks_png(folder / "truth" / "amodal_masks", scene.amodal)
        write_frames_png(folder / "truth" / "completed", scene.whole)
        facts = {"format": "amodal-scene", "version": 1, "object_id": 7, "image_ids": IDS[i], "boxes": scene.boxes}
        write_json(folder / "scene.json", facts)
    return root


@pytest.fixture
def runs(tmp_path: Path, scenes: list[Scene]) -> Path:
    """What runs on them left: seed 23 and two more samples each, and RGB; to be damaged."""
    root = tmp_path / "runs"
    for i, scene in enumerate(scenes):
        folder = root / f"scene_{i:04d}"
        write_masks_png(folder / "amodal_masks", guess(scene, 23))
        for seed in (23, 24, 25):
            write_masks_png(folder / "samples" / str(seed) / "amodal_masks", guess(scene, seed))
        write_frames_png(folder / "completed", scene.frames)
        write_json(folder / "result.json", {"settings": {"seed": 23}})
    return root


@pytest.fixture
def results(tmp_path: Path, scenes: list[Scene]) -> Path:
    """The authors' layout for the same masks: a file per seed, to be damaged."""
    root = tmp_path / "results"
    root.mkdir()
    for seed in (23, 24):
        entries = {
            str((IDS[i][t], 7)): {"diffvas_res_rle": encode_rle(guess(scene, seed)[t])}
            for i, scene in enumerate(scenes)
            for t in range(COUNT)
        }
        write_json(root / f"seed{seed}.json", entries)
    return root


@pytest.fixture
def annotations(tmp_path: Path, scenes: list[Scene]) -> Path:
    """The authors' layout for the truth."""
    clips = [
        {
            "segmentation": [encode_rle(mask) for mask in scene.amodal],
            "visible_mask": [encode_rle(mask) for mask in scene.modal],
            "image_ids": ids,
            "obj_id": 7,
        }
        for scene, ids in zip(scenes, IDS, strict=True)
    ]
    write_json(tmp_path / "val.json", clips)
    return tmp_path / "val.json"


def report_of(*args: object) -> Any:
    outcome = issue("eval", *args, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.err == ""
    return json.loads(outcome.out)


def test_folders_give_what_evaluate_says_of_the_same_arrays(truth: Path, runs: Path, scenes: list[Scene]) -> None:
    pairs = [
        (
            ClipTruth(f"scene_{i:04d}", scene.modal, scene.amodal, scene.whole, scene.frames, scene.boxes),
            ClipPrediction([guess(scene, seed) for seed in (23, 24, 25)], scene.frames),
        )
        for i, scene in enumerate(scenes)
    ]
    report = report_of(runs, "--truth", truth)
    assert report == json.loads(evaluate(pairs).model_dump_json())
    assert [row["name"] for row in report["rows"]] == ["modal", "convex", "mean colour", "Top-1", "Top-3"]
    assert [clip["name"] for clip in report["clips"]] == ["scene_0000", "scene_0001"]
    assert report["frames"] == 2 * COUNT


def test_the_table_has_a_line_per_row_and_every_column(
    truth: Path, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")  # figures are not cut
    outcome = issue("eval", runs, "--truth", truth)
    assert outcome.code == 0, outcome.err
    lines = outcome.out.splitlines()
    for name in ("modal", "convex", "mean colour", "Top-1", "Top-3"):
        assert sum(line.strip().startswith(name) for line in lines) == 1
    for head in ("mIoU", "mIoU_occ", "official", "strict", "AP25", "AP50", "AP75", "flicker", "PSNR"):
        assert head in outcome.out
    assert "2 clips, 8 frames" in outcome.out
    assert "…" not in outcome.out


@pytest.mark.parametrize(("mode", "other"), [("official", "strict"), ("strict", "official")])
def test_one_mode_alone(mode: str, other: str, truth: Path, runs: Path) -> None:
    rows = report_of(runs, "--truth", truth, "--mode", mode)["rows"]
    assert all(row[other] is None for row in rows)
    assert all(row[mode] is not None for row in rows if row["name"] != "mean colour")
    outcome = issue("eval", runs, "--truth", truth, "--mode", mode)
    assert other not in outcome.out


def test_one_run_and_its_scene(truth: Path, runs: Path) -> None:
    whole = report_of(runs, "--truth", truth)
    alone = report_of(runs / "scene_0001", "--truth", truth / "scene_0001")
    assert alone["clips"][0] == whole["clips"][1]
    # Its name finds the scene among others.
    assert report_of(runs / "scene_0001", "--truth", truth) == alone


def test_top_k_takes_the_first_samples(truth: Path, runs: Path) -> None:
    for k, names in ((1, ["Top-1"]), (2, ["Top-1", "Top-2"])):
        rows = report_of(runs, "--truth", truth, "--top-k", k)["rows"]
        assert [row["name"] for row in rows][3:] == names


def test_without_rgb_there_is_no_psnr(truth: Path, runs: Path) -> None:
    for folder in runs.iterdir():
        shutil.rmtree(folder / "completed")
    outcome = issue("eval", runs, "--truth", truth)
    assert outcome.code == 0, outcome.err
    assert "PSNR" not in outcome.out
    assert "mean colour" not in outcome.out


def test_the_authors_results_give_what_the_folders_give(
    truth: Path, runs: Path, results: Path, annotations: Path
) -> None:
    by_folder = report_of(runs, "--truth", truth, "--top-k", 2)
    by_json = report_of(results, "--truth", truth)
    for name in ("official", "strict", "ap25", "ap50", "ap75", "flicker"):
        folder_rows = {row["name"]: row[name] for row in by_folder["rows"] if row["name"] != "mean colour"}
        assert {row["name"]: row[name] for row in by_json["rows"]} == folder_rows
    # Annotations have no boxes beyond the frame.
    annotated = report_of(results, "--truth", annotations)
    assert [row["strict"] for row in annotated["rows"]] == [row["strict"] for row in by_json["rows"]]
    single = report_of(results / "seed23.json", "--truth", annotations)
    assert [row["name"] for row in single["rows"]] == ["modal", "convex", "Top-1"]
    assert single["rows"][2] == annotated["rows"][2]


def test_results_of_the_networks_size_are_resized_and_refused_by_strict_alone(
    results: Path, annotations: Path, scenes: list[Scene]
) -> None:
    small = {
        str((IDS[i][t], 7)): {"diffvas_res_rle": encode_rle(scene.amodal[t, ::2, ::2])}
        for i, scene in enumerate(scenes)
        for t in range(COUNT)
    }
    write_json(results / "small.json", small)
    report = report_of(results / "small.json", "--truth", annotations, "--mode", "official")
    assert report["rows"][2]["official"]["miou"] > 0.8
    both = report_of(results / "small.json", "--truth", annotations)
    assert both["rows"][2]["official"] == report["rows"][2]["official"]
    assert both["rows"][2]["strict"]["miou"] > 0.8
    outcome = issue("eval", results / "small.json", "--truth", annotations, "--mode", "strict")
    assert_refusal(outcome)
    assert "24 wide and 12 high" in outcome.err
    assert "--mode official" in outcome.err


def test_padded_masks_are_taken(truth: Path, runs: Path, scenes: list[Scene]) -> None:
    for i, scene in enumerate(scenes):
        folder = runs / f"scene_{i:04d}"
        shutil.rmtree(folder / "samples")
        pad = [(0, 0), (SIZE[0] // 4,) * 2, (SIZE[1] // 4,) * 2]
        write_masks_png(folder / "amodal_masks", np.pad(scene.amodal, pad))
    row = report_of(runs, "--truth", truth)["rows"][-1]
    assert row["strict"]["miou"] == row["strict"]["miou_occ"] == 1


def refused(*args: object) -> str:
    outcome = issue("eval", *args)
    assert_refusal(outcome)
    return outcome.err


def test_what_is_not_there(truth: Path, runs: Path, tmp_path: Path) -> None:
    assert "nowhere does not exist" in refused("nowhere", "--truth", truth)
    assert "--truth" in refused(runs, "--truth", "nowhere")
    assert "holds no amodal_masks folder" in refused(truth, "--truth", truth)
    assert "holds no truth/amodal_masks folder" in refused(runs, "--truth", runs)
    assert "--truth" in refused(runs)
    (tmp_path / "empty").mkdir()
    assert "holds no amodal_masks" in refused(tmp_path / "empty", "--truth", truth)


def test_missing_frames_are_named(truth: Path, runs: Path) -> None:
    (runs / "scene_0001" / "amodal_masks" / "0002.png").unlink()
    sentence = refused(runs, "--truth", truth)
    assert "scene_0001" in sentence
    assert "holds 3 masks for 4 frames, without 0002" in sentence


def test_more_frames_than_the_truth(truth: Path, runs: Path, scenes: list[Scene]) -> None:
    masks = np.concatenate([guess(scenes[0], 23)] * 2)
    shutil.rmtree(runs / "scene_0000" / "samples")
    write_masks_png(runs / "scene_0000" / "amodal_masks", masks)
    assert "scene_0000: 8 masks were predicted for 4 frames" in refused(runs, "--truth", truth)


def test_a_sample_with_fewer_frames(truth: Path, runs: Path) -> None:
    (runs / "scene_0000" / "samples" / "25" / "amodal_masks" / "0000.png").unlink()
    sentence = refused(runs, "--truth", truth)
    assert "scene_0000" in sentence
    assert "there are 3 masks of one sample, but 4" in sentence


def test_another_number_of_samples(truth: Path, runs: Path) -> None:
    shutil.rmtree(runs / "scene_0001" / "samples" / "25")
    assert "scene_0001 has 2 samples, but scene_0000 another number" in refused(runs, "--truth", truth)
    assert "holds 2 samples, but --top-k asks for 3" in refused(runs, "--truth", truth, "--top-k", 3)
    assert "--top-k is 0" in refused(runs, "--truth", truth, "--top-k", 0)


def test_scenes_and_predictions_that_do_not_match(truth: Path, runs: Path, tmp_path: Path) -> None:
    (runs / "scene_0001").rename(runs / "scene_0009")
    assert "no prediction for scene_0001" in refused(runs, "--truth", truth)
    shutil.rmtree(truth / "scene_0001")
    assert "predictions without truth for scene_0009" in refused(runs, "--truth", truth)


def test_a_single_run_among_scenes_of_other_names(truth: Path, runs: Path) -> None:
    (runs / "scene_0001").rename(runs / "out")
    assert "none of them named out" in refused(runs / "out", "--truth", truth)


def test_sizes_that_differ(truth: Path, runs: Path, scenes: list[Scene]) -> None:
    shutil.rmtree(runs / "scene_0000" / "samples")
    write_masks_png(runs / "scene_0000" / "amodal_masks", guess(scenes[0], 23)[:, :, :40])
    sentence = refused(runs, "--truth", truth)
    assert "40 wide and 24 high, but the truth is 48 wide and 24 high (72 wide and 36 high when padded)" in sentence
    write_masks_png(truth / "scene_0000" / "masks", scenes[0].modal[:, :20])
    assert "the visible masks are 48 wide and 20 high" in refused(runs, "--truth", truth)


def test_rgb_of_another_size_or_number(truth: Path, runs: Path) -> None:
    (runs / "scene_0000" / "completed" / "0003.png").unlink()
    assert "3 RGB frames were predicted for 4 frames" in refused(runs, "--truth", truth)
    for path in (runs / "scene_0000" / "completed").iterdir():
        Image.open(path).resize((20, 20)).save(path)
    shutil.copy(path, path.with_name("0003.png"))
    assert "predicted RGB frames are 20 wide and 20 high" in refused(runs, "--truth", truth)


def test_damaged_files(truth: Path, runs: Path, results: Path, annotations: Path) -> None:
    (results / "seed24.json").write_text("{")
    assert "seed24.json cannot be read as json" in refused(results, "--truth", truth)
    annotations.write_text("[{}]")
    assert "no list of clips" in refused(results, "--truth", annotations)
    facts = json.loads((truth / "scene_0000" / "scene.json").read_text())
    for boxes, what in (([[1, 2]], "boxes of shape"), ("none", "no lists of four numbers")):
        write_json(truth / "scene_0000" / "scene.json", {**facts, "boxes": boxes})
        assert what in refused(runs, "--truth", truth)
    write_json(truth / "scene_0000" / "scene.json", {"format": "another"})
    assert "no scene of amodal" in refused(runs, "--truth", truth)
    (runs / "scene_0000" / "amodal_masks" / "0001.png").write_bytes(b"hello")
    (truth / "scene_0000" / "scene.json").unlink()
    sentence = refused(runs, "--truth", truth)
    assert "0001.png cannot be read as an image" in sentence
    assert sentence.endswith("leave it out (PREDICTIONS).\n")


def test_results_that_lack_or_break_an_entry(truth: Path, results: Path) -> None:
    file = results / "seed23.json"
    entries = json.loads(file.read_text())
    key = str((IDS[1][2], 7))
    for damage, what in (
        ({"diffvas_res_rle": {"size": [24, 48], "counts": "1"}}, "frame 2 has a broken mask"),
        ({}, "frame 2 has a broken mask"),
        ({"diffvas_res_rle": encode_rle(np.ones((3, 3), bool))}, "frame 2 has a mask of another size"),
        (None, "is no results json"),
    ):
        write_json(file, {**entries, key: damage})
        assert what in refused(file, "--truth", truth)
    del entries[key]
    write_json(file, entries)
    assert f"has no entry '{key}', which scene_0001 needs" in refused(file, "--truth", truth)
    write_json(truth / "scene_0000" / "scene.json", {"image_ids": ["a"] * COUNT, "object_id": 7})
    assert "whole numbers" in refused(file, "--truth", truth)
    (truth / "scene_0000" / "scene.json").unlink()
    assert "no image_ids and object_id" in refused(file, "--truth", truth)


def test_help_has_examples() -> None:
    outcome = issue("eval", "--help")
    assert outcome.code == 0
    assert "Examples:" in outcome.out
    assert "--mode [official|strict|both]" in outcome.out
