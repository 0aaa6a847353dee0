"""Describes an installed compiler and compiles graphs, each in a separate process (`worker.py`)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from amodal.runtime import errors
from amodal.runtime.builds.store import EngineBackend, Profile
from amodal.runtime.errors import AmodalError, EngineBuildError

from .targets import Target


class Compilation(NamedTuple):
    """What the compiler reports about an engine; see `EngineRecord`."""

    weights_bytes: int
    activation_bytes: dict[str, int]
    layers: tuple[int, int]
    seconds: float
    peak_bytes: int
    bytes: int
    sha256: str


class Library(NamedTuple):
    """An installed compiler: its version, and the compute capabilities it builds for without a GPU."""

    backend: EngineBackend
    version: str
    capabilities: tuple[str, ...]


def describe(backend: EngineBackend) -> Library:
    """Returns the installed compiler; raises BackendUnavailableError if it cannot be imported."""
    found = _run_worker({"task": "describe", "backend": backend})
    return Library(backend, found["version"], tuple(found["capabilities"]))


def compile_graph(
    graph: Path,
    backend: EngineBackend,
    target: Target,
    profiles: tuple[Profile, ...],
    out: Path,
    report: Callable[[str], None] = lambda phase: None,
) -> Compilation:
    """Compiles one graph in a separate process, which isolates crashes and ends on an interrupt.

    Args:
        graph: ONNX file with its external data beside it.
        out: the engine's file.
        report: called with each phase: `read`, `compile`, `write`.

    Raises:
        EngineBuildError: the graph is refused, memory runs out, or the compiler crashes.
        OSError: `out` cannot be written.
    """
    job = {
        "task": "build",
        "backend": backend,
        "graph": str(graph),
        "out": str(out),
        "target": asdict(target),
        "profiles": [profile.model_dump(mode="json") for profile in profiles],
    }
    result = _run_worker(job, report, graph.stem)
    return Compilation(**{**result, "layers": tuple(result["layers"])})


def _run_worker(
    job: dict[str, Any], report: Callable[[str], None] = lambda phase: None, component: str = ""
) -> dict[str, Any]:
    """Runs a job in a worker and returns its result."""
    command, pipe = [sys.executable, "-m", "amodal.engines.worker"], subprocess.PIPE
    last: dict[str, Any] = {"event": None}
    with tempfile.TemporaryFile() as log:
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True, encoding="utf-8") as process:
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                with suppress(BrokenPipeError):  # it died at once; its exit code and log say why
                    # The pipe stays open: when it closes, however this process ended, the worker exits too.
                    process.stdin.write(json.dumps(job) + "\n")
                    process.stdin.flush()
                for line in process.stdout:
                    last = json.loads(line)
                    if last["event"] == "phase":
                        report(last["what"])
                code = process.wait()
            finally:
                process.kill()  # does nothing once it has ended
                with suppress(BrokenPipeError):
                    process.stdin.close()
        log.seek(0)
        text = log.read().decode("utf-8", "replace").strip()
    event = last.pop("event")
    if code == 0 and event == "done":
        return last
    if event == "error":
        raise _error(last, component)
    raise EngineBuildError(_crash(code, component, text.splitlines()[-1] if text else "no output"))


def _error(event: dict[str, Any], component: str) -> Exception:
    if event["kind"] == "OSError":
        return OSError(event["errno"], event["message"])
    if event["kind"] == "MemoryError":
        return EngineBuildError(_out_of_memory(component))
    kind: type[AmodalError] = getattr(errors, event["kind"], EngineBuildError)
    return kind(event["message"])


def _crash(code: int, component: str, last: str) -> str:
    if -code == signal.SIGKILL:
        return _out_of_memory(component)
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"the compiler crashed while building {component or 'nothing yet'} ({how}): {last}"


def _out_of_memory(component: str) -> str:
    return (
        f"the compiler was killed while building {component}, as happens when memory runs out; close other programs, "
        "or build the engine on a larger machine for the same target and copy the folder."
    )
