"""Workers: that they end with whoever started them, and that one sentence says how they ended."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from amodal.bench.running import scene_runs
from amodal.bench.running.process import in_new_process
from amodal.bench.running.scene_runs import run_scenes
from amodal.runtime.errors import BackendError, NonFiniteError

from ...places import STAND_INS


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The stand-in scenes; what this process can import, those that it starts can."""
    monkeypatch.syspath_prepend(str(STAND_INS))
    import amodal_stand_in_scenes

    return amodal_stand_in_scenes


def begun_in(folder: Path) -> list[tuple[int, int]]:
    """Number and process of each scene that has begun."""
    return [(int(number), int(pid)) for number, pid in (file.name.split() for file in folder.iterdir())]


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
def test_ctrl_c_ends_the_workers_and_leaves_the_other_scenes(
    stand_ins: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(scene_runs, "run_scene", stand_ins.naps)

    def press() -> None:
        deadline = time.monotonic() + 60
        while not begun_in(tmp_path) and time.monotonic() < deadline:
            time.sleep(0.02)
        for _, pid in begun_in(tmp_path):  # a terminal sends it to the whole group
            os.kill(pid, signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    finger = threading.Thread(target=press)
    finger.start()
    with pytest.raises(KeyboardInterrupt):
        run_scenes([(tmp_path, number) for number in range(8)], 1, "scenes")
    finger.join()
    ((number, pid),) = begun_in(tmp_path)
    assert number == 0
    deadline = time.monotonic() + 60
    while psutil.pid_exists(pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not psutil.pid_exists(pid)


def test_a_worker_that_is_killed_is_one_sentence(stand_ins: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scene_runs, "run_scene", stand_ins.is_killed)
    with pytest.raises(BackendError, match=r"ended without an answer: killed for memory.*fewer `workers`\.$"):
        run_scenes([(1,), (2,)], 1, "scenes")


def test_an_overflow_in_a_process_arrives_as_what_it_is(stand_ins: Any) -> None:
    with pytest.raises(NonFiniteError, match="not finite after step 7") as caught:
        in_new_process(stand_ins.overflows, 7)
    assert (caught.value.step, caught.value.sigma) == (7, 0.5)
