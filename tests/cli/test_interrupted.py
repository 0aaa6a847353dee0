"""Commands in processes of their own: Ctrl-C, killed, on a terminal, piped into something that stops reading."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import QUICK, Clip, Outcome, assert_refusal, ended, issue, leftovers, start

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and terminals of POSIX")
# Long enough that nobody has to be fast: 25 frames are compared with torch at their own size.
SLOW_EXPORT = ("--random", "tiny", "--size", "128x128", "--precision", "fp32", "--check", "full")


def wait_until(condition: Callable[[], Any], process: subprocess.Popen[str], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def staged(folder: Path, pattern: str = "") -> Callable[[], list[Path]]:
    """Whether a command has begun to write into a hidden sibling of its OUT in `folder`."""
    return lambda: list(folder.glob(f".OUT.partial-*{pattern}"))


def test_ctrl_c_during_a_run_leaves_nothing(toy_bundle: Path, kept_clip: Clip, tmp_path: Path) -> None:
    process = start("run", toy_bundle, *kept_clip.inputs, "--steps", 20_000, "--threads", 1, "-o", tmp_path / "OUT")
    wait_until(staged(tmp_path), process)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    outcome = ended(process)
    assert_refusal(outcome, code=130)
    assert "interrupted" in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_ctrl_c_during_an_export_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    process = start("export", *SLOW_EXPORT, "-o", tmp_path / "OUT")
    wait_until(staged(tmp_path, "/graphs/*.onnx"), process)
    process.send_signal(signal.SIGINT)
    outcome = ended(process)
    assert_refusal(outcome, code=130)
    assert "interrupted" in outcome.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_killed_export_leaves_no_bundle_and_the_next_one_clears_away(kept_clip: Clip, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    out = tmp_path / "OUT"
    process = start("export", *SLOW_EXPORT, "-o", out)
    wait_until(staged(tmp_path, "/graphs/*unet.onnx"), process)
    process.kill()
    assert ended(process).code == -signal.SIGKILL
    assert not out.exists()
    (half,) = staged(tmp_path)()

    for path in (out, half):
        outcome = issue("run", path, *kept_clip.inputs, "-o", tmp_path / "results")
        assert_refusal(outcome)
        assert "bundle" in outcome.err

    again = ("--random", "tiny", "--random-depth", "none", "--size", "64x64", "--frames", 3, "--check", "none")
    assert issue("export", *again, "-q", "-o", out) == Outcome(0, "", "")
    assert [path.name for path in tmp_path.iterdir()] == ["OUT"]
    assert issue("inspect", out).code == 0


def test_a_killed_run_leaves_no_results_and_the_next_one_clears_away(
    toy_bundle: Path, kept_clip: Clip, tmp_path: Path
) -> None:
    process = start("run", toy_bundle, *kept_clip.inputs, "--steps", 20_000, "--threads", 1, "-o", tmp_path / "OUT")
    wait_until(staged(tmp_path), process)
    process.kill()
    ended(process)
    assert not (tmp_path / "OUT").exists()
    assert len(leftovers(tmp_path)) == 1
    options = (*QUICK, "--stage", "segment", "--no-overlay", "-q", "-o", tmp_path / "OUT")
    assert issue("run", toy_bundle, *kept_clip.inputs, *options).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["OUT"]


def test_a_terminal_sees_bars_and_json_stays_alone_on_standard_output(
    toy_bundle: Path, kept_clip: Clip, tmp_path: Path
) -> None:
    ours, theirs = os.openpty()
    options = (*QUICK, "--no-overlay", "--json", "-o", tmp_path / "OUT")
    process = start("run", toy_bundle, *kept_clip.inputs, *options, stderr=theirs)
    os.close(theirs)
    seen = b""
    try:
        while piece := os.read(ours, 1 << 16):
            seen += piece
    except OSError:  # how Linux says that the other end was closed
        pass
    finally:
        os.close(ours)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert json.loads(out) == json.loads((tmp_path / "OUT" / "result.json").read_text())
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", seen.decode())
    for expected in ("segment", "complete", "0/2", "2/2", "load unet", "done"):
        assert expected in shown
    assert max(map(len, re.split(r"[\r\n]+", shown))) <= 80


@pytest.mark.slow
def test_an_export_shows_each_component_and_its_phase(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.setenv("FORCE_COLOR", "1")  # a terminal, as far as rich is concerned
    monkeypatch.setenv("COLUMNS", "80")
    options = ("--random-depth", "none", "--size", "64x64", "--frames", 1, "--check", "none", "--json")
    outcome = issue("export", "--random", "tiny", *options, "-o", tmp_path / "OUT")
    assert outcome.code == 0
    assert len(json.loads(outcome.out)["components"]) == 7
    for expected in ("image_encoder", "complete_unet_conditioner", "MB", "done"):
        assert expected in outcome.err
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert issue("inspect", tmp_path / "OUT", "--json").err != ""
    assert issue("export", "--random", "tiny", *options, "-q", "-o", tmp_path / "OUT", "--overwrite").err == ""


def test_a_reader_that_stops_early_is_no_error(toy_bundle: Path) -> None:
    process = start("inspect", toy_bundle, "--json", "--no-verify")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert "Traceback" not in (err := process.stderr.read())
    assert "Error" not in err
    process.wait(timeout=60)
