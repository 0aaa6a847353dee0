"""The check of a GPU machine, with steps that succeed, fail, crash and hang in the place of the real ones."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from amodal.bench.gpu_check import steps as steps_module
from amodal.bench.gpu_check.__main__ import Check, check_of, main, run_check
from amodal.bench.gpu_check.plan import BACKEND, CheckOptions, plan
from amodal.bench.gpu_check.steps import Step, StepState, run_steps
from amodal.bench.gpu_check.summary import summary_of
from amodal.bench.gpu_check.tests import outcome_of
from amodal.bench.running.machine import this_machine
from amodal.bench.schema import ClipTimes, Executed, Latency, Memory, Peer, Peers, Results, Subject, Timeline, Work

from ...places import STAND_IN

SAYS = "print('noise'); print('{\"answer\": 42}')"


def step(name: str, code: str, limit: float = 30, **more: Any) -> Step:
    return Step(name, (sys.executable, "-c", code), limit, **more)


def take(folder: Path, *steps: Step, seconds: float = 60, **more: Any) -> dict[str, StepState]:
    return run_steps(lambda states: list(steps), folder, seconds, "machine", **more)


def counting(file: Path, code: str = "") -> str:
    """A step that notes each of its runs."""
    return f"open({str(file)!r}, 'a').write('x'); {code}"


def test_one_that_crashes_or_hangs_leaves_the_others(tmp_path: Path) -> None:
    begun: list[str] = []
    states = take(
        tmp_path,
        step("crash", "import os; os.abort()"),
        step("hang", "import time; time.sleep(60)", 0.7),
        step("refused", "import sys; sys.exit('Error: no engine.')"),
        step("fine", SAYS),
        progress=lambda what, *_: begun.append(what),
    )
    assert [state.state for state in states.values()] == ["failed", "timed out", "failed", "done"]
    assert states["crash"].trouble == "crashed with SIGABRT"
    assert states["hang"].trouble.startswith("stopped after 1 s, its time limit")
    assert states["refused"].trouble == "failed with exit code 1: no engine."
    assert states["fine"].output == {"answer": 42}
    assert begun == ["crash", "hang", "refused", "fine"]


def test_what_is_done_is_not_done_again_and_what_failed_is(tmp_path: Path) -> None:
    good, bad = tmp_path / "good", tmp_path / "bad"
    steps = [step("good", counting(good, SAYS)), step("bad", counting(bad, "raise SystemExit(3)"))]
    first = take(tmp_path, *steps)
    again = take(tmp_path, *steps)
    assert again["good"] == first["good"]
    assert good.read_text() == "x"
    assert bad.read_text() == "xx"
    take(tmp_path, *steps, fresh=True)
    assert good.read_text() == "xx"


def test_what_another_machine_or_command_gave_is_not_taken(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    only = step("only", counting(runs))
    take(tmp_path, only)
    run_steps(lambda states: [only], tmp_path, 60, "another machine")
    take(tmp_path, step("only", counting(runs, "pass")))
    (tmp_path / "steps" / "only.json").write_text("half a fi")
    take(tmp_path, step("only", counting(runs, "pass")))
    assert runs.read_text() == "xxxx"


def test_a_step_that_is_cut_off_is_taken_up_again(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    cut = "import os, signal, time; os.kill(os.getppid(), signal.SIGINT); time.sleep(30)"
    steps = [step("first", counting(runs)), step("second", cut)]
    with pytest.raises(KeyboardInterrupt):
        take(tmp_path, *steps)
    assert not (tmp_path / "steps" / "second.json").exists()
    states = take(tmp_path, steps[0], step("second", SAYS))
    assert runs.read_text() == "x"
    assert states["second"].state == "done"


def test_what_the_time_does_not_reach_is_said_and_done_next_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = [step("slow", "pass"), step("late", SAYS)]
    hours = iter((0.0, 0.0, 3600.0))
    with monkeypatch.context() as patch:
        patch.setattr(steps_module, "time", SimpleNamespace(monotonic=lambda: next(hours)))
        states = take(tmp_path, *steps)
    assert states["late"].state == "not reached"
    assert "run the check again" in states["late"].trouble
    assert take(tmp_path, *steps, seconds=60)["late"].state == "done"


def test_a_probe_that_found_nothing_is_asked_again(tmp_path: Path) -> None:
    (probe,) = plan(CheckOptions(tmp_path), {})
    output: Any = probed("onnxruntime").output
    assert probe.reusable(output)
    assert not probe.reusable({**output, "backends": [{**row, "executes": False} for row in output["backends"]]})
    assert not probe.reusable({"backends": [], "problem": "no GPU"})
    runs = tmp_path / "runs"
    for reusable, expected in ((True, "x"), (False, "xx"), (True, "xx")):
        take(tmp_path, step("probe", counting(runs, SAYS), reusable=lambda output, reusable=reusable: reusable))
        assert runs.read_text() == expected


def test_what_other_libraries_gave_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from amodal.bench.gpu_check import __main__ as gpu_check

    runs = tmp_path / "runs"
    for version, expected in (("14.0", "x"), ("14.0", "x"), ("14.1", "xx")):
        monkeypatch.setattr(gpu_check, "versions", lambda version=version: {"cupy-cuda13x": version})
        monkeypatch.setattr(gpu_check, "plan", lambda options, states: [step("one", counting(runs, SAYS))])
        run_check(CheckOptions(tmp_path), 1)
        assert runs.read_text() == expected


def test_a_step_without_what_it_needs_is_skipped(tmp_path: Path) -> None:
    states = take(
        tmp_path,
        step("build", "raise SystemExit(2)"),
        step("run", SAYS, needs=("build",)),
        step("tests", SAYS, missing="there are no tests here"),
    )
    assert (states["run"].state, states["run"].trouble) == ("skipped", "needs what build did not produce")
    assert (states["tests"].state, states["tests"].trouble) == ("skipped", "there are no tests here")


def probed(*names: str, problem: str | None = None) -> StepState:
    rows = [{"name": name, "device": "cuda" if name == "onnxruntime" else None, "executes": True} for name in names]
    rows = [{**row, "detail": f"{row['name']} 1.0", "reason": ""} for row in rows]
    refused = {"name": "tensorrt", "device": None, "executes": False, "reason": "crashed with SIGSEGV"}
    cupy = {"name": "cupy", "executes": True, "detail": "CuPy 14", "reason": ""}
    output: Any = {"problem": problem, "cupy": cupy, "backends": [*rows, refused]}
    return StepState(name="probe", key="", command=[], state="done", output=output)


def test_without_a_gpu_the_probe_is_all(tmp_path: Path) -> None:
    options = CheckOptions(tmp_path)
    assert [s.name for s in plan(options, {})] == ["probe"]
    nothing = StepState(name="probe", key="", command=[], state="failed")
    assert [s.name for s in plan(options, {"probe": nothing})] == ["probe"]


def test_what_executes_is_tested_and_measured_and_nothing_else(tmp_path: Path) -> None:
    options = CheckOptions(tmp_path)
    steps = {s.name: s for s in plan(options, {"probe": probed("onnxruntime", "tensorrt_rtx")})}
    assert list(steps)[:3] == ["probe", "tests tensorrt_rtx", "tests onnxruntime"]
    assert not [name for name in steps if name.endswith(" tensorrt")]
    assert steps["tests onnxruntime"].environment == {BACKEND: "onnxruntime"}
    assert steps["latency onnxruntime"].needs == ("export cuda",)
    assert steps["latency tensorrt_rtx"].needs == ("export engine", "build tensorrt_rtx")
    assert "--device" in steps["peers onnxruntime"].command
    assert sum(name.startswith("export") for name in steps) == 2
    known = set(steps)
    assert all(set(s.needs) <= known for s in steps.values())
    quick = [s.name for s in plan(CheckOptions(tmp_path, quick=True), {"probe": probed("onnxruntime")})]
    assert not [name for name in quick if name.startswith("export")]


def test_commands_of_the_steps_are_there(tmp_path: Path) -> None:
    """Each is asked for --help with its options before it: an option that is unknown would be refused."""
    from click.testing import CliRunner

    from amodal.cli import amodal

    states = {"probe": probed("onnxruntime", "tensorrt_rtx")}
    for one in plan(CheckOptions(tmp_path), states):
        if one.command[1:3] != ("-m", "amodal"):
            continue
        if one.name.startswith("peers") and find_spec("amodal.cli.bench.peers") is None:
            continue
        outcome = CliRunner().invoke(amodal, [*one.command[3:], "--help"])
        assert outcome.exit_code == 0, (one.name, outcome.output)


def test_a_variant_that_is_exported_is_there() -> None:
    pytest.importorskip("torch")
    pytest.importorskip("onnx_ir")
    from amodal.export.graph.variants import VARIANTS

    assert {"cuda", "engine"} <= set(VARIANTS)


WORK = Work(stages=["segment"], frames=25, size=(256, 512))
EXECUTED = Executed(backend="onnxruntime", version="1.31", device="cuda:0", memory="resident")


def results(measurement: Any) -> Results:
    subject = Subject(name="b", manifest="0" * 64, stages=["segment"], frames=25, size=(256, 512), precision="fp16")
    return Results(created="2026", versions={}, machine=this_machine(), bundle=subject, measurements=[measurement])


def measured() -> dict[str, StepState]:
    clip = ClipTimes(
        seconds=10.0,
        processor=1.0,
        components={"segment/unet": 0.01},  # queueing it
        steps={"segment": [0.36] * 25},
        device={"segment/unet": 9.0},
        gaps={"segment": [60e-6] * 24},
    )
    eager = Peer(name="diffusers", description="FP16", seconds=[20.0], first=30.0, host_peak=1, device_peak=8 * 10**9)
    ours = Peer(name="onnxruntime cuda", description="", seconds=[18.0], first=20.0, host_peak=1, device_peak=4 * 10**9)
    timeline = Timeline(seconds=[0.0], bytes=[5 * 10**9])
    taken: list[tuple[str, Any]] = [
        ("latency onnxruntime", Latency(work=WORK, executed=EXECUTED, cold={}, clips=[clip])),
        ("peers onnxruntime", Peers(work=WORK, peers=[eager, ours])),
        (
            "memory onnxruntime",
            Memory(
                work=WORK,
                executed=EXECUTED,
                host=timeline,
                host_peak=1,
                host_before=1,
                device={"process": timeline},
                allocators={"cupy pool": 10**9, "scratch": 3 * 10**9},
                planned={"denoise": 4 * 10**9},
                phases=[],
            ),
        ),
    ]
    states = {"probe": probed("onnxruntime")}
    for name, measurement in taken:
        output = results(measurement).model_dump(mode="json")
        states[name] = StepState(name=name, key="", command=[], state="done", seconds=9, output=output)
    counts: Any = {"passed": 9, "failed": 1, "skipped": 2, "failures": {"test_x": "no"}, "reasons": []}
    rows: Any = [
        {
            "case": "as it is",
            "error": "",
            "seconds": [0.4, 0.5, 0.45],
            "first": 3.0,
            "held_bytes": 5 * 10**9,
            "bit_equal": True,
            "difference": 0.0,
        },
        {"case": "TF32", "error": "crashed with SIGSEGV", "difference": None},
    ]
    options = StepState(name="options onnxruntime", key="", command=[], state="done", output={"options": rows})
    states["options onnxruntime"] = options
    states["tests onnxruntime"] = StepState(name="tests onnxruntime", key="", command=[], state="failed", output=counts)
    return states


def test_the_summary_has_every_figure_beside_its_aim() -> None:
    check = check_of(this_machine(), measured())
    assert set(check.results) == {"latency onnxruntime", "peers onnxruntime", "memory onnxruntime"}
    text = summary_of(check)
    assert "| onnxruntime | 10.000 | 0.4000 | 360.0 | 10.0% (aim 0.03) | 60 (aim 50) |" in text
    assert "| onnxruntime cuda | 18.000 | 0.900 (aim 0.85) | 4.00 GB | 0.500 | - |" in text
    assert "| onnxruntime, resident | 4.000 GB | 4.000 GB | 5.000 GB | 1.000 GB |" in text
    assert "- onnxruntime: `test_x`: no" in text
    assert "| as it is | 450.00 | 3.00 | yes | 0.0e+00 | 5.00 GB |" in text
    assert "| TF32 | - | - | - | crashed with SIGSEGV | - |" in text
    assert "| tensorrt | no | crashed with SIGSEGV |" in text
    again = Check.model_validate_json(check.model_dump_json())
    assert again == check


def test_file_and_summary_are_written_after_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from amodal.bench.gpu_check import __main__ as gpu_check

    seen: list[int] = []

    def planned(options: CheckOptions, states: Mapping[str, StepState]) -> list[Step]:
        seen.append(len(Check.model_validate_json((tmp_path / "gpu_check.json").read_text()).steps))
        return [step("one", SAYS), step("two", "raise SystemExit(1)")]

    monkeypatch.setattr(gpu_check, "plan", planned)
    check = run_check(CheckOptions(tmp_path), 1)
    assert seen == [0, 1, 2]
    assert [s.state for s in check.steps] == ["done", "failed"]
    assert "| two | failed |" in (tmp_path / "gpu_check.md").read_text()
    assert json.loads((tmp_path / "steps" / "one.json").read_text())["output"] == {"answer": 42}


def test_on_a_machine_without_a_gpu_the_command_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from click.testing import CliRunner

    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = CliRunner().invoke(main, ["-o", str(tmp_path / "out"), "--quick"])
    assert outcome.exit_code == 0, outcome.output
    if "no GPU" not in outcome.output:
        pytest.skip("there is a GPU here")
    assert "no GPU: nvidia-smi lists none" in (tmp_path / "out" / "gpu_check.md").read_text()


@pytest.mark.slow
def test_the_steps_give_results_of_the_suites_schema(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The very commands, on the CPU and with one step of the sampler."""
    pytest.importorskip("psutil")
    pytest.importorskip("onnx")
    from amodal.bench.gpu_check import __main__ as gpu_check

    others = {"cuda": "cpu", "5": "1"}  # device, steps and clips

    def planned(options: CheckOptions, states: Mapping[str, StepState]) -> list[Step]:
        asked = plan(CheckOptions(tmp_path, quick=True), {"probe": probed("onnxruntime")})
        measure = [s for s in asked if s.name.split()[0] in ("latency", "memory", "roofline")]
        return [replace(s, command=tuple(others.get(word, word) for word in s.command)) for s in measure]

    monkeypatch.setattr(gpu_check, "plan", planned)
    check = run_check(CheckOptions(tmp_path), 5)
    assert [(s.name, s.state, s.trouble) for s in check.steps] == [
        (f"{what} onnxruntime", "done", "") for what in ("latency", "memory", "roofline")
    ]
    assert {name: [m.kind for m in r.measurements] for name, r in check.results.items()} == {
        f"{what} onnxruntime": [what] for what in ("latency", "memory", "roofline")
    }
    text = (tmp_path / "gpu_check.md").read_text()
    assert "## Time (medians)" in text
    assert "## Share of the measured matrix-multiply ceiling" in text


def test_outcomes_are_read_from_pytests_file() -> None:
    junit = """<testsuites><testsuite>
      <testcase name="a"/><testcase name="b"><failure message="assert 1 == 2&#10;more"/></testcase>
      <testcase name="c"><skipped message="no GPU"/></testcase><testcase name="d"><error>boom\nat</error></testcase>
    </testsuite></testsuites>"""
    assert outcome_of(junit) == {
        "passed": 1,
        "failed": 2,
        "skipped": 1,
        "failures": {"b": "assert 1 == 2", "d": "boom"},
        "reasons": ["no GPU"],
    }


def test_a_case_of_options_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the stand-in for CuPy, with ONNX Runtime's CPU provider in the place of the CUDA one."""
    import onnxruntime

    from amodal.bench.studies.gpu_options import CASES, time_case
    from amodal.runtime.backends.gpu import Gpu
    from amodal.runtime.backends.onnxruntime.bound import Place
    from amodal.runtime.backends.onnxruntime.cuda import CudaOptions, OnnxRuntimeCudaBackend
    from amodal.runtime.families import Bundle

    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    cupy, place = import_module("cupy"), Place("CPUExecutionProvider", "cpu", 0, "cpu:0")

    def make(options: CudaOptions) -> OnnxRuntimeCudaBackend:
        return OnnxRuntimeCudaBackend(onnxruntime, cupy, Gpu(0, "RTX 3090", "86"), options, place=place)

    found = time_case(Bundle("default"), make, CASES["as it is"], calls=1)
    assert found["bit_equal"]
    assert len(found["seconds"]) == 3
    assert len(found["sums"]) == 256
    assert json.loads(json.dumps(found)) == found
    sys.modules.pop("cupy")


def test_cases_that_fail_are_rows_too(monkeypatch: pytest.MonkeyPatch) -> None:
    from amodal.bench.studies import gpu_options
    from amodal.engines.isolated import Ended

    said = iter([Ended(0, 1.0, json.dumps({"seconds": [1.0], "sums": [1.0, 2.0]}), "")])
    monkeypatch.setattr(gpu_options, "run_isolated", lambda *given: next(said, Ended(-11, 1.0, "", "")))
    first, *others = gpu_options.compare_cases("default")
    assert (first["case"], first["error"], first["difference"]) == ("as it is", "", 0.0)
    assert {row["error"] for row in others} == {"crashed with SIGSEGV"}
    assert {row["difference"] for row in others} == {None}
