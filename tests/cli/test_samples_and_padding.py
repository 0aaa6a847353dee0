"""`amodal run --samples` and `--pad`, held against single runs and against the definition in plain loops."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import amodal
from amodal.cli.progress import StageBars
from amodal.runtime.files.masks import read_masks
from amodal.runtime.pictures.padding import Padding

from .conftest import NAMES, QUICK, Clip, issue, make_clip


def grey(folder: Path) -> Any:
    return np.stack([np.asarray(Image.open(folder / name)) for name in NAMES])


@pytest.fixture(scope="module")
def border(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """The object touches the left border, and more of it as it leaves."""
    clip = make_clip(tmp_path_factory.mktemp("border"))
    for i, name in enumerate(NAMES):
        clip.modal[i] = False
        clip.modal[i, 8:30, : 24 - 6 * i] = True
        Image.fromarray(clip.modal[i] * np.uint8(255)).save(clip.masks / name)
    return clip


@pytest.fixture(scope="module")
def padded(toy_bundle: Path, border: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("padded") / "out"
    outcome = issue("run", toy_bundle, *border.inputs, "-o", out, "--pad", "--samples", "2", "--seed", "4", *QUICK)
    assert outcome.code == 0, outcome.err
    return out


@pytest.mark.slow
def test_samples_are_the_runs_with_their_seeds(toy_bundle: Path, kept_clip: Clip, tmp_path: Path) -> None:
    out = tmp_path / "three"
    options = (*kept_clip.inputs, "--stage", "segment", *QUICK)
    assert issue("run", toy_bundle, *options, "-o", out, "--samples", "3", "--seed", "7").code == 0
    singles = []
    for seed in (7, 8, 9):
        assert issue("run", toy_bundle, *options, "-o", tmp_path / str(seed), "--seed", seed).code == 0
        singles.append(read_masks(tmp_path / str(seed) / "amodal_masks"))
        np.testing.assert_array_equal(read_masks(out / "samples" / str(seed) / "amodal_masks"), singles[-1])
    assert any((singles[0] != single).any() for single in singles[1:])
    np.testing.assert_array_equal(read_masks(out / "amodal_masks"), singles[0])
    shares = grey(out / "probability")
    for index in np.ndindex(shares.shape):
        assert shares[index] == round(255 * sum(int(single[index]) for single in singles) / 3)
    result = json.loads((out / "result.json").read_text())
    assert result["settings"]["seeds"] == [7, 8, 9]
    assert {"samples/", "probability/"} <= set(result["files"])
    assert (out / "masks.json").read_text() == (tmp_path / "7" / "masks.json").read_text()


def test_the_completed_object_is_that_of_the_first_seed(
    both: tuple[Path, Any], toy_bundle: Path, kept_clip: Clip, tmp_path: Path
) -> None:
    assert issue("run", toy_bundle, *kept_clip.inputs, *QUICK, "--samples", 2, "-o", tmp_path / "out").code == 0
    for name in ("amodal_masks", "completed"):
        np.testing.assert_array_equal(grey(tmp_path / "out" / name), grey(both[0] / name))


def test_one_bar_counts_the_steps_of_all_samples(
    toy_bundle: Path, kept_clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, as far as rich is concerned
    monkeypatch.setenv("COLUMNS", "80")
    drawn: list[str] = []
    step = StageBars._step

    def seen(bars: StageBars, *state: Any) -> None:
        step(bars, *state)
        (task,) = [task for task in bars._bars.tasks if task.id == bars._task]
        drawn.append(f"{task.description} {task.completed:g}/{task.total:g} {task.fields['phase'].split(',')[0]}")

    monkeypatch.setattr(StageBars, "_step", seen)
    outcome = issue("run", toy_bundle, *kept_clip.inputs, *QUICK, "--samples", 2, "-o", tmp_path / "out")
    assert outcome.code == 0
    assert drawn == [
        *("segment 1/4 1 of 2", "segment 2/4 1 of 2", "segment 3/4 2 of 2", "segment 4/4 2 of 2"),
        *("complete 1/2 unet", "complete 2/2 unet"),
    ]
    assert max(map(len, re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", outcome.err)))) <= 80


def test_pad_writes_everything_at_both_sizes(padded: Path, border: Clip) -> None:
    count, height, width = border.modal.shape
    rows, columns = height // 4, width // 4
    for place in ("amodal_masks", "completed", "probability", "samples/4/amodal_masks", "samples/5/amodal_masks"):
        inner, outer = grey(padded / place), grey(padded / f"{place}_padded")
        assert inner.shape[:3] == (count, height, width)
        assert outer.shape[:3] == (count, height + 2 * rows, width + 2 * columns)
        np.testing.assert_array_equal(inner, outer[:, rows : rows + height, columns : columns + width])
    with Image.open(padded / "overlay.gif") as overlay:
        assert overlay.width / (overlay.height - 30) == pytest.approx(outer.shape[2] / outer.shape[1], rel=0.02)
    result = json.loads((padded / "result.json").read_text())
    assert result["settings"]["seeds"] == [4, 5]
    assert sorted(name.rstrip("/") for name in result["files"]) == sorted(path.name for path in padded.iterdir())


def test_boxes_hold_the_whole_object_and_may_leave_the_frame(padded: Path, border: Clip) -> None:
    result = json.loads((padded / "result.json").read_text())
    assert result["padding"] == {"rows": 10, "columns": 14}
    outer = read_masks(padded / "amodal_masks_padded")
    for box, whole, seen in zip(result["boxes"], outer, border.modal, strict=True):
        points = [(y - 10, x - 14) for y, x in zip(*np.nonzero(whole), strict=True)]
        points += list(zip(*np.nonzero(seen), strict=True))
        top, left = min(y for y, _ in points), min(x for _, x in points)
        bottom, right = max(y for y, _ in points), max(x for _, x in points)
        assert box == [left, top, right - left + 1, bottom - top + 1]
    assert any(box[0] < 0 for box in result["boxes"])


def test_a_padded_run_is_a_plain_run_on_frames_that_were_padded_by_hand(
    padded: Path, toy_bundle: Path, border: Clip
) -> None:
    padding, size = Padding(40, 56), (64, 64)
    depth = np.stack([np.asarray(Image.open(border.depth / name)) for name in NAMES]).astype(np.int64)
    with amodal.load(toy_bundle, threads=1) as model:
        maps, modal = padding.prepare_depth(depth, size), padding.prepare_modal(border.modal, size)
        seen = model.segment(modal, depth=maps, seed=4, steps=2)
        np.testing.assert_array_equal(
            read_masks(padded / "amodal_masks_padded"), padding.masks(seen.frames, border.modal)
        )
        around = np.pad(border.rgb, [(0, 0), (10, 10), (14, 14), (0, 0)], "edge")
        whole = model.complete(around, modal, seen.masks, seed=seen.noise, steps=2)
        np.testing.assert_array_equal(grey(padded / "completed_padded"), whole.frames_full)


def test_pad_takes_depth_from_the_frames_without_their_padding(
    toy_with_depth: tuple[Path, Any], border: Clip, tmp_path: Path
) -> None:
    inputs = ("--frames", border.frames, "--masks", border.masks, "--stage", "segment", "--no-overlay")
    assert issue("run", toy_with_depth[0], *inputs, *QUICK, "--pad", "-o", tmp_path / "out").code == 0
    with amodal.load(toy_with_depth[0], threads=1) as model:
        seen = model.segment(border.modal, depth=model.depth(border.rgb), padding=Padding(40, 56), steps=2)
    np.testing.assert_array_equal(read_masks(tmp_path / "out" / "amodal_masks_padded"), seen.masks_full)


def test_help_shows_samples_and_padding() -> None:
    text = issue("run", "--help").out
    assert "--samples 5" in text
    assert "--pad --fps 2" in text


def test_eval_judges_padded_boxes_and_all_samples(padded: Path, border: Clip, tmp_path: Path) -> None:
    from amodal.runtime.files.results import write_masks_png

    truth = tmp_path / "scene"
    write_masks_png(truth / "masks", border.modal, NAMES)
    write_masks_png(truth / "truth" / "amodal_masks", border.modal, NAMES)
    outcome = issue("eval", padded, "--truth", truth, "--json")
    assert outcome.code == 0, outcome.err
    assert {row["name"] for row in json.loads(outcome.out)["rows"]} >= {"modal", "convex", "Top-1", "Top-2"}
