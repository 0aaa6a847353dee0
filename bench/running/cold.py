"""A cold start in a new process: import, open, load and the first clip, each timed once."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
import time
from pathlib import Path

from amodal.runtime.errors import AmodalError, BackendError

from ..schema import Work
from .clips import Execution, running

_PROGRAM = """
import time
begin = time.perf_counter()
import amodal
amodal.load
imported = time.perf_counter() - begin
from amodal.bench.running.cold import run
run(imported)
"""

_EXPLAINED = 3  # exit code of the new process if the last line of its standard error is a message for the user


def cold_start(bundle: str | Path, work: Work, execution: Execution) -> dict[str, float]:
    """Measures the seconds of a cold start.

    The process is cold; the files may be in the system's cache.

    Returns:
        `import`: of the package and its dependencies. `open`: of the bundle and the backend. `load`: of all components,
        with their hashes checked. `first clip`: without its loading.

    Raises:
        BackendError: the process failed; the message says why, if that is known.
    """
    job = pickle.dumps((bundle, work, execution))
    done = subprocess.run([sys.executable, "-c", _PROGRAM], input=job, capture_output=True, check=False)
    if done.returncode:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1]
        raise BackendError(last if done.returncode == _EXPLAINED else f"the process that starts cold failed ({last}).")
    seconds: dict[str, float] = json.loads(done.stdout.strip().splitlines()[-1])
    return seconds


def run(imported: float) -> None:
    """Runs in the new process: reads the job from standard input and prints the seconds as JSON."""
    bundle, work, execution = pickle.load(sys.stdin.buffer)
    begin = time.perf_counter()
    try:
        with running(bundle, work, execution) as runner:
            opened = time.perf_counter() - begin
            clip = runner.clip()
    except AmodalError as error:
        print(error, file=sys.stderr)
        sys.exit(_EXPLAINED)
    first = clip.times.seconds - clip.loading
    print(json.dumps({"import": imported, "open": opened, "load": clip.loading, "first clip": first}))
