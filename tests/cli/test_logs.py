"""What the package logs, and who gets to see it."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

import amodal

from .conftest import QUICK, Clip, Outcome, issue


def test_nothing_is_printed_for_a_program_that_does_not_ask(
    toy_bundle: Path, kept_clip: Clip, capfd: pytest.CaptureFixture[str]
) -> None:
    with amodal.load(toy_bundle, threads=1) as model:
        model.segment(kept_clip.modal, depth=kept_clip.rgb[..., 0], steps=1)
    assert capfd.readouterr() == ("", "")


def test_a_program_that_asks_is_told_what_is_loaded_and_how_long_it_took(
    toy_bundle: Path, kept_clip: Clip, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "amodal")
    with amodal.load(toy_bundle, threads=1) as model:
        model.segment(kept_clip.modal, depth=kept_clip.rgb[..., 0], steps=1)
    told = [record.getMessage() for record in caplog.records]
    assert told[0].startswith(f"bundle {toy_bundle} on onnxruntime (")
    assert told[0].endswith(", resident memory")
    assert "threads 1" in told[0]
    loaded = [line.split()[1] for line in told if line.startswith("loaded ")]
    assert sorted(loaded) == ["image_encoder", "segment_unet", "segment_unet_conditioner", "vae_decoder", "vae_encoder"]
    assert told[-1].startswith("segment took ")
    assert {record.name.partition(".")[0] for record in caplog.records} == {"amodal"}


@pytest.mark.parametrize("before", [True, False])
def test_verbose_prints_the_records_as_lines_and_only_for_that_command(
    before: bool, toy_bundle: Path, kept_clip: Clip, tmp_path: Path
) -> None:
    options = (*kept_clip.inputs, *QUICK, "--stage", "segment", "--no-overlay", "-q")
    flags = (["-v"], []) if before else ([], ["-vv"])
    outcome = issue(*flags[0], "run", toy_bundle, *options, *flags[1], "-o", tmp_path / "first")
    assert outcome.code == 0
    lines = outcome.err.splitlines()
    assert all(" INFO amodal." in line or " DEBUG amodal." in line for line in lines)
    assert sum("loaded " in line for line in lines) == 5
    assert any("DEBUG" in line for line in lines) is not before
    assert issue("run", toy_bundle, *options, "-o", tmp_path / "second") == Outcome(0, "", "")
