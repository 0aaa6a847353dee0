from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from amodal.bench.comparison.changes import LATENTS_FLOOR, SHARE_FLOOR
from amodal.bench.comparison.compare import Comparison, compare_results
from amodal.bench.schema import Quality, Results, read_results
from amodal.cli import main
from amodal.cli.bench.compare import command
from amodal.runtime.errors import InputError

from ...places import ROOT
from .. import samples


def verdicts(found: Comparison) -> dict[str, str]:
    return {change.what: change.verdict for measured in found.compared for change in measured.changes}


def latencies(seed: int = 2, **how: Any) -> tuple[Results, Results]:
    return (
        samples.make_results(samples.make_latency(seed=1)),
        samples.make_results(samples.make_latency(seed=seed, **how)),
    )


def issue(tmp_path: Path, before: Results, after: Results, *options: str) -> Any:
    files = [tmp_path / "before.json", tmp_path / "after.json"]
    for file, results in zip(files, (before, after), strict=True):
        file.write_text(results.model_dump_json())
    return CliRunner().invoke(command, [*map(str, files), *options])


def test_a_network_that_became_slower_is_found_and_named() -> None:
    found = verdicts(compare_results(*latencies(slower=1.25)))
    assert {what for what, verdict in found.items() if verdict != "same"} == {"clip", "segment/unet"}
    assert found["segment/unet"] == "worse"


def test_a_network_that_became_faster_is_no_failure() -> None:
    found = compare_results(*latencies(slower=0.7))
    assert verdicts(found)["clip"] == "better"
    assert found.failures(0.0) == []


def test_two_runs_of_the_same_thing_are_the_same() -> None:
    found = compare_results(*latencies())
    assert set(verdicts(found).values()) == {"same"}
    assert "outside the networks" in verdicts(found)
    assert found.failures(0.0) == []


def test_a_failure_is_worse_beyond_noise_and_beyond_the_limit() -> None:
    found = compare_results(*latencies(slower=1.25))
    assert {change.what for _, change in found.failures(0.05)} == {"clip", "segment/unet"}
    assert {change.what for _, change in found.failures(0.15)} == {"segment/unet"}
    assert found.failures(0.5) == []


def test_a_component_of_less_than_a_percent_of_a_clip_never_fails() -> None:
    before, after = samples.make_latency(), samples.make_latency()
    clips = [
        clip.model_copy(update={"components": {**clip.components, "segment/unet_conditioner": 0.7}})
        for clip in after.clips
    ]
    found = compare_results(
        samples.make_results(before), samples.make_results(after.model_copy(update={"clips": clips}))
    )
    assert verdicts(found)["segment/unet_conditioner"] == "worse"
    assert found.failures(0.05) == []


def test_a_cold_start_measured_once_must_change_by_much() -> None:
    before = samples.make_latency()
    for factor, expected in ((1.15, "same"), (1.3, "worse"), (0.7, "better")):
        cold = {**before.cold, "load": factor * before.cold["load"]}
        after = before.model_copy(update={"cold": cold})
        found = compare_results(samples.make_results(before), samples.make_results(after))
        assert verdicts(found)["cold: load"] == expected


def test_a_larger_peak_is_found() -> None:
    before = samples.make_memory(samples.GPU, gpu=True)
    after = before.model_copy(update={"host_peak": int(1.1 * before.host_peak)})
    found = compare_results(samples.make_results(before), samples.make_results(after))
    assert verdicts(found)["peak on the host"] == "worse"
    assert verdicts(found)["peak on the GPU, process"] == "same"
    assert [change.word for _, change in found.failures(0.05)] == ["larger"]


def test_fidelity_is_judged_above_what_float32_leaves() -> None:
    def compared(start: float) -> str:
        a, b = samples.make_fidelity(start=LATENTS_FLOOR / 100), samples.make_fidelity(start=start)
        return verdicts(compare_results(samples.make_results(a), samples.make_results(b)))["segment: last latents"]

    assert compared(LATENTS_FLOOR / 40) == "same"
    assert compared(LATENTS_FLOOR / 4) == "worse"


def test_quality_that_fell_is_found_and_its_time_too() -> None:
    before = samples.make_quality()

    def fallen(by: float) -> Quality:
        first = before.presets[0]
        changed = first.model_copy(update={"miou": first.miou - by, "seconds": [1.3 * s for s in first.seconds]})
        return before.model_copy(update={"presets": [changed, *before.presets[1:]]})

    for by, expected in ((0.9 * SHARE_FLOOR, "same"), (0.05, "worse"), (-0.05, "better")):
        found = verdicts(compare_results(samples.make_results(before), samples.make_results(fallen(by))))
        assert (found["full: mIoU"], found["full: clip"], found["fast: clip"]) == (expected, "worse", "same")


def test_peers_are_shown_but_never_fail() -> None:
    before = samples.make_peers()
    slow = [p.model_copy(update={"seconds": [2 * s for s in p.seconds]}) for p in before.peers]
    after = before.model_copy(update={"peers": slow})
    found = compare_results(samples.make_results(before), samples.make_results(after))
    assert verdicts(found)["diffusers eager: clip"] == "worse"
    assert found.failures(0.0) == []


def test_other_settings_are_named_and_not_compared() -> None:
    before = samples.make_latency()
    other = before.model_copy(update={"work": before.work.model_copy(update={"steps": 10})})
    found = compare_results(
        samples.make_results(before, samples.make_peers()), samples.make_results(other, samples.make_peers())
    )
    assert [m.kind for m in found.compared] == ["peers"]
    assert (
        "latency (onnxruntime, cpu) of `before` differs from that of `after` in steps 25 against 10" in found.unmatched
    )
    with pytest.raises(InputError, match=r"no measurement in common: .*steps 25 against 10"):
        compare_results(samples.make_results(before), samples.make_results(other))


@pytest.mark.parametrize(
    ("measured", "here", "there", "said"),
    [
        (samples.make_fidelity, {"against": "twin"}, {"against": "diffusers"}, "reference twin against diffusers"),
        (samples.make_quality, {"workers": 1}, {"workers": 2}, "workers 1 against 2"),
        (samples.make_peers, {"threads": 1}, {"threads": 2}, "threads 1 against 2"),
        (samples.make_peers, {"device": "cpu"}, {"device": "cuda"}, "device cpu against cuda"),
    ],
)
def test_what_was_asked_for_otherwise_is_not_compared(
    measured: Callable[[], Any], here: dict[str, Any], there: dict[str, Any], said: str
) -> None:
    before, after = (samples.make_results(measured().model_copy(update=how)) for how in (here, there))
    with pytest.raises(InputError, match=said):
        compare_results(before, after)
    assert set(verdicts(compare_results(before, before)).values()) == {"same"}


def test_files_of_before_these_were_recorded_are_compared_and_the_reader_told() -> None:
    root = ROOT / "bench" / "results"
    says = {"fidelity": {"against": "twin"}, "quality": {"workers": 1}, "peers": {"device": "cpu", "threads": 2}}
    read = read_results(root / "amd-epyc-2-cores" / "default.json")
    silent = {kind: dict.fromkeys(fields) for kind, fields in says.items()}
    without = [m.model_copy(update=silent.get(m.kind, {})) for m in read.measurements]
    old = read.model_copy(update={"measurements": without})
    newer = [m.model_copy(update=says.get(m.kind, {})) for m in old.measurements]
    found = compare_results(old, old.model_copy(update={"measurements": newer}))
    assert found.unmatched == []
    told = [note for note in found.notes if "an older version wrote it" in note]
    assert told == [
        "Before, peers: an older version wrote it, without device and threads.",
        "Before, quality: an older version wrote it, without workers.",
    ]


def test_the_reference_of_an_older_file_is_known_by_its_text() -> None:
    beside = "the reference pipeline with the checkpoint's weights in float32, by diffusers 9, torch 9 on the CPU"
    old = samples.make_fidelity().model_copy(update={"reference": beside})
    new = samples.make_fidelity().model_copy(update={"against": "twin"})
    with pytest.raises(InputError, match="reference diffusers against twin"):
        compare_results(samples.make_results(old), samples.make_results(new))


def test_another_version_of_a_backend_is_compared_and_said() -> None:
    before = samples.make_latency()
    newer = before.model_copy(update={"executed": before.executed.model_copy(update={"version": "10.0.0"})})
    found = compare_results(samples.make_results(before), samples.make_results(newer, versions={"numpy": "10"}))
    assert found.compared[0].executed.endswith("-> 10.0.0")
    assert any("numpy 9.9.9 -> 10" in note for note in found.notes)


def test_another_machine_is_refused_unless_asked_for() -> None:
    before, after = latencies()
    after = after.model_copy(update={"machine": after.machine.model_copy(update={"cores": 4, "gpu": None})})
    with pytest.raises(InputError, match=r"two machines .*11 cores.*4 cores.*`across_machines=True`"):
        compare_results(before, after)
    found = compare_results(before, after, across_machines=True)
    assert (found.same_machine, found.notes[0][:13]) == (False, "Two machines:")


def test_another_bundle_and_an_interrupted_suite_are_said() -> None:
    before, after = latencies()
    bundle = after.bundle.model_copy(update={"manifest": "cd" * 32})
    found = compare_results(before, after.model_copy(update={"bundle": bundle, "finished": False}))
    assert not found.same_bundle
    assert any(note.startswith("Two bundles: ") for note in found.notes)
    assert any("`after` was interrupted" in note for note in found.notes)


def test_everything_that_can_be_measured_can_be_compared_with_itself() -> None:
    sample_results = samples.make_results()
    found = compare_results(sample_results, sample_results)
    assert [m.kind for m in found.compared] == [m.kind for m in sample_results.measurements]
    assert set(verdicts(found).values()) == {"same"}
    assert found.unmatched == []
    assert all(m.left_out == [] and m.changes for m in found.compared)


def test_the_command_gates_by_its_exit_code(tmp_path: Path) -> None:
    before, after = latencies(slower=1.25)
    assert issue(tmp_path, before, after).exit_code == 0
    passed = issue(tmp_path, before, after, "--fail-over", "50%")
    assert (passed.exit_code, "Nothing that counts" in passed.output) == (0, True)
    failed = issue(tmp_path, before, after, "--fail-over", "5%")
    assert failed.exit_code == 1
    assert "latency, segment/unet: slower, +2" in failed.output
    assert issue(tmp_path, before, after, "--fail-over", "cheap").exit_code == 2


def test_the_command_prints_json_that_says_what_failed(tmp_path: Path) -> None:
    outcome = issue(tmp_path, *latencies(slower=1.25), "--fail-over", "0.05", "--json")
    found = json.loads(outcome.output)
    assert outcome.exit_code == 1
    assert {failure["what"] for failure in found["failures"]} == {"clip", "segment/unet"}
    assert found["compared"][0]["changes"][0]["low"] > 1


def test_results_of_another_schema_are_refused_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before, after = latencies()
    issue(tmp_path, before, after)
    (tmp_path / "after.json").write_text(after.model_dump_json().replace('"schema_version":1', '"schema_version":77'))
    with pytest.raises(SystemExit) as ended:
        main(["bench", "compare", str(tmp_path / "before.json"), str(tmp_path / "after.json")])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ")
    assert "schema 77" in error
