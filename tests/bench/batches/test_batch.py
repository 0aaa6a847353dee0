"""A batch does every unit once, whatever happens to its workers, and says what became of each."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from amodal.bench.batches.batch import Plan, run_batch
from amodal.bench.batches.pool import Seat, seats_for
from amodal.bench.batches.shards import Shard
from amodal.bench.batches.stub import StubRunner
from amodal.bench.batches.work import Job, Unit, Worker
from amodal.runtime.errors import BundleCorruptError, InputError, OutputError, OutputExistsError

from .conftest import contents, units

MakeJob = Callable[..., Job]
TROUBLES = {"clip_1": "input", "clip_2": "always", "clip_3": "once", "clip_4": "dies", "clip_5": "dies once"}


@pytest.fixture
def outcome(make_job: MakeJob, tmp_path: Path) -> dict[str, object]:
    """The summary of a batch of eight units, five of which misbehave, with two workers."""
    return run_batch(make_job(tmp_path / "out", retries=1), units(8, **TROUBLES), Plan([Seat(), Seat()]))


def test_what_fails_is_tried_again_or_put_aside_and_the_others_are_done(
    outcome: dict[str, object], tmp_path: Path
) -> None:
    assert (outcome["done"], outcome["quarantined"], outcome["waiting"]) == (5, 3, 0)
    assert outcome["quarantine"] == {
        "clip_1": "the masks are empty.",
        "clip_2": "ZeroDivisionError: division by zero",
        "clip_4": "its process ended without an answer: killed for memory, or by a fault of a library",
    }
    ran = Counter((tmp_path / "log").read_text().split())
    assert ran == {f"clip_{n}": 2 if n in (2, 3, 4, 5) else 1 for n in range(8)}, "a wrong input is wrong every time"
    assert json.loads((tmp_path / "out" / "summary.json").read_text()) == outcome
    lines = (tmp_path / "out" / "metrics.prom").read_text().splitlines()
    assert 'amodal_batch_clips{shard="1/1",state="quarantined"} 3' in lines
    assert all(re.fullmatch(r'# (HELP|TYPE) \w+ .+|\w+\{(\w+="[^"]*",?)+\} \S+', line) for line in lines)

    for number in (0, 3, 5, 6, 7):  # the same as the runner alone
        StubRunner().run(units(8, **TROUBLES)[number].task, tmp_path / "alone" / "clips" / f"clip_{number}")
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")

    again = run_batch(_again(tmp_path), units(8, **TROUBLES), Plan(resume=True))
    assert (again["done"], again["done_before"], again["quarantined"]) == (5, 5, 3)
    assert Counter((tmp_path / "log").read_text().split()) == ran, "nothing is done twice"
    once_more = run_batch(_again(tmp_path), units(8, **TROUBLES), Plan(resume=True, again=True))
    assert once_more["quarantined"] == 3
    assert (tmp_path / "log").read_text().split().count("clip_1") == 2


def _again(tmp_path: Path) -> Job:
    arguments = {"log": str(tmp_path / "log")}
    return Job(str(tmp_path / "out"), {"steps": 1}, "unruly_runner:Unruly", arguments, retries=1)


def test_a_fault_of_the_bundle_stops_the_batch_and_what_is_finished_is_kept(make_job: MakeJob, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(BundleCorruptError, match="is damaged") as caught:
        run_batch(make_job(out), units(5, clip_2="bundle"))
    assert caught.value.kept  # type: ignore[attr-defined]
    with pytest.raises(OutputExistsError, match="`resume=True`"):
        run_batch(make_job(out), units(5))
    with pytest.raises(InputError, match="another clip called clip_2"):
        run_batch(make_job(out), units(5), Plan(resume=True))


def test_results_that_were_finished_without_a_record_are_not_computed_again(make_job: MakeJob, tmp_path: Path) -> None:
    job, (unit,) = make_job(tmp_path / "out"), units(1)
    worker = Worker(job)
    assert worker.answer(unit)["status"] == "done"
    file = tmp_path / "out" / "units" / "clip_0.json"
    record = json.loads(file.read_text())
    record["record"]["status"] = "begun"
    file.write_text(json.dumps(record))
    assert worker.answer(unit)["status"] == "done"
    file.unlink()  # the disk lost it: what the folder is of is not known
    assert worker.answer(unit)["status"] == "done"
    assert (tmp_path / "log").read_text().split() == ["clip_0", "clip_0"]


def test_shards_share_out_the_units_and_one_folder(make_job: MakeJob, tmp_path: Path) -> None:
    for number in (1, 2, 3):
        run_batch(make_job(tmp_path / "out"), units(7), Plan(shard=Shard(number, 3)))
    assert sorted((tmp_path / "log").read_text().split()) == [f"clip_{n}" for n in range(7)]
    assert len(list((tmp_path / "out").glob("summary-*-of-3.json"))) == 3


def test_results_go_to_any_address_of_fsspec(make_job: MakeJob, tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    worker = Worker(make_job("memory://bucket/out"))
    assert [worker.answer(unit)["status"] for unit in units(3, clip_1="input")] == ["done", "quarantined", "done"]
    StubRunner().run(units(3)[2].task, tmp_path / "alone")
    for file in (tmp_path / "alone").iterdir():
        assert fsspec.filesystem("memory").cat(f"/bucket/out/clips/clip_2/{file.name}") == file.read_bytes()
    assert worker.answer(units(3)[0])["status"] == "done"
    assert (tmp_path / "log").read_text().split() == ["clip_0", "clip_1", "clip_2"]


def test_gpus_and_cores_are_shared_out() -> None:
    assert [seat.environment["CUDA_VISIBLE_DEVICES"] for seat in seats_for(3, ["4", "7"], [0])] == ["4", "7", "4"]
    assert [seat.cores for seat in seats_for(2, [], [0, 1, 2, 3])] == [(0, 2), (1, 3)]
    assert [seat.cores for seat in seats_for(3, [], [0, 1])] == [None, None, None]


def test_a_second_batch_into_the_same_folder_is_refused(make_job: MakeJob, tmp_path: Path) -> None:
    job = make_job(tmp_path / "out")

    def second(*_: object) -> None:
        run_batch(job, units(1), Plan(resume=True))

    with pytest.raises(OutputError, match="another batch is writing to"):
        run_batch(job, units(1), progress=second)


PROGRAM = """
import sys
from amodal.bench.batches.batch import Plan, run_batch
from amodal.bench.batches.pool import Seat
from amodal.bench.batches.work import Job, Unit

if __name__ == "__main__":
    out, log, count = sys.argv[1:]
    units = [Unit(f"clip_{n}", {"name": f"clip_{n}", "number": n}) for n in range(int(count))]
    job = Job(out, {"steps": 1}, "unruly_runner:Unruly", {"log": log, "seconds": 0.01})
    run_batch(job, units, Plan([Seat(), Seat()], resume=True))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="workers die with their parent on Linux")
def test_batches_that_are_killed_at_random_end_with_the_same_files(make_job: MakeJob, tmp_path: Path) -> None:
    """`KILLS=100` for more of them; half of the kills are of the whole batch, half of one worker."""
    kills, chance = int(os.environ.get("KILLS", "6")), random.Random(4)
    count = 30 * kills
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), str(tmp_path / "out"), str(tmp_path / "log"), str(count)]
    make_job(tmp_path / "unused")
    killed = 0
    while killed < kills:
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        _wait_for(partial(_has_more_than, _lines(tmp_path), tmp_path), process)
        time.sleep(chance.uniform(0, 0.3))
        if killed % 2 and (children := _children(process.pid)):
            os.kill(chance.choice(children), signal.SIGKILL)
            time.sleep(0.2)
            killed += 1
        process.kill()
        process.communicate()
        killed += 1
    last = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert last.returncode == 0, last.stderr

    for unit in [Unit(f"clip_{n}", {"name": f"clip_{n}", "number": n}) for n in range(count)]:
        StubRunner().run(unit.task, tmp_path / "alone" / "clips" / unit.key)
    assert contents(tmp_path / "out") == contents(tmp_path / "alone")
    ran = Counter((tmp_path / "log").read_text().split())
    assert len(ran) == count
    assert sum(ran.values()) <= count + 2 * killed, "only what was at work when it was killed is done again"
    assert not [path for path in (tmp_path / "out" / "clips").iterdir() if path.name.startswith(".")]


def _has_more_than(lines: int, tmp_path: Path) -> bool:
    return _lines(tmp_path) > lines


def _lines(tmp_path: Path) -> int:
    log = tmp_path / "log"
    return log.read_bytes().count(b"\n") if log.exists() else 0


def _children(pid: int) -> list[int]:
    """The workers of a batch, without Python's tracker of resources."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in listed if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    end = time.monotonic() + 60
    while not condition() and process.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.01)
    assert process.poll() in (None, 0), process.communicate()
