"""The suite: what is kept, what is taken up again, what is skipped and said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amodal.bench import suite
from amodal.bench.running.clips import Execution
from amodal.bench.running.machine import this_machine, versions, work_of
from amodal.bench.schema import Gpu, Latency, Measurement, Results, Skipped
from amodal.bench.suite import PARTS, SuiteOptions, run_suite
from amodal.cli import main
from amodal.runtime.backends import Availability
from amodal.runtime.errors import BackendError, InputError, OutputError
from amodal.runtime.families import Bundle


def options_of(**changes: Any) -> SuiteOptions:
    plain: dict[str, Any] = {"work": work_of(Bundle("default")), "execution": Execution()}
    return SuiteOptions(**{**plain, **changes})


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[], Measurement]]:
    """What the suite's parts do, to be filled; asked for their own names."""
    made: dict[str, Callable[[], Measurement]] = {}
    monkeypatch.setattr(
        suite,
        "_jobs",
        lambda bundle, options, note: {
            name: ([name, options.quick], lambda job=job: ([job()], [])) for name, job in made.items()
        },
    )
    return made


def latency(seconds: float) -> Latency:
    clip = {"seconds": seconds, "processor": seconds, "components": {}, "steps": {}}
    executed = {"backend": "x", "version": "1", "device": "cpu", "memory": "resident"}
    work = work_of(Bundle("default"))
    return Latency.model_validate({"work": work, "executed": executed, "cold": {}, "clips": [clip]})


def stops() -> Measurement:
    raise KeyboardInterrupt


def test_what_was_measured_is_kept_and_the_rest_goes_on(
    tmp_path: Path, jobs: dict[str, Callable[[], Measurement]]
) -> None:
    ran: list[str] = []

    def job(name: str, seconds: float) -> Callable[[], Measurement]:
        def run() -> Measurement:
            ran.append(name)
            return latency(seconds)

        return run

    jobs |= {"latency": job("latency", 1.0), "memory": stops, "quality": job("quality", 3.0)}
    kept: list[Results] = []
    with pytest.raises(KeyboardInterrupt):
        run_suite("default", tmp_path, options_of(), keep=kept.append)
    assert ran == ["latency"]
    assert not kept[-1].finished
    assert kept[-1].measurements == [latency(1.0)]

    jobs["memory"] = job("memory", 2.0)
    found = run_suite("default", tmp_path, options_of(), keep=kept.append)
    assert ran == ["latency", "memory", "quality"]  # latency was not measured again
    assert found == kept[-1]
    assert found.finished
    assert found.measurements == [latency(1.0), latency(2.0), latency(3.0)]

    run_suite("default", tmp_path, options_of())
    assert len(ran) == 3
    run_suite("default", tmp_path, options_of(), fresh=True)
    assert len(ran) == 6
    run_suite("default", tmp_path, options_of(quick=True))  # asked something else
    assert len(ran) == 9


def test_a_part_that_fails_is_skipped_with_its_reason_and_tried_again(
    tmp_path: Path, jobs: dict[str, Callable[[], Measurement]]
) -> None:
    def fails() -> Measurement:
        raise BackendError("the GPU fell off the bus.")

    def starves() -> Measurement:
        raise MemoryError

    jobs |= {"latency": fails, "memory": starves, "quality": lambda: latency(3.0)}
    found = run_suite("default", tmp_path, options_of())
    assert found.measurements == [latency(3.0)]
    reasons = {skipped.what: skipped.reason for skipped in found.skipped}
    assert reasons["latency"] == "the GPU fell off the bus."
    assert "not enough memory" in reasons["memory"]
    jobs["latency"] = lambda: latency(1.0)
    assert run_suite("default", tmp_path, options_of()).measurements == [latency(1.0), latency(3.0)]


def test_backends_that_cannot_run_here_are_named(
    tmp_path: Path, jobs: dict[str, Callable[[], Measurement]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        suite,
        "availability",
        lambda name: Availability(name == "onnxruntime", "", "" if name == "onnxruntime" else f"no {name} here."),
    )
    found = run_suite("default", tmp_path, options_of())
    assert {skipped.what: skipped.reason for skipped in found.skipped} == {
        "backend tensorrt_rtx": "no tensorrt_rtx here.",
        "backend tensorrt": "no tensorrt here.",
        "backend openvino": "no openvino here.",
    }


def test_what_was_skipped_is_said_once(
    tmp_path: Path, jobs: dict[str, Callable[[], Measurement]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(suite, "availability", lambda name: Availability(name != "tensorrt", "", f"no {name} here."))

    def nothing() -> Measurement:
        raise BackendError("there is no checkpoint.")

    jobs |= {"peers": nothing, "scaling": nothing}
    peers = [Skipped(what="peer tensorrt", reason="it runs on a GPU."), Skipped(what="peer eager", reason="no torch.")]
    found = suite._once([*run_suite("default", tmp_path, options_of()).skipped, *peers, *peers])
    assert {skipped.what: skipped.reason for skipped in found} == {
        "backend tensorrt": "no tensorrt here.",
        "peers, scaling": "there is no checkpoint.",
        "peer eager": "no torch.",
    }


def test_the_command_shows_text_and_no_markdown(
    tmp_path: Path,
    jobs: dict[str, Callable[[], Measurement]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    pytest.importorskip("matplotlib")
    pytest.importorskip("jinja2")
    monkeypatch.setattr(suite, "availability", lambda name: Availability(name != "tensorrt", "", f"no {name} here."))

    def nothing() -> Measurement:
        raise BackendError("the disk is slow.")

    jobs |= {"latency": lambda: latency(1.0), "memory": nothing}
    with pytest.raises(SystemExit) as ended:
        main(["bench", "all", "default", "-o", str(tmp_path / "out")])
    out, err = capsys.readouterr()
    assert not ended.value.code
    for words in ("At a glance\n", "Seconds per frame", "Latency\n", "Not measured\n", "backend tensorrt: no tensorrt"):
        assert words in out
    for raw in ("**", "## ", "| ", "\\_", "&amp;"):
        assert raw not in out
    assert (out + err).count("the disk is slow.") == 1
    assert "Not in this file: fidelity, quality, peers, roofline, scaling." in out
    assert "# amodal bench" in (tmp_path / "out" / "summary.md").read_text()


def test_a_damaged_part_is_measured_again(tmp_path: Path, jobs: dict[str, Callable[[], Measurement]]) -> None:
    jobs["latency"] = lambda: latency(1.0)
    run_suite("default", tmp_path, options_of())
    (tmp_path / "parts" / "latency.json").write_text("{")
    jobs["latency"] = lambda: latency(2.0)
    assert run_suite("default", tmp_path, options_of()).measurements == [latency(2.0)]


def test_a_folder_that_cannot_be_written_is_one_sentence(
    tmp_path: Path, jobs: dict[str, Callable[[], Measurement]]
) -> None:
    jobs["latency"] = lambda: latency(1.0)
    (tmp_path / "parts").write_text("a file")
    with pytest.raises(OutputError, match="cannot be written"):
        run_suite("default", tmp_path, options_of())


def test_every_part_has_a_job_and_unknown_parts_are_named() -> None:
    jobs = suite._jobs("default", options_of(), lambda what, done, total: None)
    assert {name.split(" ")[0] for name in jobs} == set(PARTS)
    assert [name for name in jobs if " " not in name] == list(PARTS)
    assert next(iter(suite._jobs("default", options_of(parts=("memory",)), lambda *_: None))) == "memory"
    with pytest.raises(InputError, match="part speed is unknown"):
        options_of(parts=("speed",))


def test_other_backends_run_on_the_cpu_as_the_one_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(suite, "availability", lambda name: Availability(name != "tensorrt", ""))
    asked = Execution(threads=1, memory="sequential")
    assert suite._executions(asked) == [
        asked,
        Execution(backend="tensorrt_rtx", memory="auto"),
        Execution(backend="openvino", threads=1, memory="sequential"),
    ]
    engines = Execution(backend="tensorrt_rtx", vram="6GB")
    assert suite._executions(engines) == [engines]


def keys(options: SuiteOptions, bundle: str | Path = "default") -> dict[str, str]:
    jobs = suite._jobs(str(bundle), options, lambda what, done, total: None)
    return {name: suite._key(Bundle(bundle), asked) for name, (asked, _) in jobs.items()}


def changed(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if name in after and before[name] != after[name]}


def test_what_another_version_of_a_library_measured_is_measured_again(
    tmp_path: Path, jobs: dict[str, Callable[[], Measurement]], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs["latency"] = lambda: latency(1.0)
    run_suite("default", tmp_path, options_of())
    monkeypatch.setattr(suite, "versions", lambda: {**versions(), "onnxruntime": "99.0"})
    jobs["latency"] = lambda: latency(2.0)
    assert run_suite("default", tmp_path, options_of()).measurements == [latency(2.0)]


def test_what_another_driver_measured_is_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Gpu(name="G", capability="sm86", memory=1, driver="1", cuda="13")

    def of(driver: str) -> dict[str, str]:
        machine = this_machine().model_copy(update={"gpu": gpu.model_copy(update={"driver": driver})})
        monkeypatch.setattr(suite, "this_machine", lambda: machine)
        return keys(options_of())

    before = of("1")
    assert of("1") == before
    assert changed(before, of("2")) == set(before)


def test_a_checkpoint_given_later_is_used(tmp_path: Path) -> None:
    before = keys(options_of())
    given = options_of(checkpoints={"segment": str(tmp_path / "later"), "complete": None})
    assert changed(before, keys(given)) == {"peers", "scaling"}
    before = keys(given)
    (tmp_path / "later").mkdir()
    assert changed(before, keys(given)) == {"peers", "scaling"}


def test_a_library_or_a_compiler_that_was_missing_is_used_once_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    before = keys(options_of())
    monkeypatch.setattr(suite, "availability", lambda name: Availability(True, ""))
    assert "peers" in changed(before, keys(options_of()))
    before = keys(options_of())
    monkeypatch.setattr(suite, "find_spec", lambda name: None)
    assert changed(before, keys(options_of())) == {"peers", "scaling"}
    before = keys(options_of())
    monkeypatch.setattr("shutil.which", lambda name: "/another/compiler")
    assert changed(before, keys(options_of())) == {"peers", "scaling"}


def test_engines_built_later_are_used(tmp_path: Path) -> None:
    engines = tmp_path / "tensorrt_rtx-1.7-sm86"
    engines.mkdir()
    on_cpu = options_of(execution=Execution(engine_dir=tmp_path))
    on_gpu = options_of(execution=Execution(backend="tensorrt_rtx", engine_dir=tmp_path))
    other = options_of(execution=Execution(backend="tensorrt", engine_dir=tmp_path))
    asked = (on_cpu, on_gpu, other)
    before = [keys(options) for options in asked]
    for content in ("{}", '{"built": "again"}'):
        (engines / "segment_unet.json").write_text(content)
        after = [keys(options) for options in asked]
        found = [changed(a, b) for a, b in zip(before, after, strict=True)]
        assert found == [{"peers", "roofline"}, set(before[1]), {"peers", "roofline"}]
        before = after
    (engines / "segment_unet.engine").write_bytes(b"what the record speaks of")
    assert [keys(options) for options in asked] == before


def test_a_fresh_suite_that_is_interrupted_leaves_no_older_part(
    tmp_path: Path, jobs: dict[str, Callable[[], Measurement]]
) -> None:
    jobs |= {"latency": lambda: latency(1.0), "memory": lambda: latency(2.0), "quality": lambda: latency(3.0)}
    run_suite("default", tmp_path, options_of())
    (tmp_path / "parts" / "of another suite.json").write_text("kept")
    jobs |= {"latency": lambda: latency(10.0), "memory": stops}
    with pytest.raises(KeyboardInterrupt):
        run_suite("default", tmp_path, options_of(), fresh=True)
    jobs |= {"memory": lambda: latency(20.0), "quality": lambda: latency(30.0)}
    found = run_suite("default", tmp_path, options_of()).measurements
    assert found == [latency(10.0), latency(20.0), latency(30.0)]
    assert (tmp_path / "parts" / "of another suite.json").read_text() == "kept"


def test_an_older_part_that_cannot_be_removed_is_one_sentence(
    tmp_path: Path, jobs: dict[str, Callable[[], Measurement]]
) -> None:
    jobs["latency"] = lambda: latency(1.0)
    (tmp_path / "parts" / "latency.json").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"latency\.json cannot be removed"):
        run_suite("default", tmp_path, options_of(), fresh=True)
