"""`amodal batch`: which clips it finds, what it refuses, and that each result is that of `amodal run`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import QUICK, Clip, issue

OPTIONS = (*QUICK, "--stage", "segment", "--no-overlay")


def make_folder(root: Path, clip: Clip, *names: str) -> Path:
    for name in names:
        for what in ("frames", "masks", "depth"):
            shutil.copytree(getattr(clip, what), root / name / what)
    return root


@pytest.fixture
def clips(kept_clip: Clip, tmp_path: Path) -> Path:
    return make_folder(tmp_path / "clips", kept_clip, "a", "b")


def without_seconds(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    found["result.json"] = {k: v for k, v in json.loads(found["result.json"]).items() if k != "seconds"}
    return found


def test_each_clip_has_the_files_of_a_run_and_a_bad_one_the_reason(
    toy_bundle: Path, clips: Path, kept_clip: Clip, tmp_path: Path
) -> None:
    out = tmp_path / "OUT"
    make_folder(clips, kept_clip, "c")
    (clips / "c" / "masks" / "shot_9.png").unlink()
    outcome = issue("batch", clips, "-o", out, "--bundle", toy_bundle, "--json", "--", *OPTIONS)
    assert outcome.code == 1, outcome.err
    summary = json.loads(outcome.out)
    assert (summary["done"], summary["quarantined"], summary["retries"]) == (2, 1, 0)
    assert "--missing-masks" in summary["quarantine"]["c"]
    for name in ("a", "b"):
        inputs = [text for what in ("frames", "masks", "depth") for text in (f"--{what}", clips / name / what)]
        assert issue("run", toy_bundle, *inputs, *OPTIONS, "-q", "-o", tmp_path / name).code == 0
        assert without_seconds(out / "clips" / name) == without_seconds(tmp_path / name)

    again = issue("batch", clips, "-o", out, "--bundle", toy_bundle, "--resume", "--json", "--", *OPTIONS)
    assert json.loads(again.out)["done_before"] == 2
    other = issue("batch", clips, "-o", out, "--bundle", toy_bundle, "--resume", "--", *OPTIONS, "--seed", 4)
    assert (other.code, "options.seed is 23 there and 4 here" in other.err) == (2, True)


LINES = {
    "{": "line 2: it is no JSON",
    "[1]": "line 2: it is list; expected an object such as",
    '{"masks": "m"}': "line 2: it has no frames; expected",
    '{"frames": "f", "masks": "m", "id": "first"}': "line 2: the id first is also that of line 1",
    '{"frames": "f", "masks": "m", "colour": 3}': "line 2: colour is no option of `amodal run`; expected some of",
    '{"frames": "f", "masks": "m", "options": {"out": "x"}}': "line 2: out is not for single clips",
    '{"frames": "f", "masks": "m", "options": {"pad": "yes"}}': 'line 2: pad is "yes"; expected true or false',
    '{"frames": ["f"], "masks": "m"}': 'line 2: its frames is ["f"]; expected a path as text',
    '{"frames": "f", "masks": "m", "options": 3}': "line 2: its options are 3",
    '{"frames": "f", "masks": "m", "options": {"steps": "many"}}': "clip 2 (clip_000002): Invalid value for '--steps'",
}


@pytest.mark.parametrize("line", LINES)
def test_a_wrong_line_is_refused_with_its_number(line: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    file = tmp_path / "clips.jsonl"
    file.write_text('{"id": "first", "frames": "f", "masks": "m"}\n' + line)
    assert LINES[line] in refused("batch", file)


def test_what_cannot_be_clips_is_refused(tmp_path: Path, kept_clip: Clip, refused: Callable[..., str]) -> None:
    (tmp_path / "empty").mkdir()
    assert "does not exist; expected a folder of clips, or a JSONL file" in refused("batch", tmp_path / "no")
    assert "has no folders; expected one for each clip" in refused("batch", tmp_path / "empty")
    assert "is a clip itself" in refused("batch", kept_clip.frames.parent)
    folder = make_folder(tmp_path / "clips", kept_clip, "a")
    (folder / "a" / "masks.json").touch()
    assert "has masks and masks.json, which could each be its --masks" in refused("batch", folder)
    (folder / "a" / "masks.json").unlink()
    shutil.rmtree(folder / "a" / "frames")
    assert "has no frames or rgb or rgbs or video" in refused("batch", folder)


def test_wrong_options_are_refused_before_anything_is_written(clips: Path, refused: Callable[..., str]) -> None:
    out = clips.parent / "OUT"
    assert "No such option '--stepz'" in refused("batch", clips, "-o", out, "--", "--stepz", 3, with_out=False)
    assert "after `--`, -o is not" in refused("batch", clips, "-o", out, "--", "--out", "x", with_out=False)
    assert "shards are counted from 1" in refused("batch", clips, "--shard", "0/3")
    assert "--address is about a Ray cluster; add --on ray" in refused("batch", clips, "--address", "auto")
    assert "add --resume" in refused("batch", clips, "--retry-quarantined")
