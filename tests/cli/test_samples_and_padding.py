"""`amodal run --samples` and `--pad`, held against single runs and against the definition in plain loops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amodal.runtime.errors import InputError
from amodal.runtime.masks import read_masks
from amodal.runtime.padding import Padding, pad_depth, protocol_boxes

from .conftest import NAMES, QUICK, Clip, issue


def inputs(clip: Clip) -> tuple[object, ...]:
    return ("--frames", clip.frames, "--masks", clip.masks, "--depth", clip.depth)


def grey(folder: Path) -> np.ndarray:  # type: ignore[type-arg]
    return np.stack([np.asarray(Image.open(folder / name)) for name in NAMES])


@pytest.fixture(scope="module")
def padded(toy_bundle: Path, kept_clip: Clip, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("padded") / "out"
    outcome = issue("run", toy_bundle, *inputs(kept_clip), "-o", out, "--pad", "--samples", "2", "--seed", "4", *QUICK)
    assert outcome.code == 0, outcome.err
    return out


def test_samples_are_the_runs_with_their_seeds(toy_bundle: Path, kept_clip: Clip, tmp_path: Path) -> None:
    out = tmp_path / "three"
    options = (*inputs(kept_clip), "--stage", "segment", *QUICK)
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
    assert result["settings"]["samples"] == 3
    assert {"samples/", "probability/"} <= set(result["files"])


@pytest.mark.parametrize("count", [0, -1])
def test_no_samples_are_refused(toy_bundle: Path, kept_clip: Clip, tmp_path: Path, count: int) -> None:
    outcome = issue("run", toy_bundle, *inputs(kept_clip), "-o", tmp_path / "out", "--samples", count)
    assert outcome.code == 2
    assert f"--samples {count}: expected 1 or more" in outcome.err


def test_pad_writes_masks_of_both_sizes_and_boxes(padded: Path, kept_clip: Clip) -> None:
    count, height, width = kept_clip.modal.shape
    rows, columns = height // 4, width // 4
    for place in (padded, padded / "samples" / "4", padded / "samples" / "5"):
        inner, outer = read_masks(place / "amodal_masks"), read_masks(place / "amodal_masks_padded")
        assert inner.shape == (count, height, width)
        assert outer.shape == (count, height + 2 * rows, width + 2 * columns)
        np.testing.assert_array_equal(inner, outer[:, rows : rows + height, columns : columns + width])
        # The visible part is in it, but for edges that two resizings move by a pixel.
        assert (kept_clip.modal & ~inner).mean() < 0.02
    assert grey(padded / "completed").shape == kept_clip.rgb.shape
    boxes = json.loads((padded / "result.json").read_text())["boxes"]
    outer = read_masks(padded / "amodal_masks_padded")
    for box, whole, seen in zip(boxes, outer, kept_clip.modal, strict=True):
        points = [(y - rows, x - columns) for y, x in zip(*np.nonzero(whole), strict=True)]
        points += list(zip(*np.nonzero(seen), strict=True))
        top, left = min(y for y, _ in points), min(x for _, x in points)
        bottom, right = max(y for y, _ in points), max(x for _, x in points)
        assert box == [left, top, right - left + 1, bottom - top + 1]


def test_an_object_that_leaves_the_frame_gets_a_box_beyond_it() -> None:
    padding = Padding(8, 12)
    modal = np.zeros((1, 8, 12), bool)
    modal[0, 3:6, 0:2] = True
    whole = np.zeros((1, *padding.size), bool)
    whole[0, 2 + 3 : 2 + 6, 0 : 3 + 2] = True
    assert padding.boxes(whole, modal).tolist() == [[-3, 3, 5, 3]]


def test_boxes_without_a_prediction_or_without_anything() -> None:
    modal = np.zeros((2, 8, 12), bool)
    modal[0, 3:6, 2:4] = True
    nothing = np.zeros((2, 8, 12), bool)
    assert protocol_boxes(nothing, modal).tolist() == [[2, 3, 2, 3], [0, 0, 0, 0]]


def test_depth_around_is_as_near_as_the_nearest() -> None:
    depth = np.arange(2 * 8 * 4, dtype=np.float32).reshape(2, 8, 4)
    around = pad_depth(depth)
    assert around.shape == (2, 12, 6)
    np.testing.assert_array_equal(around[:, 2:-2, 1:-1], depth)
    around[:, 2:-2, 1:-1] = depth.max()
    assert (around == depth.max()).all()


def test_padding_and_cropping_refuse_other_sizes() -> None:
    with pytest.raises(InputError, match="expected sides of 4 pixels"):
        Padding(3, 100)
    padding = Padding(8, 8)
    with pytest.raises(InputError, match="expected 8x8"):
        padding.pad(np.zeros((1, 9, 8)), 0)
    with pytest.raises(InputError, match="expected 12x12"):
        padding.crop(np.zeros((1, 8, 8)))


def test_eval_judges_padded_boxes_and_all_samples(padded: Path, kept_clip: Clip, tmp_path: Path) -> None:
    from amodal.runtime.results import write_masks_png

    truth = tmp_path / "scene"
    write_masks_png(truth / "masks", kept_clip.modal, NAMES)
    write_masks_png(truth / "truth" / "amodal_masks", kept_clip.modal, NAMES)
    outcome = issue("eval", padded, "--truth", truth, "--json")
    assert outcome.code == 0, outcome.err
    assert {row["name"] for row in json.loads(outcome.out)["rows"]} >= {"modal", "convex", "Top-1", "Top-2"}
