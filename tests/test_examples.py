"""The programs in `examples/` run, on the default model, and give what they say."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from amodal.runtime.scenes import make_scene
from amodal.runtime.scenes.scene import write_scene

from .places import ROOT

pytestmark = pytest.mark.slow


def run(name: str, *options: object, cwd: Path) -> str:
    """What an example prints."""
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), *map(str, options)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_a_video_of_any_length_becomes_whole_masks(tmp_path: Path) -> None:
    said = run("segment_video", "--steps", 6, "-o", "out", cwd=tmp_path)
    visible, whole = (float(value) for value in re.findall(r"with the truth: ([\d.]+)", said))
    assert whole > visible
    assert "frames 12 to 19 of 20" in said  # the last window reaches back
    assert len(list((tmp_path / "out" / "masks").glob("*.png"))) == 20
    with Image.open(tmp_path / "out" / "overlay.gif") as overlay:
        assert overlay.n_frames == 20


def test_a_video_on_disk_is_read(tmp_path: Path) -> None:
    scene = make_scene(3, frames=5)
    write_scene(tmp_path / "scene", scene)
    given = [part for name in ("frames", "masks", "depth") for part in (f"--{name}", tmp_path / "scene" / name)]
    run("segment_video", *given, "--steps", 1, "-o", "out", cwd=tmp_path)
    with Image.open(tmp_path / "out" / "masks" / "00002.png") as mask:
        assert (np.asarray(mask) | ~scene.modal[2]).all()


def test_a_camera_is_watched(tmp_path: Path) -> None:
    said = run("live_camera", "--steps", 1, "--pictures", 12, "--rate", 100, "--save", "seen", cwd=tmp_path)
    lines = said.splitlines()
    assert all(
        re.match(r"picture \d+: \d+ of \d+ pixels of object 1 are hidden, \w+, [\d.]+ s late", line) for line in lines
    )
    assert len(list((tmp_path / "seen").glob("*.png"))) == len(lines) >= 1


def test_a_node_publishes_from_its_thread(tmp_path: Path) -> None:
    said = run("embed_in_node", "--steps", 1, "--pictures", 24, cwd=tmp_path)
    lines = said.splitlines()
    assert lines
    assert all(
        re.match(r"\d+ pixels of the object, \w+, [\d.]+ s late, \d+ pictures passed by", line) for line in lines
    )
