"""Workers on a Ray cluster: actors of Ray Data, which keep a bundle loaded and are replaced when a machine vanishes."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from amodal.runtime.errors import BackendUnavailableError, MissingDependencyError, first_line

from .pool import resident_bytes
from .store import Record
from .work import Job, Unit, Worker

_SECONDS, _BLOCKS = 5.0, 1000


@dataclass(frozen=True)
class Cluster:
    """Where Ray runs and what a worker needs there.

    Attributes:
        address: `auto`, `HOST:PORT` or `ray://HOST:PORT`; None to start Ray on this machine.
        workers: number of actors.
        cpus, gpus: of each actor; parts of a GPU are allowed.
    """

    address: str | None = None
    workers: int = 1
    cpus: float = 1
    gpus: float = 0


class Actor:
    """A worker as Ray Data calls it."""

    def __init__(self, job: Job) -> None:
        self._worker = Worker(job)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[str]]:
        """Answers units, which are rows of JSON, with rows of JSON."""
        units = [Unit(**json.loads(str(row))) for row in batch["unit"]]
        return {"answer": [json.dumps({**self._worker.answer(unit), "rss": resident_bytes()}) for unit in units]}


def run_on_ray(job: Job, units: Sequence[Unit], cluster: Cluster) -> Iterator[Record]:
    """Yields the answers of the cluster's workers as they come.

    Raises:
        MissingDependencyError: Ray is not installed.
        BackendUnavailableError: there is no cluster at the address, or it failed.
    """
    try:
        import ray
        import ray.data
        from ray.exceptions import RayError
    except ImportError as error:
        raise MissingDependencyError(
            'workers on Ray need ray, which is not installed; run `pip install "amodal[ray]"`, or choose `on="local"`.',
            field="on",
        ) from error
    _connect(ray, cluster)
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.print_on_execution_start = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        rows = [{"unit": json.dumps({"key": unit.key, "task": dict(unit.task)})} for unit in units]
        blocks = min(len(rows), max(_BLOCKS, 8 * cluster.workers))
        answers = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
            Actor,
            fn_constructor_args=(job,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=cluster.workers),
            num_cpus=cluster.cpus,
            num_gpus=cluster.gpus or None,
        )
        for row in answers.iter_rows():
            yield json.loads(row["answer"])
    except RayError as error:
        raise BackendUnavailableError(
            f"the Ray cluster failed ({first_line(error)}); what was finished is kept, go on with `resume=True`.",
            field="address",
        ) from error
    finally:
        ray.shutdown()


def _connect(ray: Any, cluster: Cluster) -> None:
    """Connects to the cluster, or starts one here with two cores more than the workers ask for, else Ray Data hangs."""
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "ignore_reinit_error": True}
    address = cluster.address
    _knock(address)
    here = {"num_cpus": int(cluster.workers * cluster.cpus) + 2, "include_dashboard": False}
    try:
        ray.init(address=address or "local", **quiet, **({} if address else here))
    except Exception as error:
        raise _absent(address, first_line(error)) from error


def _knock(address: str | None) -> None:
    """Asks whether somebody listens at an address, which Ray itself would try for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        with closing(socket.create_connection((host, int(port)), _SECONDS)):
            pass
    except (OSError, OverflowError) as error:
        raise _absent(address, first_line(error)) from error


def _absent(address: str | None, reason: str) -> BackendUnavailableError:
    return BackendUnavailableError(
        f"no Ray cluster answers at {address or 'this machine'} ({reason}); start one with `ray start --head`, or omit "
        "`address` to start Ray on this machine.",
        field="address",
    )
