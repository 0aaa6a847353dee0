"""A cold start in a process of its own: import, open, load and the first clip, each timed once."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from amodal.runtime.errors import AmodalError, BackendError

from ..schema import Work
from .clips import Execution, running

_PROGRAM = """
import sys, time
begin = time.perf_counter()
import amodal
amodal.load
imported = time.perf_counter() - begin
from amodal.bench.running.cold import run
run(imported, sys.argv[1])
"""

_SAID = 3  # exit code of the new process: its last line is a sentence for the user


def cold_start(bundle: str | Path, work: Work, execution: Execution) -> dict[str, float]:
    """Seconds of `import` (of the package and what it needs to load a bundle), `open` (the bundle, and the backend),
    `load` (all components, hashes checked), and `first clip` without its loading.

    Files may lie in the system's cache: what is cold is the process.

    Raises:
        BackendError: the process failed; where the reason is known, it is the message.
    """
    given = {"bundle": str(bundle), "work": work.model_dump(mode="json"), "execution": execution.options()}
    job = json.dumps(given, default=str)
    done = subprocess.run([sys.executable, "-c", _PROGRAM, job], capture_output=True, text=True, check=False)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise BackendError(last if done.returncode == _SAID else f"the process that starts cold failed ({last}).")
    found: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return found


def run(imported: float, job: str) -> None:
    """In the new process: prints the seconds as JSON."""
    given = json.loads(job)
    work = Work.model_validate(given["work"])
    options: dict[str, Any] = given["execution"]
    if options["engine_dir"] is not None:
        options["engine_dir"] = Path(options["engine_dir"])
    execution = Execution(**options)
    begin = time.perf_counter()
    try:
        with running(given["bundle"], work, execution) as runner:
            opened = time.perf_counter() - begin
            drawn = runner.clip()
    except AmodalError as error:
        print(error, file=sys.stderr)
        sys.exit(_SAID)
    load, clip = drawn.loading, drawn.seconds - drawn.loading
    print(json.dumps({"import": imported, "open": opened, "load": load, "first clip": clip}))
