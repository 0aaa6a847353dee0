"""A batch: which units are left, who does them, and what is told meanwhile."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

from amodal.runtime.errors import OutputError
from amodal.runtime.progress import Progress, silent

from .on_ray import Cluster, run_on_ray
from .places import LocalPlace
from .pool import Seat, run_here
from .report import Tally
from .shards import Shard
from .store import UnitStore, create_store
from .work import Job, Unit, raise_fatal, require_same

_EVERY = 10.0  # seconds between two writings of the figures


@dataclass(frozen=True)
class Plan:
    """How a batch is carried out.

    Attributes:
        where: a seat for each worker of this machine, or a Ray cluster.
        shard: the part of the units that this run does.
        resume: whether to go on with what is in OUT; shards always join.
        again: whether units in quarantine are tried once more.
        metrics: called with Prometheus's text now and then, and at the end.
    """

    where: Sequence[Seat] | Cluster = (Seat(),)
    shard: Shard = field(default_factory=Shard)
    resume: bool = False
    again: bool = False
    metrics: Callable[[str], None] | None = None


def run_batch(job: Job, units: Sequence[Unit], plan: Plan | None = None, progress: Progress = silent) -> dict[str, Any]:
    """Does all units of the plan's shard that are not done; returns the summary, which is also in OUT.

    Args:
        units: with different keys.

    Raises:
        OutputExistsError, InputError: OUT has results, and `resume` is not given or they are of something else.
        OutputError: OUT cannot be written, or another process is at the same shard.
        AmodalError: whatever concerns all units, such as a damaged bundle. What was finished is kept.
    """
    plan = plan or Plan()
    job = replace(job, run=uuid4().hex[:12])
    store = create_store(job.out, job.settings, plan.resume or plan.shard.count > 1)
    name = "" if plan.shard.count == 1 else f"-{plan.shard.number}-of-{plan.shard.count}"
    mine = plan.shard.of(units)
    workers = plan.where.workers if isinstance(plan.where, Cluster) else len(plan.where)
    tally = Tally(len(mine), workers, str(plan.shard))
    with _alone(store, name), _kept():
        left = _left(store, mine, tally, plan.again)
        _follow(_answers(job, left, plan.where), tally, plan, store, progress)
        summary = tally.summary()
        store.place.write(f"summary{name}.json", (json.dumps(summary, indent=2) + "\n").encode())
        return summary


def _answers(job: Job, units: Sequence[Unit], where: Sequence[Seat] | Cluster) -> Iterator[Mapping[str, Any]]:
    if not units:
        return iter(())
    return run_on_ray(job, units, where) if isinstance(where, Cluster) else run_here(job, units, where)


def _left(store: UnitStore, units: Sequence[Unit], tally: Tally, again: bool) -> list[Unit]:
    """Returns the units that are to be done, and counts the others."""
    absent, left = set(store.missing(unit.key for unit in units)), []
    for unit in units:
        record = None if unit.key in absent else store.get(unit.key)
        require_same(unit, record)
        if record is not None and record["status"] == "quarantined" and again:
            store.put(unit.key, {**record, "status": "begun", "run": ""})
            record = None
        if record is None or record["status"] == "begun":
            left.append(unit)
        else:
            tally.add({"key": unit.key, **record}, earlier=True)
    return left


def _follow(
    answers: Iterator[Mapping[str, Any]], tally: Tally, plan: Plan, store: UnitStore, progress: Progress
) -> None:
    """Counts answers as they come, and tells how far it is."""
    told = time.monotonic()
    write = plan.metrics or (lambda text: store.place.write("metrics.prom", text.encode()))
    write(tally.prometheus())
    progress("", "", tally.done + tally.quarantined, tally.total)
    try:
        for answer in answers:
            raise_fatal(answer)
            tally.add(answer)
            aside = f"{tally.quarantined} in quarantine" if tally.quarantined else ""
            progress(aside, "", tally.done + tally.quarantined, tally.total)
            if time.monotonic() - told > _EVERY:
                told = time.monotonic()
                write(tally.prometheus())
    finally:
        close = getattr(answers, "close", None)
        if close is not None:
            close()
    write(tally.prometheus())


@contextmanager
def _kept() -> Iterator[None]:
    """Marks whatever interrupts the block as leaving finished units behind, for what is told to the user."""
    try:
        yield
    except BaseException as error:
        error.kept = True  # type: ignore[attr-defined]
        raise


@contextmanager
def _alone(store: UnitStore, name: str) -> Iterator[None]:
    """Refuses a second process at the same shard of the same folder."""
    if not isinstance(store.place, LocalPlace):
        yield
        return
    descriptor = os.open(Path(store.place.path, f".batch{name}.lock"), os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(
                f"another batch is writing to {store.place.path}; wait until it has ended, or give another folder for "
                "`out`."
            ) from None
        except OSError:  # a file system without locks
            pass
        yield
    finally:
        os.close(descriptor)
