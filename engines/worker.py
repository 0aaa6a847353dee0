"""The process that builds one engine: `python -m amodal.engines.worker` reads a job from standard input.

A compiler may crash, exhaust memory, or hang; in a separate process it harms nothing else, and its peak memory can be
measured. Events go to standard output as lines of JSON; output of libraries goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from amodal.runtime.builds.store import Profile
from amodal.runtime.bundle.reading import sha256_of
from amodal.runtime.errors import AmodalError

from .compiler import Compiler
from .targets import Target


def main() -> None:
    """Reads a job, runs it, and reports the outcome."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as events:
        os.dup2(2, 1)

        def report(**event: Any) -> None:
            events.write(json.dumps(event) + "\n")
            events.flush()

        job = json.loads(sys.stdin.readline())
        threading.Thread(target=_exit_with_parent, daemon=True).start()
        failed = True
        try:
            compiler = Compiler(job["backend"])
            if job["task"] == "describe":
                report(event="done", version=compiler.version, capabilities=compiler.capabilities)
            else:
                report(event="done", **_build(compiler, job, lambda what: report(event="phase", what=what)))
            failed = False
        except AmodalError as error:
            report(event="error", kind=type(error).__name__, message=str(error))
        except MemoryError:
            report(event="error", kind="MemoryError")
        except OSError as error:
            report(event="error", kind="OSError", message=str(error), errno=error.errno)
    sys.stderr.flush()
    os._exit(failed)  # skips the libraries' teardown, which can crash without a driver


def _exit_with_parent() -> None:
    """Exits when the pipe that brought the job closes: nobody waits for the engine any more."""
    sys.stdin.read()
    os._exit(1)


def _build(compiler: Compiler, job: dict[str, Any], report: Callable[[str], None]) -> dict[str, Any]:
    start = time.perf_counter()
    out = Path(job["out"])
    target = Target(job["target"]["name"], tuple(job["target"]["capabilities"]))
    profiles = [Profile.model_validate(profile) for profile in job["profiles"]]
    compiled = compiler.build(Path(job["graph"]), profiles, target, out, report)
    seconds = time.perf_counter() - start
    with open(out, "rb") as file:
        os.fsync(file.fileno())
    size, peak = out.stat().st_size, peak_bytes()
    return {**compiled, "seconds": seconds, "peak_bytes": peak, "bytes": size, "sha256": sha256_of(out)}


def peak_bytes() -> int:
    """Returns the most memory this process has held, in bytes; 0 where the system does not report it.

    Read from `/proc`, because `getrusage` starts from the parent's peak.
    """
    try:
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


if __name__ == "__main__":
    main()
