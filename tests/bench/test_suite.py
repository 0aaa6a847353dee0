"""The suite: what is kept, what is taken up again, what is skipped and said."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amodal.bench import suite
from amodal.bench.clips import Execution
from amodal.bench.machine import work_of
from amodal.bench.schema import Latency, Measurement, Results
from amodal.bench.suite import PARTS, SuiteOptions, run_suite
from amodal.runtime.backends import Availability
from amodal.runtime.bundle import Bundle
from amodal.runtime.errors import BackendError, InputError, OutputError


def options_of(**changes: Any) -> SuiteOptions:
    return SuiteOptions(work=work_of(Bundle("default")), execution=Execution(), **changes)


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
