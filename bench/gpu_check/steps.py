"""Steps of a check, each in its own process with a time limit; results are saved, so that a check can be resumed."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from pydantic import JsonValue, ValidationError
from pydantic_core import from_json

from amodal import __version__
from amodal.engines.isolated import run_isolated
from amodal.runtime.progress import Progress, silent

from ..running.files import write_whole
from ..schema import Record

_LEAST = 5.0  # seconds; with less time left, a step is not started
_LOG = 4000  # characters of standard error that are kept


@dataclass(frozen=True)
class Step:
    """A command to run.

    Attributes:
        command: its standard output, if it is JSON, is the step's output.
        limit: seconds.
        needs: steps that must be done before.
        environment: variables added to this process's.
        missing: why it cannot run here; empty if it can.
        reusable: whether a saved output may be used again.
    """

    name: str
    command: tuple[str, ...]
    limit: float
    needs: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    missing: str = ""
    reusable: Callable[[JsonValue], bool] = lambda output: True


class StepState(Record):
    """The outcome of a step.

    Attributes:
        key: hash of command, version and machine; a saved step with another key is run again.
        seconds: wall time. limit: seconds that it was given.
        trouble: what went wrong, or why it was not run.
        output: its JSON. log: the end of its standard error.
    """

    name: str
    key: str
    command: list[str]
    state: Literal["done", "failed", "timed out", "skipped", "not reached"]
    seconds: float = 0.0
    limit: float = 0.0
    trouble: str = ""
    output: JsonValue = None
    log: str = ""


def run_steps(
    plan: Callable[[Mapping[str, StepState]], list[Step]],
    folder: Path,
    seconds: float,
    machine: str,
    *,
    fresh: bool = False,
    progress: Progress = silent,
) -> dict[str, StepState]:
    """Runs steps until none is left or the time is up. A step that fails, crashes or hangs does not stop the others.

    Args:
        plan: returns the steps in order of importance, given the finished ones; called again after each step.
        folder: outcomes are saved in its `steps/NAME.json`; a step that is done there is not repeated, a failed one is.
        seconds: for all steps together.
        machine: identifies where saved outcomes are valid.

    Returns:
        The outcomes by name, in the order of the plan.

    Raises:
        OutputError: the folder cannot be written.
    """
    end = time.monotonic() + seconds
    states: dict[str, StepState] = {}
    while True:
        step = next((s for s in plan(states) if s.name not in states), None)
        if step is None:
            return states
        file, key = folder / "steps" / f"{step.name.replace(' ', '-')}.json", _key(step, machine)
        state = None if fresh else _saved(file, key)
        if state is None or not step.reusable(state.output):
            progress(step.name, f"at most {step.limit:.0f} s")
            state = _run(step, key, states, end - time.monotonic())
            if state.state not in ("skipped", "not reached"):
                write_whole(file, state.model_dump_json(indent=1))
        states[step.name] = state


def _run(step: Step, key: str, states: Mapping[str, StepState], left: float) -> StepState:
    outcome = partial(StepState, name=step.name, key=key, command=list(step.command))
    lacks = [name for name in step.needs if name not in states or states[name].state != "done"]
    if step.missing or lacks:
        return outcome(state="skipped", trouble=step.missing or f"needs what {', '.join(lacks)} did not produce")
    if left < _LEAST:
        return outcome(state="not reached", trouble="the time was up; run the check again")
    limit = min(step.limit, left)
    try:
        ended = run_isolated(step.command, limit, step.environment)
    except OSError as error:
        return outcome(state="failed", trouble=f"it cannot be started ({error})")
    return outcome(
        state="done" if ended.ok else "timed out" if ended.code is None else "failed",
        seconds=round(ended.seconds, 2),
        limit=round(limit, 2),
        trouble=ended.trouble,
        output=_json_of(ended.out),
        log=ended.err[-_LOG:],
    )


def _json_of(out: str) -> JsonValue:
    """The JSON in a command's output: all of it, or else its last line."""
    for text in (out, (out.strip().splitlines() or [""])[-1]):
        with suppress(ValueError):
            value: JsonValue = from_json(text, allow_inf_nan=False)
            return value
    return None


def _key(step: Step, machine: str) -> str:
    identity = [__version__, machine, list(step.command), sorted(step.environment.items())]
    return hashlib.sha256(json.dumps(identity).encode()).hexdigest()[:16]


def _saved(file: Path, key: str) -> StepState | None:
    """The outcome saved in `file`, if the step was done with the same key."""
    try:
        state = StepState.model_validate_json(file.read_text())
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
    return state if state.key == key and state.state == "done" else None
