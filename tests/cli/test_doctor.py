"""`amodal doctor`, and the command without a command."""

from __future__ import annotations

import json
import os
import sys
from importlib import metadata
from typing import Any

import pytest

import amodal

from .conftest import issue


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> dict[str, str | None]:
    """Distributions to be found, whatever is installed; None for one that is not."""
    pretended: dict[str, str | None] = {}
    real = metadata.version

    def version(name: str) -> str:
        if name not in pretended:
            return real(name)
        found = pretended[name]
        if found is None:
            raise metadata.PackageNotFoundError(name)
        return found

    monkeypatch.setattr(metadata, "version", version)
    return pretended


def doctor() -> dict[str, Any]:
    outcome = issue("doctor", "--json")
    assert outcome.code == 0
    assert outcome.err == ""
    document: dict[str, Any] = json.loads(outcome.out)
    return document


def test_a_healthy_machine_has_no_problems(installed: dict[str, str | None]) -> None:
    installed |= {"onnxruntime": "1.23.0", "onnxruntime-gpu": None, "opencv-python": None}
    found = doctor()
    assert found["problems"] == []
    assert found["backends"]["onnxruntime"]["usable"] is True
    assert found["packages"]["cpu"] == {"onnxruntime": "1.23.0"}
    assert found["machine"]["cores"] >= 1
    outcome = issue("doctor")
    assert outcome.code == 0
    assert f"amodal {amodal.__version__}, Python {sys.version.split()[0]}" in outcome.out
    assert "Problems: none found" in outcome.out
    assert max(map(len, outcome.out.splitlines()[2:])) <= 80


def test_onnxruntime_and_its_gpu_twin_together_are_a_problem(installed: dict[str, str | None]) -> None:
    installed |= {"onnxruntime": "1.23.0", "onnxruntime-gpu": "1.22.0"}
    (problem,) = [p for p in doctor()["problems"] if "onnxruntime" in p]
    assert "onnxruntime 1.23.0 and onnxruntime-gpu 1.22.0 are installed over each other" in problem
    assert "pip uninstall -y onnxruntime onnxruntime-gpu" in problem
    assert "over each other" in issue("doctor").out


def test_no_usable_backend_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    found = doctor()
    assert found["backends"]["onnxruntime"]["usable"] is False
    assert 'pip install "amodal[cpu]"' in found["backends"]["onnxruntime"]["reason"]
    (problem,) = [p for p in found["problems"] if "backend" in p]
    assert problem.startswith("no backend is usable: backend onnxruntime cannot be imported")
    assert "not usable: backend onnxruntime cannot be imported" in " ".join(issue("doctor").out.split())


def test_what_is_left_of_onnxruntime_after_half_an_uninstall_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", type(sys)("onnxruntime"))
    assert any("installed only in part" in problem for problem in doctor()["problems"])


def test_a_run_without_any_backend_says_what_to_install(
    toy_bundle: Any, kept_clip: Any, refused: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for backend in ("onnxruntime", "auto"):
        sentence = refused("run", toy_bundle, *kept_clip.inputs, "--backend", backend)
        assert 'pip install "amodal[cpu]"' in sentence


def test_without_a_command_there_is_help() -> None:
    bare, helped = issue(), issue("--help")
    assert bare == helped
    assert bare.code == 0
    for name in ("run", "export", "inspect", "doctor"):
        assert f"  {name} " in bare.out
        shown = issue(name, "--help")
        assert shown.code == 0
        assert max(map(len, shown.out.splitlines())) <= 80
    assert issue("--version").out == f"amodal, version {amodal.__version__}\n"


@pytest.mark.slow
def test_without_a_gpu_it_says_so_and_is_content(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    (tmp_path / "cupy.py").write_text("raise ImportError('no cupy')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PATH", str(tmp_path))
    outcome = issue("doctor", "--gpu", "--json")
    assert outcome.code == 0
    assert json.loads(outcome.out)["gpu"]["problem"].startswith("no GPU: ")
    outcome = issue("doctor", "--gpu")
    assert outcome.code == 0
    assert "On the GPU:\n  no GPU: nvidia-smi lists none" in outcome.out


def test_what_was_tried_on_a_gpu_is_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    from amodal.engines import gpu_probe

    cupy = {"executes": True, "gpu": "RTX 3090", "capability": "sm86", "memory_free": 2 * 10**10}
    cupy |= {"memory_total": 24 * 10**9, "cuda_driver": "13.0", "cuda_runtime": "13.0"}
    rows = [
        {"name": "onnxruntime", "device": "cuda", "executes": True, "detail": "1.31", "seconds": {"load": 0.5}},
        {"name": "tensorrt_rtx", "executes": False, "reason": "crashed with SIGSEGV"},
    ]
    report = {"gpus": [], "cupy": cupy, "backends": rows, "problem": None}
    monkeypatch.setattr(gpu_probe, "probe_gpu", lambda: report)
    monkeypatch.setattr(gpu_probe, "availabilities", dict)
    shown = " ".join(issue("doctor", "--gpu").out.split())
    assert "RTX 3090 (sm86), 20.00 GB of 24.00 GB free" in shown
    assert "onnxruntime --device cuda: executes (1.31; load 0.5 s)" in shown
    assert "tensorrt_rtx: does not execute: crashed with SIGSEGV" in shown
