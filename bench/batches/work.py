"""What a worker does with one unit: run it, record it, try again, or put it aside with the reason."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from amodal.runtime import errors
from amodal.runtime.errors import AmodalError, InputError, OutputError, first_line

from .places import open_place
from .store import Record, UnitStore, name_of

RESULTS = "clips"
"""The folder in OUT with a folder of results for each unit."""
_FATAL = (errors.BundleError, errors.BackendUnavailableError, errors.EngineError, errors.MissingDependencyError)
_WAITS = 5


@dataclass(frozen=True)
class Unit:
    """One piece of work: `task`, of JSON's types, is what the runner is given."""

    key: str
    task: Mapping[str, Any]

    @property
    def digest(self) -> str:
        """Twelve hex digits that are equal for equal tasks."""
        return hashlib.sha256(json.dumps(self.task, sort_keys=True).encode()).hexdigest()[:12]


class Runner(Protocol):
    """Does units, one after the other, in one process. Loads what it needs once."""

    marker: str
    """The file in a folder of results that is written last."""

    def run(self, task: Mapping[str, Any], folder: Path) -> None:
        """Makes `folder`, whole or not at all; it may exist, with results to replace."""


@dataclass(frozen=True)
class Job:
    """What the workers of a batch have in common; it is sent to each.

    Attributes:
        out: where results go, see `places`.
        settings: what is kept in the store.
        runner: `module:class` of a `Runner`, and `arguments` to make it.
        run: names this run, so that attempts of one that was stopped do not count.
        retries: attempts after the first, for what may go better another time.
    """

    out: str
    settings: Mapping[str, Any]
    runner: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""
    retries: int = 2


class Worker:
    """Answers units with their records. The same one runs in a process of this machine and on Ray."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._store = UnitStore(open_place(job.out), job.settings)
        self._runner: Runner | None = None

    def answer(self, unit: Unit) -> Record:
        """Does a unit unless that is done, and returns its record with its `key`.

        What concerns all units (a damaged bundle, a full disk) is returned as `status` "fatal" with a `kind` and
        a `reason`.
        """
        try:
            return {"key": unit.key, **self._done(unit)}
        except AmodalError as error:
            return {
                "key": unit.key,
                "status": "fatal",
                "kind": type(error).__name__,
                "reason": str(error),
                "field": error.field,
            }

    def _done(self, unit: Unit) -> Record:
        record = self._store.get(unit.key)
        require_same(unit, record)
        if record is not None and record["status"] != "begun":
            return record
        runner = self._ready()
        place, name = self._store.place, f"{RESULTS}/{name_of(unit.key)}"
        if record is not None and place.read(f"{name}/{runner.marker}") is not None:
            return self._record(unit, "done", record["attempts"], 0.0)
        counted = record is not None and record["run"] == self._job.run
        attempt, reason = (record["attempts"] if record is not None and counted else 0) + 1, ""
        if attempt > 1:
            reason = "its process ended without an answer: killed for memory, or by a fault of a library"
        while attempt <= self._job.retries + 1:
            self._store.put(unit.key, self._entry(unit, "begun", attempt))
            start = time.perf_counter()
            try:
                self._run(runner, unit, name)
                return self._record(unit, "done", attempt, time.perf_counter() - start)
            except (*_FATAL, OutputError):
                raise
            except InputError as error:  # the same every time
                return self._record(unit, "quarantined", attempt, time.perf_counter() - start, str(error))
            except AmodalError as error:
                reason = str(error)
            except Exception as error:  # noqa: BLE001 (of any library; one clip does not end the others)
                reason = f"{type(error).__name__}: {first_line(error)}"
            attempt += 1
        return self._record(unit, "quarantined", attempt - 1, 0.0, reason)

    def _run(self, runner: Runner, unit: Unit, name: str) -> None:
        """Runs a unit; waits for a process of a stopped run that has not ended yet."""
        for left in range(_WAITS, -1, -1):
            try:
                with self._store.place.folder(name, runner.marker) as folder:
                    runner.run(unit.task, folder)
                return
            except OutputError as error:
                if not left or "another run" not in str(error):
                    raise
                time.sleep(1)

    def _ready(self) -> Runner:
        if self._runner is None:
            module, _, name = self._job.runner.partition(":")
            self._runner = getattr(import_module(module), name)(**self._job.arguments)
        assert self._runner is not None
        return self._runner

    def _record(self, unit: Unit, status: str, attempts: int, seconds: float, reason: str = "") -> Record:
        record = {**self._entry(unit, status, attempts), "seconds": seconds}
        if reason:
            record["reason"] = reason
        self._store.put(unit.key, record)
        return record

    def _entry(self, unit: Unit, status: str, attempts: int) -> Record:
        return {"status": status, "task": unit.digest, "attempts": attempts, "run": self._job.run}


def require_same(unit: Unit, record: Mapping[str, Any] | None) -> None:
    """Raises InputError if a record is of another unit with the same key."""
    if record is not None and record.get("task") != unit.digest:
        raise InputError(
            f"OUT has results of another clip called {unit.key}, with other inputs or options; give another folder for "
            "`out`, or call the clip differently.",
            field="out",
        )


def raise_fatal(answer: Mapping[str, Any]) -> None:
    """Raises the error of an answer whose status is "fatal", with the kind and message it had in the worker."""
    if answer["status"] != "fatal":
        return
    kind = getattr(errors, answer["kind"], AmodalError)
    raise kind(answer["reason"], field=answer["field"])
