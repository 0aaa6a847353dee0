"""Progress where standard error is no terminal: a line every few seconds."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from amodal.cli import lines, progress
from amodal.cli.lines import Lines

from .conftest import Clip, issue


class Clock:
    """Stands still unless it is moved."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def made(every: float = 5.0) -> tuple[Lines, Clock, list[str]]:
    clock, printed = Clock(), list[str]()
    return Lines(every, clock, printed.append), clock, printed


def test_a_line_says_where_a_stage_is_and_how_long_the_rest_takes() -> None:
    shown, clock, printed = made()
    clock.now += 4  # before the stage
    shown.begin("segment")
    for step in range(1, 13):
        clock.now += 4
        shown.update(f"step {step} of 25", step, 25)
    assert printed[0] == "segment: step 1 of 25, 4 s"
    assert printed[-1] == "segment: step 11 of 25, 44 s, about 56 s left"
    assert len(printed) == 6


def test_the_rest_counts_from_the_first_piece_and_not_from_the_loading_before() -> None:
    shown, clock, printed = made()
    shown.begin("segment")
    shown.update("load unet")
    clock.now += 100
    for step in (1, 2, 3):
        clock.now += 10
        shown.update(f"step {step} of 10", step, 10)
    assert printed[-1] == "segment: step 3 of 10, 130 s, about 70 s left"


def test_what_is_quick_prints_nothing_and_what_reports_nothing_still_shows() -> None:
    shown, clock, printed = made()
    shown.begin("reading checkpoints")
    for _ in range(4):
        clock.now += 1
        shown.tick()
    assert printed == []
    clock.now += 1
    shown.tick()
    clock.now += 2
    shown.tick()
    assert printed == ["reading checkpoints, 5 s"]
    clock.now += 4
    shown.tick()
    assert printed == ["reading checkpoints, 5 s", "reading checkpoints, 11 s"]


def test_a_new_count_starts_a_new_pace() -> None:
    shown, clock, printed = made(every=0)
    shown.begin("bench")
    for done in (1, 2):
        clock.now += 1
        shown.update("latency", done, 4)
    assert printed[-1] == "bench: latency, 2 s, about 2 s left"
    shown.update("memory", 1, 4)
    assert printed[-1] == "bench: memory, 2 s"


def test_work_that_reports_nothing_is_shown_from_a_thread(capsys: pytest.CaptureFixture[str]) -> None:
    with Lines(0.01).running():
        time.sleep(0.2)
    assert len(re.findall("working, 0 s\n", capsys.readouterr().err)) > 3


@pytest.mark.parametrize("quiet", [False, True])
def test_activities_and_components_are_told_unless_it_is_quiet(
    quiet: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lines, "EVERY", 0)
    with progress.activity(quiet, "scenes") as report:
        report("", done=1, total=4)
    with progress.component_lines(quiet) as report:
        report("unet", "read")
        report("unet", "write", 50, 200)
    seen = capsys.readouterr().err
    for line in ("scenes: 25%, 0 s", "unet: read, 0 s", "unet: write 25%, 0 s"):
        assert (line in seen) is not quiet


def test_a_run_tells_its_steps(
    toy_bundle: Path, kept_clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lines, "EVERY", 0)
    options = ("--steps", 3, "--samples", 2, "--threads", 1, "--no-overlay", "-o", tmp_path / "out")
    outcome = issue("run", toy_bundle, *kept_clip.inputs, *options)
    assert outcome.code == 0
    for expected in (
        r"segment: step 6 of 6, \d s",
        r"complete: step 2 of 3, \d s, about \d s left",
        "complete: writing",
    ):
        assert re.search(expected, outcome.err)
