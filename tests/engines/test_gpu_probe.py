"""What runs on the GPU here, with stand-ins where the driver begins; and processes that crash or hang."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import pytest

from amodal.engines.gpu_probe import availabilities, probe_gpu
from amodal.engines.isolated import run_isolated

from ..places import STAND_IN


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine with a GPU, on which importing TensorRT for RTX crashes; gives the folder that is imported from."""
    modules, programs = tmp_path / "modules", tmp_path / "programs"
    modules.mkdir()
    programs.mkdir()
    (modules / "tensorrt_rtx.py").write_text("import os, sys\nprint('no such symbol', file=sys.stderr)\nos.abort()\n")
    smi = programs / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'RTX 3090, 24576 MiB, 580.10, 8.6'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PYTHONPATH", f"{modules}{os.pathsep}{STAND_IN}", prepend=os.pathsep)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    asked = {"version": "10.13.2", "calls": str(tmp_path / "calls")}
    monkeypatch.setenv("STAND_IN", json.dumps(asked))
    return modules


@pytest.mark.slow
def test_a_backend_that_crashes_leaves_the_others(gpu: Path) -> None:
    found = probe_gpu(60)
    assert found["problem"] is None
    assert found["gpus"][0]["name"] == "RTX 3090"
    assert found["cupy"]["executes"]
    assert found["cupy"]["memory_free"] == 20 * 10**9
    onnxruntime, rtx, tensorrt = found["backends"]
    assert (onnxruntime["name"], onnxruntime["device"]) == ("onnxruntime", "cuda")
    assert "is for the CPU" in onnxruntime["reason"]
    assert not rtx["executes"]
    assert rtx["reason"] == "crashed with SIGABRT: no such symbol"
    assert tensorrt["executes"], tensorrt
    assert tensorrt["difference"] < 1e-3
    assert tensorrt["bit_equal"]
    assert set(tensorrt["seconds"]) == {"build", "load", "first run", "second run"}
    assert [row["name"] for row in found["backends"]] == ["onnxruntime", "tensorrt_rtx", "tensorrt"]
    usable = availabilities(60)
    assert usable["tensorrt"].usable
    assert not usable["tensorrt_rtx"].usable
    assert usable["tensorrt_rtx"].reason == "crashed with SIGABRT: no such symbol"


def test_without_a_gpu_nothing_is_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cupy.py").write_text("raise ImportError('no cupy')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = probe_gpu(60)
    assert found["problem"].startswith(
        "no GPU: nvidia-smi lists none, and CuPy says: CuPy cannot be imported (no cupy)"
    )
    assert found["backends"] == []


@pytest.mark.slow
def test_what_hangs_is_stopped_with_its_children() -> None:
    """The limit is long, so that both have begun on a busy machine too."""
    code = "import subprocess; child = subprocess.Popen(['sleep', '600']); print(child.pid, flush=True); child.wait()"
    ended = run_isolated([sys.executable, "-c", code], 10)
    assert ended.code is None
    assert ended.trouble.startswith("stopped after")
    for _ in range(600):
        try:
            os.kill(int(ended.out), 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the child lives on")


@pytest.mark.parametrize(
    ("code", "trouble"),
    [
        ("print(1)", ""),
        ("import sys; sys.exit('Error: no disk.')", "failed with exit code 1: no disk."),
        ("import os; os.kill(os.getpid(), 9)", "crashed with SIGKILL"),
    ],
)
def test_how_a_process_ended_is_said(code: str, trouble: str) -> None:
    assert run_isolated([sys.executable, "-c", code], 30).trouble == trouble
