"""Frames of files that are played, and of a camera that does not wait."""

from __future__ import annotations

import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from amodal.robots.live import frames
from amodal.robots.live.frames import CameraFrames, FileFrames, open_source
from amodal.runtime.errors import InputError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def played(count: int, rate: float | None = None, fps: float | None = None):
    clock = Clock()
    pictures = SimpleNamespace(
        count=count, fps=fps, read=lambda at: np.stack([np.full((2, 3, 3), i, np.uint8) for i in at])
    )
    return FileFrames(pictures, rate, clock, clock.sleep), clock


@pytest.mark.parametrize(("rate", "fps", "expected"), [(4.0, 25.0, 4.0), (None, 25.0, 25.0), (None, None, 10.0)])
def test_files_are_played_at_the_rate_that_is_asked_for_or_their_own(rate, fps, expected) -> None:
    source, _ = played(5, rate, fps)
    taken = [source.next() for _ in range(6)]
    assert taken[5] is None
    assert [one.number for one in taken[:5]] == [0, 1, 2, 3, 4]
    np.testing.assert_allclose([one.stamp for one in taken[:5]], 100 + np.arange(5) / expected)
    assert [int(one.frame.max()) for one in taken[:5]] == [0, 1, 2, 3, 4]
    assert source.dropped == 0


def test_what_passes_meanwhile_is_dropped_and_counted() -> None:
    source, clock = played(20, 10.0)
    numbers = []
    while taken := source.next():
        numbers.append(taken.number)
        clock.now += 0.35
    assert numbers == [0, 3, 7, 10, 14, 17, 19]
    assert source.dropped == 20 - len(numbers)


def test_files_begin_anew() -> None:
    source, clock = played(5, 10.0)
    source.next()
    clock.now += 60
    source.rewind()
    assert [source.next().number for _ in range(5)] == [0, 1, 2, 3, 4]
    assert source.dropped == 0


class Driver:
    """Gives a frame when it is told to, in BGR."""

    def __init__(self) -> None:
        self.tokens, self.asked, self.released = threading.Semaphore(0), threading.Semaphore(0), False
        self.count, self.ends = 0, False

    def read(self):
        self.asked.release()
        self.tokens.acquire()
        if self.ends:
            return False, None
        self.count += 1
        return True, np.full((2, 2, 3), (self.count, 0, 200), np.uint8)

    def give(self, count: int) -> None:
        """Returns when the frames are taken over."""
        for _ in range(count):
            self.asked.acquire()
            self.tokens.release()
        self.asked.acquire()
        self.asked.release()

    def release(self) -> None:
        self.released = True


def test_a_camera_gives_the_newest_frame_and_counts_the_others() -> None:
    driver = Driver()
    source = CameraFrames(0, capture=driver)
    driver.give(1)
    assert source.next().number == 0
    driver.give(4)
    taken = source.next()
    assert (taken.number, source.dropped) == (4, 3)
    assert taken.frame[0, 0].tolist() == [200, 0, 5], "RGB"
    driver.ends = True
    driver.tokens.release()
    assert source.next() is None
    source.close()
    assert driver.released


def test_a_camera_that_gives_nothing_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "_PATIENCE", 0.05)
    driver = Driver()
    source = CameraFrames(0, capture=driver)
    with pytest.raises(InputError, match=r"camera 0 gave no frame for 0.05 s; check that it is connected"):
        source.next()
    driver.ends = True
    driver.tokens.release()
    source.close()


def test_what_cannot_be_opened_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="camera 97 cannot be opened"):
        open_source("97")
    with pytest.raises(InputError) as caught:
        open_source(str(tmp_path / "no.mp4"))
    assert caught.value.field == "source"
