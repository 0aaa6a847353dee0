"""Steps of a check, each in a process of its own with a time limit: kept at once, and taken up again if cut off."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import JsonValue, ValidationError

from amodal import __version__
from amodal.engines.isolated import Ended, run_isolated

from ..running.files import write_whole
from ..schema import Record

State = Literal["done", "failed", "timed out", "skipped", "not reached"]
_LEAST = 5.0  # seconds; with less left, a step is not begun
_LOG = 4000  # characters of standard error that are kept


@dataclass(frozen=True)
class Step:
    """Something to run.

    Attributes:
        command: its standard output, where it is JSON, is the step's result.
        limit: seconds.
        needs: steps that must be done before.
        environment: added to this process's.
        missing: why it cannot be run here; empty if it can.
        keep: whether a result is kept for the next time.
    """

    name: str
    command: tuple[str, ...]
    limit: float
    needs: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    missing: str = ""
    keep: Callable[[JsonValue], bool] = lambda said: True


class StepState(Record):
    """What became of a step.

    Attributes:
        key: of the command, the version and the machine: what is kept under another key is run again.
        seconds: wall time. limit: what it was allowed.
        trouble: what went wrong, or why it was not run.
        said: its result. log: the end of what it wrote to standard error.
    """

    name: str
    key: str
    command: list[str]
    state: State
    seconds: float = 0.0
    limit: float = 0.0
    trouble: str = ""
    said: JsonValue = None
    log: str = ""


Plan = Callable[[Mapping[str, StepState]], list[Step]]
Say = Callable[[Step], None]


def run_steps(
    plan: Plan, folder: Path, seconds: float, machine: str, *, fresh: bool = False, say: Say = lambda step: None
) -> dict[str, StepState]:
    """Runs steps until none is left or the time is up; one that fails, crashes or hangs leaves the others alone.

    Args:
        plan: the steps in order of importance, given what became of those before: asked again after each.
        folder: where `steps/NAME.json` are kept. What is done there is not done again; what failed is tried again.
        seconds: for all of them together.
        machine: what results are kept for.
        say: told of each step that begins.

    Returns:
        By name, in the order of the plan.

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
        kept = None if fresh else _read(file, key)
        if kept is not None and not step.keep(kept.said):
            kept = None
        if kept is None:
            say(step)
            kept = _take(step, key, states, end - time.monotonic())
            if kept.state not in ("skipped", "not reached"):
                write_whole(file, kept.model_dump_json(indent=1))
        states[step.name] = kept


def _take(step: Step, key: str, states: Mapping[str, StepState], left: float) -> StepState:
    state = StepState(name=step.name, key=key, command=list(step.command), state="skipped")
    lacks = [name for name in step.needs if name not in states or states[name].state != "done"]
    if step.missing or lacks:
        return state.model_copy(update={"trouble": step.missing or f"needs what {', '.join(lacks)} did not give"})
    if left < _LEAST:
        return state.model_copy(update={"state": "not reached", "trouble": "the time was up; run the check again"})
    limit = min(step.limit, left)
    try:
        ended = run_isolated(step.command, limit, step.environment)
    except OSError as error:
        return state.model_copy(update={"state": "failed", "trouble": f"it cannot be started ({error})"})
    return state.model_copy(
        update={
            "state": _state(ended),
            "seconds": round(ended.seconds, 2),
            "limit": round(limit, 2),
            "trouble": ended.trouble,
            "said": _said(ended.out),
            "log": ended.err[-_LOG:],
        }
    )


def _state(ended: Ended) -> State:
    if ended.ok:
        return "done"
    return "timed out" if ended.code is None else "failed"


def _said(out: str) -> JsonValue:
    """The JSON of a command's output: all of it, or else its last line."""
    for text in (out, (out.strip().splitlines() or [""])[-1]):
        try:
            value: Any = json.loads(text, parse_constant=_no_constant)
        except ValueError:
            continue
        return value  # type: ignore[no-any-return]
    return None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number")


def _key(step: Step, machine: str) -> str:
    asked = [__version__, machine, list(step.command), sorted(step.environment.items())]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:16]


def _read(file: Path, key: str) -> StepState | None:
    """What was kept of a step that is done."""
    try:
        state = StepState.model_validate_json(file.read_text())
    except (OSError, UnicodeDecodeError, ValidationError):
        return None
    return state if state.key == key and state.state == "done" else None
