"""`amodal run` with clips longer than the bundle's and several objects: what it writes, refuses and resumes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import amodal
from amodal.cli.families.diffusion_vas.long_result import skipped_frames
from amodal.runtime.clips.gate import JUDGEMENTS
from amodal.runtime.files.masks import read_masks
from amodal.runtime.files.rle import decode_rle
from amodal.runtime.scenes import make_scene

from .conftest import Outcome, assert_refusal, ended, issue, leftovers, start

COUNT, HEIGHT, WIDTH = 20, 64, 128
QUICK = ("--steps", "1", "--threads", "1", "--block-frames", "16")
# A run in a process of its own that is killed, as by `kill -9`, at its n-th operation on files of OUT; after the first
# block, if n is below 0.
NEVER = 10**9
KILLED = """
import os, signal, sys
left = int(sys.argv.pop(1))

def count(event, args):
    global left
    if event in ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.truncate") or (
        event == "open" and isinstance(args[0], (str, os.PathLike)) and "OUT" in str(args[0])
    ):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        if event == "os.rename" and str(args[1]).endswith("run.json") and left < 0:
            left = 2  # once a block is finished

sys.addaudithook(count)
from amodal.cli import main
main()
"""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames, ids of the objects 1 and 7, and depth of a scene; not to be changed."""
    root = tmp_path_factory.mktemp("scene")
    drawn = make_scene(3, COUNT, (HEIGHT, WIDTH), pace=8)
    depth = (drawn.depth - drawn.depth.min()) / np.ptp(drawn.depth)
    for folder in ("frames", "ids", "depth"):
        (root / folder).mkdir()
    for t in range(COUNT):
        ids = drawn.modal[t].astype(np.uint8)
        ids[4:20, 5 * t : 5 * t + 18][ids[4:20, 5 * t : 5 * t + 18] == 0] = 7
        Image.fromarray(drawn.frames[t]).save(root / "frames" / f"{t:04d}.png")
        Image.fromarray(ids).save(root / "ids" / f"{t:04d}.png")
        Image.fromarray((depth[t] * 65535).astype(np.uint16)).save(root / "depth" / f"{t:04d}.png")
    return root


def command(scene: Path, *more: object) -> tuple[object, ...]:
    inputs = ("--frames", scene / "frames", "--masks", scene / "ids", "--depth", scene / "depth")
    return ("run", "default", *inputs, *QUICK, *more)


@pytest.fixture(scope="module")
def both(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """What a run of two objects wrote, and said; not to be changed."""
    out = tmp_path_factory.mktemp("both") / "OUT"
    outcome = issue(*command(scene, "--objects", "all", "--cutouts", "-o", out))
    assert outcome.code == 0, outcome.err
    return out, outcome


def pictures(folder: Path) -> Any:
    assert [path.name for path in sorted(folder.iterdir())] == [f"{t:04d}.png" for t in range(COUNT)]
    return np.stack([np.asarray(Image.open(path)) for path in sorted(folder.iterdir())])


def ids_of(scene: Path) -> Any:
    return pictures(scene / "ids")


def content(out: Path) -> dict[str, Any]:
    """All files of a run; result.json without its times."""
    files: dict[str, Any] = {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}
    result = json.loads(files["result.json"])
    del result["seconds"]
    return {**files, "result.json": result}


@pytest.mark.slow
def test_each_object_has_what_the_python_interface_gives(both: tuple[Path, Outcome], scene: Path) -> None:
    ids, frames = ids_of(scene), pictures(scene / "frames")
    depth = pictures(scene / "depth").astype(np.float32)
    shared = {"steps": 1, "block_frames": 16}
    with amodal.load("default", threads=1) as model:
        objects = {1: ids == 1, 7: ids == 7}
        seen = model.segment_objects(objects, depth=depth, **shared)
        drawn = model.complete_objects(frames, objects, seen, seed=seen.noise, **shared)
    for object_id in (1, 7):
        folder = both[0] / "objects" / str(object_id)
        masks = pictures(folder / "amodal_masks") == 255
        np.testing.assert_array_equal(masks, seen[object_id].masks_full)
        np.testing.assert_array_equal(pictures(folder / "completed"), drawn[object_id].frames_full)
        rgba = pictures(folder / "rgba")
        np.testing.assert_array_equal(rgba[..., 3] == 255, masks)
        np.testing.assert_array_equal(rgba[..., :3][masks], drawn[object_id].frames_full[masks])
        np.testing.assert_array_equal(pictures(folder / "visible")[..., 3] == 255, ids == object_id)


@pytest.mark.slow
def test_masks_json_has_tracks_that_the_reader_reads(both: tuple[Path, Outcome], scene: Path) -> None:
    out, _ = both
    document = json.loads((out / "masks.json").read_text())
    assert [image["frame_index"] for image in document["images"]] == list(range(COUNT))
    assert {one["track_id"] for one in document["annotations"]} == {1, 7}
    whole = {object_id: pictures(out / f"objects/{object_id}/amodal_masks") == 255 for object_id in (1, 7)}
    for one in document["annotations"]:
        mask = decode_rle(one["segmentation"])
        np.testing.assert_array_equal(mask, whole[one["track_id"]][one["image_id"] - 1])
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        x, y, width, height = one["bbox"]
        assert (x, y, x + width - 1, y + height - 1) == (columns[0], rows[0], columns[-1], rows[-1])
        assert one["area"] == mask.sum()
    np.testing.assert_array_equal(read_masks(out / "masks.json", 1), ids_of(scene) == 1)


@pytest.mark.slow
def test_result_json_says_what_was_run_and_where_it_is(both: tuple[Path, Outcome]) -> None:
    out, outcome = both
    result = json.loads((out / "result.json").read_text())
    assert sorted(path.name for path in out.iterdir()) == sorted(name.rstrip("/") for name in result["files"])
    assert [one["folder"] for one in result["objects"]] == ["objects/1/", "objects/7/"]
    assert [one["frames_drawn"] for one in result["objects"]] == [{"segment": COUNT, "complete": COUNT}] * 2
    assert result["blocks"] == [{"start": 0, "stop": 16}, {"start": 4, "stop": COUNT}]
    assert result["windows"] == {"strategy": "shifted", "frames": 8}
    assert set(result["seconds"]) == {"total", "segment", "complete"}
    with Image.open(out / "overlay.gif") as overlay:
        assert overlay.n_frames == COUNT
    assert leftovers(out.parent) == []
    assert outcome.out.startswith(f"Wrote {out} in ")


@pytest.mark.slow
def test_one_object_of_a_long_clip_is_written_as_that_of_a_short_one(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "OUT"
    outcome = issue(*command(scene, "--object", 1, "--stage", "segment", "--preset", "fast", "-o", out))
    assert_refusal(outcome)
    assert "--preset and --steps" in outcome.err
    outcome = issue(*command(scene, "--object", 1, "--stage", "segment", "-o", out))
    assert outcome.code == 0, outcome.err
    assert sorted(path.name for path in out.iterdir()) == [
        *("amodal_masks", "masks.json", "overlay.gif", "result.json", "sheet.png", "strip.png")
    ]
    whole = pictures(out / "amodal_masks") == 255
    document = json.loads((out / "masks.json").read_text())
    assert [frame["name"] for frame in document["frames"]] == [f"{t:04d}.png" for t in range(COUNT)]
    np.testing.assert_array_equal(np.stack([decode_rle(one["amodal"]) for one in document["frames"]]), whole)
    result = json.loads((out / "result.json").read_text())
    hidden = [1 - (ids == 1).sum() / max(mask.sum(), 1) for ids, mask in zip(ids_of(scene), whole, strict=True)]
    np.testing.assert_allclose(result["hidden_share"], hidden)


@pytest.mark.slow
def test_the_complete_stage_alone_takes_the_masks_of_the_segment_stage(
    both: tuple[Path, Outcome], scene: Path, tmp_path: Path
) -> None:
    out, masks = tmp_path / "OUT", both[0] / "masks.json"
    more = ("--objects", "1,7", "--stage", "complete", "--amodal", masks, "--seed", 5, "-o", out)
    inputs = command(scene, *more)
    without_depth = tuple(one for one in inputs if one not in ("--depth", scene / "depth"))
    outcome = issue(*without_depth)
    assert outcome.code == 0, outcome.err
    again = json.loads((out / "masks.json").read_text())["annotations"]
    before = json.loads(masks.read_text())["annotations"]
    key = ("track_id", "image_id", "segmentation", "visible_mask")
    assert [[one[name] for name in key] for one in again] == [[one[name] for name in key] for one in before]


def test_the_gate_says_which_frames_it_left_out_and_why(scene: Path, tmp_path: Path) -> None:
    out = tmp_path / "OUT"
    options = ("--objects", "1", "--gate", "auto", "--gate-tolerance", "3", "--stage", "segment", "-o", out)
    outcome = issue(*command(scene, *options))
    assert outcome.code == 0, outcome.err
    result = json.loads((out / "result.json").read_text())
    (one,) = result["objects"]
    assert one["frames_drawn"] == {"segment": 0}
    assert one["skipped"] == [{"start": 0, "stop": COUNT, "why": "nothing nearer borders the object"}]
    np.testing.assert_array_equal(pictures(out / "objects/1/amodal_masks") == 255, ids_of(scene) == 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--object", 1, "--object", 7), "give several as --objects 1,7"),
        (("--object", 1, "--objects", "1,7"), "give one of them"),
        (("--objects", "1,7,1"), "object 1 is named twice"),
        (("--objects", "1,9"), "holds no object 9 in the 20 frames that are used, but 1, 7"),
        (("--object", 9), "holds no object 9 in the 20 frames that are used, but 1, 7"),
        (("--objects", ","), "names no object"),
        (("--object", 1, "--samples", 2), "--samples is for one object"),
        (("--objects", "all", "--pad"), "--pad is for one object"),
        (("--objects", "all", "--crop", "auto"), "--crop is for one object"),
        (("--object", 1, "--block-frames", 0), "blocks of 0 frames"),
        (("--objects", "all", "--objects-at-once", 0), "0 objects at once"),
        (("--objects", "all", "--gate", "auto", "--gate-tolerance", -1), "gate tolerance -1"),
        (("--objects", "all", "--gate-tolerance", 0.1), "--gate-tolerance is for --gate auto"),
    ],
)
def test_options_that_cannot_be(
    options: tuple[object, ...], said: str, scene: Path, refused: Callable[..., str]
) -> None:
    assert said in refused(*command(scene, *options))


def test_an_object_that_is_never_seen_is_named_and_the_rest_runs(scene: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    for object_id in (1, 2):
        (masks / str(object_id)).mkdir(parents=True)
    for t, ids in enumerate(ids_of(scene)):
        Image.fromarray((ids == 1) * np.uint8(255)).save(masks / "1" / f"{t:04d}.png")
        Image.fromarray(ids * np.uint8(0)).save(masks / "2" / f"{t:04d}.png")
    out = tmp_path / "OUT"
    options = ("--masks", masks, "--objects", "all", "--stage", "segment", "--no-overlay", "-o", out)
    outcome = issue(*command(scene, *options))
    assert outcome.code == 0, outcome.err
    assert "object 2 in none of the 20 frames" in outcome.err
    result = json.loads((out / "result.json").read_text())
    assert result["empty_objects"] == [2]
    assert [path.name for path in (out / "objects").iterdir()] == ["1"]


def killed_at(number: int, *args: object) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which is killed at an operation on files."""
    line = [sys.executable, "-c", KILLED, str(number), *map(str, args)]
    return subprocess.run(line, capture_output=True, text=True, timeout=300)


def run_with_kills(scene: Path, out: Path, moments: Sequence[int]) -> int:
    """Runs until it is finished, killed at some moments before; returns how often it was."""
    for kills, moment in enumerate((*moments, NEVER)):
        found = killed_at(moment, *command(scene, "--objects", "all", "--cutouts", "-q", "--resume", "-o", out))
        if found.returncode != -signal.SIGKILL:
            finished = found.returncode == 0 or "exists already" in found.stderr  # killed after the last move
            assert finished, found.stderr
            return kills
    raise AssertionError("it was killed without being asked to")


@pytest.mark.slow
@pytest.mark.parametrize("number", range(int(os.environ.get("AMODAL_TEST_KILLS", "2"))))
def test_a_run_that_is_killed_anywhere_goes_on_and_gives_the_same_files(
    number: int, both: tuple[Path, Outcome], scene: Path, tmp_path: Path
) -> None:
    out, rng = tmp_path / "OUT", random.Random(number)
    killed = 0
    while not killed:  # again if the first moment was after the end of the run
        shutil.rmtree(out, ignore_errors=True)
        if number % 2:
            out.mkdir()  # which stays, and gets the files one by one
        killed = run_with_kills(scene, out, [int(10 ** rng.uniform(1, 3.2)) for _ in range(3)])
    assert content(out) == content(both[0])
    assert leftovers(tmp_path) == []
    assert [path.name for path in tmp_path.iterdir()] == ["OUT"]


@pytest.fixture
def stopped(scene: Path, tmp_path: Path) -> Path:
    """The OUT of a run that was killed after its first block."""
    out = tmp_path / "OUT"
    stop = ("--object", 1, "--stage", "segment", "-q", "-o", out)
    box = tmp_path / ".OUT.unfinished"
    found = killed_at(-1, *command(scene, *stop))
    assert found.returncode == -signal.SIGKILL, found.stderr
    state = json.loads((box / "run.json").read_text())["state"]
    assert state["segment"]["next"] == 1
    return out


@pytest.mark.slow
def test_what_a_stopped_run_left_is_named_and_not_lost(stopped: Path, scene: Path) -> None:
    same = command(scene, "--object", 1, "--stage", "segment", "-o", stopped)
    outcome = issue(*same)
    assert_refusal(outcome)
    assert "go on with --resume, or discard it with --overwrite" in outcome.err
    outcome = issue(*same, "--resume", "--seed", 24)
    assert_refusal(outcome)
    assert "--seed was 23 and is 24" in outcome.err
    outcome = issue(*same, "--resume", "--stop", 12)
    assert_refusal(outcome)
    assert "--stop was not given and is 12" in outcome.err
    outcome = issue(*same, "--resume", "--stop", 6)  # not run block by block
    assert_refusal(outcome)
    assert "the run to go on with was of a longer clip" in outcome.err
    (scene / "frames" / "0001.png").touch()
    outcome = issue(*same, "--resume")
    assert_refusal(outcome)
    assert "what --frames holds changed" in outcome.err
    outcome = issue(*same, "--overwrite")
    assert outcome.code == 0, outcome.err
    assert [path.name for path in stopped.parent.iterdir()] == ["OUT"]


@pytest.mark.slow
def test_a_full_disk_keeps_what_is_finished(scene: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from amodal.cli.families.diffusion_vas.long_writing import LongWriter

    out, save = tmp_path / "OUT", LongWriter._save

    def full(self: Any, folder: str, numbers: range, pictures: Any) -> None:
        if numbers.start >= 4:
            raise OSError(28, "No space left on device", str(self.run.folder / folder))
        save(self, folder, numbers, pictures)

    same = command(scene, "--object", 1, "--stage", "segment", "-o", out)
    monkeypatch.setattr(LongWriter, "_save", full)
    outcome = issue(*same)
    assert_refusal(outcome)
    assert "the disk is full; what was finished is kept, make room and go on with --resume" in outcome.err
    monkeypatch.undo()
    outcome = issue(*same, "--resume")
    assert outcome.code == 0, outcome.err
    assert len(list((out / "amodal_masks").iterdir())) == COUNT


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_keeps_finished_blocks_and_says_so(scene: Path, tmp_path: Path) -> None:
    same = ("--object", 1, "--stage", "segment", "--block-frames", 1, "-o", tmp_path / "OUT")
    process = start(*command(scene, *same, "-q"))
    journal = tmp_path / ".OUT.unfinished" / "run.json"
    while not journal.exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    outcome = ended(process)
    assert_refusal(outcome, 130)
    assert "interrupted; what was finished is kept, --resume goes on from there." in outcome.err
    outcome = issue(*command(scene, *same, "--resume"))
    assert outcome.code == 0, outcome.err
    assert [path.name for path in tmp_path.iterdir()] == ["OUT"]


def test_frames_that_no_network_drew_are_told_with_the_reason() -> None:
    drawn = np.array([False, False, True, True, False, False, False])
    words = ["open", "open", "hidden", "vanished", "outside", "open", "hidden"]
    judged = np.array([JUDGEMENTS.index(word) for word in words], np.uint8)
    told = [(one["start"], one["stop"], one["why"].split()[0]) for one in skipped_frames(drawn, judged)]
    assert told == [(0, 2, "nothing"), (4, 5, "the"), (5, 6, "nothing"), (6, 7, "no")]
    assert [one["why"].split()[0] for one in skipped_frames(drawn, None)] == ["no", "no"]
    assert skipped_frames(drawn[2:4], None) == []
