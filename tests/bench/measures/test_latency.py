"""Times of clips: what is noted, what adds up, and what makes a machine doubtful."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from amodal.bench.measures.latency import measure_latency
from amodal.bench.measures.targets import missed_targets
from amodal.bench.running import quiet
from amodal.bench.running.clips import Execution, Runner, running, times_of
from amodal.bench.running.machine import results_of, work_of
from amodal.bench.running.quiet import steadiness
from amodal.bench.running.timed import TimedCall, cost_per_call
from amodal.bench.schema import ClipTimes, Latency, Results, read_results
from amodal.cli import amodal
from amodal.cli.lazy import CommandError
from amodal.runtime.errors import InputError, OutputError
from amodal.runtime.families import Bundle

ONE = Execution(threads=1)


@pytest.fixture(scope="module")
def runner(toy_bundle: Path) -> Any:
    work = work_of(Bundle(toy_bundle), steps=3)
    with running(toy_bundle, work, ONE) as found:
        yield found


def test_every_call_of_a_clip_is_noted_in_order(runner: Runner) -> None:
    drawn = runner.clip()
    again = runner.clip()
    kinds = ["image_encoder", "vae_encoder", "vae_encoder", "unet_conditioner", "unet", "unet", "unet", "vae_decoder"]
    assert [call.what for call in again.calls["segment"]] == kinds
    assert [call.what for call in again.calls["complete"]] == kinds
    loads = [call.what for calls in drawn.calls.values() for call in calls if call.what.startswith("load ")]
    assert not loads or drawn.loading > 0
    for calls in again.calls.values():
        assert all(before.end <= after.begin for before, after in pairwise(calls))
        assert all(call.end >= call.begin for call in calls)


@pytest.mark.slow
def test_what_a_bundle_carries_over_is_not_timed() -> None:
    work = work_of(Bundle("default"), "complete", steps=1)
    with running("default", work, ONE) as runner:
        assert runner.model.config.propagate
        runner.clip()
        timings = runner.model.session.components.timings
    assert timings["unet"] > 0
    assert "propagation" not in timings


def test_parts_and_what_is_outside_the_networks_add_up(runner: Runner) -> None:
    runner.clip()  # loads what is not there yet
    drawn = runner.clip()
    clip = drawn.times
    every = [call for calls in drawn.calls.values() for call in calls]
    by_hand: dict[str, float] = {}
    for stage, calls in drawn.calls.items():
        for call in calls:
            by_hand[f"{stage}/{call.what}"] = by_hand.get(f"{stage}/{call.what}", 0.0) + (call.end - call.begin)
    assert clip.components == pytest.approx(by_hand)
    assert clip.outside == pytest.approx(clip.seconds - sum(call.seconds for call in every))
    assert 0 < clip.outside < clip.seconds
    assert {stage: len(steps) for stage, steps in clip.steps.items()} == {"segment": 3, "complete": 3}


def test_a_step_lasts_from_a_call_of_the_unet_to_the_next() -> None:
    calls = [
        TimedCall("vae_encoder", 0, 1),
        TimedCall("unet", 2, 3, True),
        TimedCall("unet", 5, 6, True),
        TimedCall("unet", 6.5, 9, True),
        TimedCall("x", 9, 10),
    ]
    made = times_of({"segment": calls}, 12.0, 1.0, None)
    assert made.steps == {"segment": [3.0, 1.5, 2.5]}
    assert made.components == {"segment/vae_encoder": 1.0, "segment/unet": 4.5, "segment/x": 1.0}


def test_noting_a_call_costs_something() -> None:
    assert cost_per_call(2000) > 0


@pytest.mark.slow
def test_a_latency_file_is_read_back_as_it_was(toy_bundle: Path, tmp_path: Path) -> None:
    out = tmp_path / "found" / "latency.json"
    outcome = CliRunner().invoke(
        amodal,
        f"bench latency {toy_bundle} --stage segment --steps 2 --repeats 4 --warm-up 1 --threads 1 --target-spf 100 "
        f"-o {out} --json",
    )
    assert outcome.exit_code == 0, outcome.output
    read = read_results(out)
    assert read == Results.model_validate_json(outcome.stdout)
    (latency,) = read.measurements
    assert isinstance(latency, Latency)
    assert len(latency.clips) == 4
    assert latency.work.stages == ["segment"]
    assert set(latency.cold) == {"import", "open", "load", "first clip"}
    assert all(seconds > 0 for seconds in latency.cold.values())
    assert latency.overhead is not None
    assert latency.overhead < 0.01
    assert latency.executed.backend == "onnxruntime"
    assert latency.executed.options["threads"] == "1"
    assert read.bundle.name == toy_bundle.name


def test_the_tables_say_what_was_measured(toy_bundle: Path) -> None:
    outcome = CliRunner().invoke(
        amodal,
        ["bench", "latency", str(toy_bundle), "--steps", "1", "--repeats", "2", "--no-cold", "--target-spf", "1e-9"],
    )
    assert outcome.exit_code == 1
    for words in ("per frame", "segment/unet", "outside the networks", "denoising step", "was missed"):
        assert words in outcome.output, words


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["latency", "--target-spf", "0"], "0"),
        (["latency", "-o", "{file}/below/out.json"], "is a file; choose another place"),
        (["memory", "--picture", "{file}.jpg"], "ends in .png or .svg"),
    ],
)
def test_what_cannot_end_well_is_refused_before_anything_is_measured(
    options: list[str], said: str, toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("measured all the same")

    for name in ("latency.measure_latency", "memory.measure_memory"):
        monkeypatch.setattr(f"amodal.bench.measures.{name}", never)
    file = tmp_path / "file"
    file.touch()
    name, *rest = (option.format(file=file) for option in options)
    outcome = CliRunner().invoke(amodal, ["bench", name, str(toy_bundle), *rest])
    assert not isinstance(outcome.exception, AssertionError)
    assert outcome.exit_code != 0
    assert said in outcome.output + str(outcome.exception)


@pytest.mark.slow
def test_what_was_measured_is_shown_even_if_the_disk_is_full(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any) -> None:
        raise OutputError("no room")

    monkeypatch.setattr("amodal.cli.bench.output.write_whole", full)
    options = ["--steps", "1", "--repeats", "2", "--no-cold", "-o", str(tmp_path / "out.json")]
    outcome = CliRunner().invoke(amodal, ["bench", "latency", str(toy_bundle), *options])
    assert isinstance(outcome.exception, CommandError)
    assert isinstance(outcome.exception.__cause__, OutputError)
    assert "per frame" in outcome.output
    assert "Wrote" not in outcome.output


def test_spread_and_drift_are_told() -> None:
    assert steadiness([1.0, 1.001, 0.999, 1.0, 1.002, 1.0]) == []
    assert "spread" in steadiness([1.0, 1.2, 0.9, 1.3, 0.8, 1.1])[0]
    assert any("drifted by +10%" in line for line in steadiness([1.0, 1.0, 1.0, 1.1, 1.1, 1.1]))
    assert steadiness([1.0, 9.0]) == []


def test_a_busy_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quiet.psutil, "cpu_percent", lambda look: 55.0)
    monitor = quiet.MachineMonitor(0)
    assert "55% busy" in monitor.warnings([1.0])[0]


def test_targets_are_held_against_the_best_backend(toy_bundle: Path) -> None:
    bundle = Bundle(toy_bundle)
    work = work_of(bundle)

    def latency(seconds: float) -> Latency:
        clips = [ClipTimes(seconds=s, processor=s, components={}, steps={}) for s in (seconds, seconds, 100.0)]
        executed = {"backend": "x", "version": "1", "device": "cpu", "memory": "resident"}
        return Latency.model_validate({"work": work, "executed": executed, "cold": {}, "clips": clips})

    slow, fast = latency(2.0 * work.frames), latency(0.5 * work.frames)
    assert missed_targets([slow, fast], spf=0.95) == []
    assert missed_targets([slow], spf=0.95) == ["`target_spf=0.95` was missed: 2.000 seconds per frame at best."]
    assert "nothing was measured" in missed_targets([slow], vram=8_000_000_000)[0]
    with pytest.raises(InputError, match="more than 0"):
        missed_targets([slow], spf=0.0)
    assert statistics.median(c.seconds for c in slow.clips) == 2.0 * work.frames


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--backend", "tensorrt_rt"], "unknown"),
        (["--stage", "both", "--steps", "0"], "--steps"),
        (["--vram", "6GB"], "uses no GPU memory"),
    ],
)
def test_what_cannot_be_measured_is_one_sentence(toy_bundle: Path, arguments: list[str], sentence: str) -> None:
    outcome = CliRunner().invoke(amodal, ["bench", "latency", str(toy_bundle), "--no-cold", *arguments])
    assert outcome.exit_code != 0
    assert sentence in str(outcome.exception) + outcome.output


def test_results_of_another_schema_are_refused(toy_bundle: Path, tmp_path: Path) -> None:
    file = tmp_path / "results.json"
    plain = json.loads(results_of(Bundle(toy_bundle), []).model_dump_json())
    file.write_text(json.dumps(plain | {"schema_version": 99}))
    with pytest.raises(InputError, match="has schema 99, but this version reads schema 1"):
        read_results(file)
    file.write_text(json.dumps(plain | {"machine": {}}))
    with pytest.raises(InputError, match=r"machine\.system"):
        read_results(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_results(tmp_path / "none.json")


def test_fewer_than_one_clip_is_refused(toy_bundle: Path) -> None:
    with pytest.raises(InputError, match="expected 1 or more"):
        measure_latency(toy_bundle, work_of(Bundle(toy_bundle)), ONE, repeats=0)


@pytest.mark.parametrize("command", [["latency", "default"], ["all", "default", "-o", "nowhere"]])
def test_without_what_measures_there_is_one_sentence(command: list[str], tmp_path: Path) -> None:
    program = "import sys; sys.modules['psutil'] = None; from amodal.cli import main; main(['bench', *sys.argv[1:]])"
    ran = subprocess.run([sys.executable, "-c", program, *command], capture_output=True, text=True, cwd=tmp_path)
    assert ran.returncode == 2
    assert (
        ran.stderr.strip()
        == 'Error: this command needs psutil, which is not installed; run `pip install "amodal[bench]"`.'
    )
    assert not list(tmp_path.iterdir())
