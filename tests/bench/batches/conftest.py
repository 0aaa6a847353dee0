"""A runner that misbehaves on demand, in a module that workers import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from amodal.bench.batches.work import Job, Unit

MODULE = """
import os, signal
from pathlib import Path

from amodal.bench.batches.stub import StubRunner
from amodal.runtime.errors import BundleCorruptError, InputError, NonFiniteError

class Unruly(StubRunner):
    def __init__(self, log, seconds=0.0):
        super().__init__(seconds)
        self.log = log

    def run(self, task, folder):
        with open(self.log, "a") as log:
            log.write(f"{task['name']}\\n")
        trouble, tried = task.get("trouble"), Path(self.log + "." + task["name"])
        if trouble == "input":
            raise InputError("the masks are empty.")
        if trouble == "always":
            raise ZeroDivisionError("division by zero")
        if trouble == "dies" or (trouble == "dies once" and not tried.exists()):
            tried.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        if trouble == "once" and not tried.exists():
            tried.touch()
            raise NonFiniteError(3, 0.5)
        if trouble == "bundle":
            raise BundleCorruptError("graphs/unet.onnx is damaged.")
        super().run(task, folder)
"""


@pytest.fixture
def make_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Job]:
    """Makes a job of the unruly runner, whose log is `tmp_path / "log"`."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "unruly_runner.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path / "code")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"), prepend=":")

    def make(out: Path | str, retries: int = 2, **arguments: Any) -> Job:
        arguments = {"log": str(tmp_path / "log"), **arguments}
        return Job(str(out), {"steps": 1}, "unruly_runner:Unruly", arguments, retries=retries)

    return make


def units(count: int, **troubles: str) -> list[Unit]:
    """Units `clip_0` and so on; `troubles` by key."""
    tasks = ({"name": f"clip_{number}", "number": number} for number in range(count))
    return [
        Unit(task["name"], {**task, "trouble": troubles[task["name"]]} if task["name"] in troubles else task)  # type: ignore[arg-type,index]
        for task in tasks
    ]


def contents(out: Path) -> dict[str, bytes]:
    """All files of results, by name."""
    return {str(file.relative_to(out)): file.read_bytes() for file in (out / "clips").rglob("*") if file.is_file()}
