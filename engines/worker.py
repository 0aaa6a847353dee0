"""The process that builds one engine: `python -m amodal.engines.worker`, a job on standard input.

A compiler may crash, take all memory, or hang; in a process of its own it takes nothing with it, and its peak memory is
known. Events go to standard output as lines of JSON; whatever libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from pathlib import Path
from typing import Any, NoReturn

from amodal.runtime.builds.store import Profile
from amodal.runtime.bundle.reading import sha256_of
from amodal.runtime.errors import AmodalError

from .compiler import Compiler
from .targets import Target


def main() -> None:
    """Reads a job, does it, says how it went."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as events:
        os.dup2(2, 1)

        def say(**event: Any) -> None:
            events.write(json.dumps(event) + "\n")
            events.flush()

        job = json.loads(sys.stdin.readline())
        threading.Thread(target=_end_with_the_parent, daemon=True).start()
        try:
            compiler = Compiler(job["backend"])
            if job["task"] == "describe":
                say(event="done", version=compiler.version, capabilities=compiler.capabilities)
            else:
                say(event="done", **_build(compiler, job, lambda what: say(event="phase", what=what)))
        except AmodalError as error:
            say(event="error", kind=type(error).__name__, message=str(error))
            _leave(1)
        except MemoryError:
            say(event="error", kind="MemoryError", message="")
            _leave(1)
        except OSError as error:
            say(event="error", kind="OSError", message=str(error), errno=error.errno)
            _leave(1)
    _leave(0)


def _end_with_the_parent() -> None:
    """Ends this process when the pipe it got its job from closes: nobody waits for the engine any more."""
    sys.stdin.read()
    os._exit(1)


def _build(compiler: Compiler, job: dict[str, Any], say: Any) -> dict[str, Any]:
    start = time.perf_counter()
    out = Path(job["out"])
    target = Target(job["target"]["name"], tuple(job["target"]["capabilities"]))
    profiles = tuple(Profile.model_validate(p) for p in job["profiles"])
    compiled = compiler.build(Path(job["graph"]), profiles, target, job["options"], out, say)
    seconds = time.perf_counter() - start
    with open(out, "rb") as file:
        os.fsync(file.fileno())
    return {
        "weights_bytes": compiled.weights_bytes,
        "activation_bytes": compiled.activation_bytes,
        "layers": compiled.layers,
        "seconds": seconds,
        "peak_bytes": peak_bytes(),
        "bytes": out.stat().st_size,
        "sha256": sha256_of(out),
    }


def peak_bytes() -> int:
    """The most memory this process has held, in bytes; 0 where the system does not say.

    Read from the kernel's own record: `getrusage` begins with what the parent had.
    """
    try:
        for line in Path("/proc/self/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _leave(code: int) -> NoReturn:
    sys.stderr.flush()
    os._exit(code)  # the libraries' own teardown is not needed, and can crash without a driver


if __name__ == "__main__":
    main()
