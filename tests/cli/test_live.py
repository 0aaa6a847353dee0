"""`amodal live`: results in files, on standard output and in views; stopping; and what is refused."""

from __future__ import annotations

import json
import signal
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amodal.runtime.scenes import make_scene

from .conftest import Outcome, ended, issue, leftovers, start
from .test_viewing import frames_of, whole_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "segment_command.py"
COUNT, SIZE = 12, (48, 96)


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root, drawn = tmp_path_factory.mktemp("scene"), make_scene(seed=8, frames=COUNT, size=SIZE)
    pictures = {"frames": drawn.frames, "masks": drawn.modal * np.uint8(255)}
    for name, stack in pictures.items():
        (root / name).mkdir()
        for index, picture in enumerate(stack):
            Image.fromarray(picture).save(root / name / f"{index:03d}.png")
    np.save(root / "depth.npy", drawn.depth)
    return root


def inputs(scene: Path) -> list[object]:
    given = ["default", "--source", scene / "frames", "--masks-from", scene / "masks", "--depth", scene / "depth.npy"]
    return ["live", *given, "--depth-kind", "relative", "--preset", "fast", "--threads", "1"]


@pytest.fixture(scope="module")
def played(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    out = tmp_path_factory.mktemp("live") / "OUT"
    return out, issue(*inputs(scene), "--rate", "4", "--json", "--html", "-o", out)


@pytest.mark.slow
def test_every_frame_is_answered_in_files_lines_and_views(played: tuple[Path, Outcome]) -> None:
    out, outcome = played
    assert outcome.code == 0, outcome.err
    *lines, last = map(json.loads, outcome.out.splitlines())
    summary = last["summary"]
    numbers = [line["frame"] for line in lines]
    assert summary["frames"] + summary["dropped"] == COUNT
    assert summary["results"] + summary["skipped"] == summary["frames"]
    assert len(numbers) == summary["results"] > 0
    assert numbers[-1] == COUNT - 1
    assert [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()] == lines
    told = json.loads((out / "result.json").read_text())
    assert told["files"] == ["objects/", "results.jsonl", "view.html", "result.json"]
    assert all((out / name).exists() for name in told["files"])
    pages = {frame["n"]: frame for frame in frames_of(out / "view.html")}
    for line in lines:
        ((name, known),) = line["objects"].items()
        with Image.open(out / "objects" / name / "amodal_masks" / f"{line['frame']:08d}.png") as picture:
            mask = np.asarray(picture) > 0
        assert mask.sum() == known["pixels"]
        assert line["age"] >= 0
        np.testing.assert_array_equal(whole_of(pages[line["frame"]]), mask)


@pytest.mark.slow
def test_a_program_segments_and_ctrl_c_leaves_files_that_can_be_read(scene: Path, tmp_path: Path) -> None:
    bright = tmp_path / "frames"
    bright.mkdir()
    for index in range(400):
        picture = np.full((48, 96, 3), 60, np.uint8)
        picture[10:30, 20 : 40 + index % 9] = 240
        Image.fromarray(picture).save(bright / f"{index:04d}.png")
    out = tmp_path / "OUT"
    process = start(
        *("live", "default", "--source", bright, "--masks-from", f"{sys.executable} {EXAMPLE}"),
        *("--preset", "fast", "--threads", "1", "--rate", "5", "--html", "--view", "rerun", "-o", out),
    )

    def count() -> int:
        found = list(tmp_path.glob(".*/**/results.jsonl"))
        return len(found[0].read_text().splitlines()) if found else 0

    while count() < 3 and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    outcome = ended(process)
    assert outcome.code == 0, outcome.err
    told = json.loads((out / "result.json").read_text())
    lines = (out / "results.jsonl").read_text().splitlines()
    assert told["results"] == len(lines) >= 3
    assert told["frames"] < 400
    assert len(frames_of(out / "view.html")) == len(lines)
    assert (out / "view.rrd").stat().st_size > 1000
    assert len(list((out / "objects" / "1" / "amodal_masks").iterdir())) == len(lines)
    assert not [name for name in leftovers(tmp_path) if name not in ("OUT", "frames")]


@pytest.mark.slow
def test_what_was_found_is_kept_if_the_program_fails_for_good(scene: Path, tmp_path: Path) -> None:
    failing, out = tmp_path / "failing.py", tmp_path / "OUT"
    last = 'frame, *_ = asked["number"], asked["number"] > 7 and sys.exit(3)\n    height, width ='
    text = EXAMPLE.read_text().replace("height, width =", last, 1)
    failing.write_text(text.replace(".min(axis=2) > 200", ".min(axis=2) >= 0"))
    outcome = issue(
        *("live", "default", "--source", scene / "frames", "--masks-from", f"{sys.executable} {failing}", "-o", out),
        *("--preset", "fast", "--threads", "1", "--rate", "4", "--html"),
    )
    assert outcome.code == 2
    assert "failed 3 times on end" in outcome.err
    told = json.loads((out / "result.json").read_text())
    assert "failed 3 times on end" in told["error"]
    assert told["results"] == len((out / "results.jsonl").read_text().splitlines()) > 0
    assert told["unknown"] == 2
    assert frames_of(out / "view.html")


REFUSED = {
    "no use": ([], "give -o OUT, --json or --view rerun:live"),
    "a page of nothing": (["--html"], "--html writes a file to OUT, which was not given"),
    "the node": (["--masks-from", "node", "--json"], "run `amodal ros2`"),
    "no program": (["--masks-from", "no-such-program x", "--json"], "neither a file or folder nor a program"),
    "a camera with files": (["--source", "0", "--json"], "--source 0 is a camera; give a program"),
    "depth twice": (["--masks-from", sys.executable, "--json"], "--depth is for masks in files"),
    "no frames": (["--source", "nowhere", "--json"], "nowhere"),
}


@pytest.mark.parametrize(("options", "said"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_go_together_is_refused(scene: Path, options: list[str], said: str) -> None:
    outcome = issue(*inputs(scene), *options)
    assert outcome.code == 2
    assert said in outcome.err
    assert outcome.err.count("\n") == 1


@pytest.mark.slow
def test_a_bundle_of_sameo_draws_each_frame_by_itself(scene: Path, tmp_path: Path) -> None:
    given = ["--source", scene / "frames", "--masks-from", scene / "masks", "--rate", "4", "--threads", "1"]
    outcome = issue("live", "default-sameo", *given, "--json", "-o", tmp_path / "OUT")
    assert outcome.code == 0, outcome.err
    *lines, last = map(json.loads, outcome.out.splitlines())
    assert len(lines) == last["summary"]["results"] > 0
    assert lines[-1]["frame"] == COUNT - 1
    told = issue("live", "default-sameo", *given, "--json", "--preset", "fast")
    assert (told.code, "no sampler" in told.err) == (2, True)
