"""--view and --html of `amodal run`: what is shown is what was written."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from .conftest import QUICK, Clip, issue

SEEN = ("--html", "--view", "rerun", "--no-overlay", "-q", "--json")


def frames_of(page: Path):
    (text,) = re.findall(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    return json.loads(text)["frames"]


def whole_of(frame, place: str = "0"):
    width, height = frame["size"]
    return coco.decode({"size": [height, width], "counts": frame["objects"][place]["whole"].encode()}) > 0


def read(path: Path):
    with Image.open(path) as picture:
        return np.asarray(picture) > 0


@pytest.mark.parametrize("objects", [(), ("--objects", "all")], ids=["one", "blocks"])
def test_a_run_of_diffusion_vas_is_shown(
    toy_bundle: Path, kept_clip: Clip, tmp_path: Path, objects: tuple[str, ...]
) -> None:
    out = tmp_path / "OUT"
    outcome = issue("run", toy_bundle, *kept_clip.inputs, *QUICK, *SEEN, *objects, "-o", out)
    assert outcome.code == 0, outcome.err
    assert {"view.rrd", "view.html"} <= set(json.loads(outcome.out)["files"])
    assert (out / "view.rrd").stat().st_size > 1000
    masks = sorted(out.rglob("amodal_masks/*.png"), key=lambda path: int(path.stem.split("_")[1]))
    frames = frames_of(out / "view.html")
    assert len(frames) == len(masks) == 3
    for path, frame in zip(masks, frames, strict=True):
        np.testing.assert_array_equal(whole_of(frame), read(path))
        assert "depth" in frame
        assert "completed" in frame["objects"]["0"] or not whole_of(frame).any()


def test_nothing_is_written_unless_it_is_asked_for(toy_bundle: Path, kept_clip: Clip, tmp_path: Path) -> None:
    assert issue("run", toy_bundle, *kept_clip.inputs, *QUICK, "--no-overlay", "-q", "-o", tmp_path / "OUT").code == 0
    assert not list((tmp_path / "OUT").glob("view.*"))


def test_a_run_of_sameo_is_shown(kept_clip: Clip, tmp_path: Path) -> None:
    out = tmp_path / "OUT"
    outcome = issue(
        *("run", "default-sameo", "--images", kept_clip.frames, "--masks", kept_clip.masks, "--threads", "1"),
        *(*SEEN, "-o", out),
    )
    assert outcome.code == 0, outcome.err
    assert {"view.rrd", "view.html"} <= set(json.loads(outcome.out)["files"])
    masks = sorted((out / "amodal_masks").iterdir(), key=lambda path: int(path.stem.split("_")[1]))
    for path, frame in zip(masks, frames_of(out / "view.html"), strict=True):
        np.testing.assert_array_equal(whole_of(frame), read(path))


def test_a_missing_viewer_is_said_before_anything_runs(
    toy_bundle: Path, kept_clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "rerun", None)
    outcome = issue("run", toy_bundle, *kept_clip.inputs, "--view", "rerun", "-o", tmp_path / "OUT")
    assert outcome.code == 2
    assert 'pip install "amodal[view]"' in outcome.err
    assert not (tmp_path / "OUT").exists()
