"""The same workers on a real Ray cluster of this machine, and what is said where there is none."""

from __future__ import annotations

import os
import signal
import socket
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from amodal.bench.batches.batch import Plan, run_batch
from amodal.bench.batches.on_ray import Cluster
from amodal.bench.batches.stub import StubRunner
from amodal.bench.batches.work import Job
from amodal.runtime.errors import BackendUnavailableError, MissingDependencyError

from .conftest import contents, units

MakeJob = Callable[..., Job]


def test_a_missing_ray_is_refused_with_the_extra(
    make_job: MakeJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "amodal\[ray\]"'):
        run_batch(make_job(tmp_path / "out"), units(1), Plan(Cluster()))


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["", "ray://"])
def test_a_cluster_that_is_not_there_is_refused_at_once(prefix: str, make_job: MakeJob, tmp_path: Path) -> None:
    pytest.importorskip("ray.data")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"{prefix}127.0.0.1:{free.getsockname()[1]}"
    with pytest.raises(BackendUnavailableError, match=f"no Ray cluster answers at {address} .*Connection refused"):
        run_batch(make_job(tmp_path / "out"), units(1), Plan(Cluster(address)))


@pytest.fixture
def workers(tmp_path: Path) -> Callable[[], list[int]]:
    """Finds the processes of Ray's actors that run the workers."""

    def found() -> list[int]:
        pids = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    line, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
                except OSError:
                    continue
                if b"ray::" in line and b"MapWorker" in line and str(tmp_path).encode() in environment:
                    pids.append(int(entry.name))
        return pids

    return found


@pytest.mark.slow
def test_a_worker_on_ray_that_is_killed_is_replaced_and_nothing_is_lost(
    make_job: MakeJob, tmp_path: Path, workers: Callable[[], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray.data")
    monkeypatch.setenv("RAY_worker_niceness", "0")  # 15 by default, which starves them on a machine that is busy
    killed: list[int] = []

    def kill(_: str, phase: str, done: int, total: int | None) -> None:
        if done in (3, 9) and len(killed) < 2 and (found := workers()):
            os.kill(found[0], signal.SIGKILL)
            killed.append(found[0])

    job = make_job(tmp_path / "out", seconds=0.2)
    summary = run_batch(job, units(24, clip_5="input"), Plan(Cluster(workers=2)), kill)
    assert killed
    assert (summary["done"], summary["quarantine"]) == (23, {"clip_5": "the masks are empty."})
    for unit in units(24):
        if unit.key != "clip_5":
            StubRunner().run(unit.task, tmp_path / "alone" / "clips" / unit.key)
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
    ran = Counter((tmp_path / "log").read_text().split())
    assert set(ran) == {unit.key for unit in units(24)}
    assert sum(ran.values()) <= 24 + len(killed)
