"""How a batch grows with its clips and workers, where a clip computes nothing: the cost of the batch itself."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from amodal.runtime.errors import InputError
from amodal.runtime.progress import Progress, silent

from ..batches.batch import Plan, run_batch
from ..batches.pool import Seat
from ..batches.work import Job, Unit
from ..schema import Executed, Point, Scaling, Work
from .scaling import sweep_of

COUNTS = (10, 100, 1000)
WORKERS = (1, 2)
_RUNNER = "amodal.bench.batches.stub:StubRunner"


def measure_batches(
    work: Work, *, counts: Sequence[int] = COUNTS, workers: Sequence[int] = WORKERS, progress: Progress = silent
) -> Scaling:
    """Runs batches of clips that compute nothing and write two small files each.

    Args:
        work: is recorded as it is; nothing of it is run.
        counts: numbers of clips.

    Returns:
        An axis for each number of workers. The line's `each` is what a clip costs beside its model, in seconds, and a
        point's `peak` the largest memory of a worker.

    Raises:
        InputError: a number is less than 1.
    """
    if min([*counts, *workers], default=0) < 1:
        raise InputError("numbers of clips and workers must be 1 or more.")
    sweeps = []
    for many in workers:
        axis = f"clips, {many} worker{'s' * (many > 1)}"
        points: list[Point] = []
        for count in counts:
            progress(f"{axis}: {count}", "", len(points), len(counts))
            points.append(_point(count, many))
        sweeps.append(sweep_of(axis, points, {}, "clips"))
    executed = Executed(backend="none", version="", device="cpu", memory="resident", options={})
    return Scaling(work=work, executed=executed, sweeps=sweeps)


def _point(count: int, workers: int) -> Point:
    units = [Unit(f"clip_{number}", {"number": number}) for number in range(count)]
    with tempfile.TemporaryDirectory() as scratch:
        job = Job(str(Path(scratch, "out")), {}, _RUNNER)
        start = time.perf_counter()
        summary = run_batch(job, units, Plan([Seat()] * workers))
        seconds = time.perf_counter() - start
    return Point(value=count, seconds=[seconds], peak=summary["largest_worker_bytes"])
