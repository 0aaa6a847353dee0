"""What an installed compiler is, and what it makes of one graph: both from a process of its own, `worker.py`."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from amodal.runtime import errors
from amodal.runtime.builds.store import EngineBackend, Profile
from amodal.runtime.errors import AmodalError, EngineBuildError

from .targets import Target


class Compilation(NamedTuple):
    """What is known of an engine once it was compiled; see `EngineRecord`."""

    weights_bytes: int
    activation_bytes: dict[str, int]
    layers: tuple[int, int]
    seconds: float
    peak_bytes: int
    bytes: int
    sha256: str


class Library(NamedTuple):
    """An installed compiler: version, and the compute capabilities it builds for without a GPU."""

    backend: EngineBackend
    version: str
    capabilities: tuple[str, ...]


def describe(backend: EngineBackend) -> Library:
    """Asks an installed compiler what it is.

    Raises:
        BackendUnavailableError: it cannot be imported.
    """
    found = _work({"task": "describe", "backend": backend}, lambda what: None)
    return Library(backend, found["version"], tuple(found["capabilities"]))


def compile_graph(
    graph: Path,
    backend: EngineBackend,
    target: Target,
    profiles: tuple[Profile, ...],
    options: dict[str, bool | int],
    out: Path,
    say: Callable[[str], None] = lambda what: None,
) -> Compilation:
    """Compiles one graph in a process of its own, which a crash takes with it and an interrupt ends.

    Args:
        graph: ONNX, its external data beside it.
        out: the engine's file.
        say: told what is being done: `read`, `compile`, `write`.

    Raises:
        EngineBuildError: the graph is refused, memory runs out, or the compiler crashes.
        OSError: `out` cannot be written.
    """
    job = {
        "task": "build",
        "backend": backend,
        "graph": str(graph),
        "out": str(out),
        "target": {"name": target.name, "capabilities": target.capabilities},
        "profiles": [profile.model_dump(mode="json") for profile in profiles],
        "options": options,
    }
    said = _work(job, say, graph.stem)
    activations = dict(zip((p.name for p in profiles), said.pop("activation_bytes"), strict=True))
    before, after = said.pop("layers")
    del said["event"]
    return Compilation(activation_bytes=activations, layers=(before, after), **said)


def _work(job: dict[str, Any], say: Callable[[str], None], component: str = "") -> dict[str, Any]:
    """Has a worker do a job; returns what it said at the end."""
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(
            [sys.executable, "-m", "amodal.engines.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            encoding="utf-8",
        )
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            with suppress(BrokenPipeError):  # it died at once; what it left says why
                # One line, and the pipe stays open: when it closes, whatever ended this process, the worker ends too.
                process.stdin.write(json.dumps(job) + "\n")
                process.stdin.flush()
            last: dict[str, Any] = {}
            for line in process.stdout:
                last = json.loads(line)
                if last["event"] == "phase":
                    say(last["what"])
            code = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
        if code == 0 and last.get("event") == "done":
            return last
        if last.get("event") == "error":
            raise _reported(last, component)
        complaints.seek(0)
        text = complaints.read().decode("utf-8", "replace").strip()
    raise EngineBuildError(_crash(code, component, text.splitlines()[-1] if text else "it said nothing"))


def _reported(event: dict[str, Any], component: str) -> Exception:
    if event["kind"] == "OSError":
        return OSError(event["errno"], event["message"])
    if event["kind"] == "MemoryError":
        return EngineBuildError(_no_memory(component))
    kind = getattr(errors, event["kind"], EngineBuildError)
    return kind(event["message"]) if issubclass(kind, AmodalError) else EngineBuildError(event["message"])


def _crash(code: int, component: str, last: str) -> str:
    if -code == signal.SIGKILL:
        return _no_memory(component)
    how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
    return f"the compiler crashed while building {component or 'nothing yet'} ({how}): {last}"


def _no_memory(component: str) -> str:
    return (
        f"the compiler was killed while building {component}, as happens when memory runs out; close other programs, "
        "or build the engine on a larger machine for the same target and copy the folder."
    )
