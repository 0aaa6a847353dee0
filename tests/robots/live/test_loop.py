"""The loop over a stand-in for the networks: every frame is answered or counted, and errors come out."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from amodal.robots.live.frames import Taken
from amodal.robots.live.loop import LiveLoop
from amodal.robots.live.masks import Seen
from amodal.runtime.clips.stream import Stream
from amodal.runtime.clips.stream_blending import BlendedWindows
from amodal.runtime.clips.stream_options import StreamOptions
from amodal.runtime.errors import BackendError, InputError

T, SIZE = 8, (16, 32)
DEPTH = np.zeros(SIZE, np.float32)
DEPTH[:, 20:] = 1


class Networks:
    """Draws what is visible; waits in each window until it may go on, if it is told to."""

    def __init__(self, gate: threading.Event | None = None, error: Exception | None = None) -> None:
        self.gate, self.error, self.began = gate, error, threading.Event()

    def __call__(self, objects, depth, numbers, steps):
        self.began.set()
        if self.gate is not None:
            assert self.gate.wait(60)
        if self.error:
            raise self.error
        return {o: np.full((len(m), *SIZE, 3), 255, np.uint8) * (m > 0)[..., None] for o, m in objects.items()}


class Source:
    def __init__(self, count, before=lambda number: None, first=0) -> None:
        self.count, self.before, self.number, self.dropped, self.closed = count, before, first, 5, False

    def next(self):
        number, self.number = self.number, self.number + 1
        if number >= self.count or self.closed:
            return None
        self.before(number)
        return Taken(number, float(number), np.full((*SIZE, 3), number % 256, np.uint8))

    def close(self):
        self.closed = True


class Masks:
    failures = 0

    def __init__(self, find=None) -> None:
        self._find = find

    def find(self, taken):
        return self._find(taken) if self._find else seen_in(taken.number)

    def close(self):
        pass


def seen_in(number):
    mask = np.zeros(SIZE, bool)
    mask[4:10, 14 : 16 + number % 5] = True
    return Seen({3: mask}, DEPTH)


def loop_over(source, networks=None, masks=None, **more):
    results = []
    options = StreamOptions()
    stream = Stream(BlendedWindows(networks or Networks(), T, SIZE, options, None), options, lambda: 0.0)
    loop = LiveLoop(stream, source, masks or Masks(), results.append, reach=T, clock=lambda: 1000.0, **more)
    return loop, results


def test_every_frame_has_its_own_result_or_is_counted() -> None:
    loop, results = loop_over(Source(40))
    tally = loop.run()
    assert (tally.frames, tally.dropped) == (40, 5)
    assert tally.results == len(results) >= 2
    assert tally.results + tally.skipped == 40
    assert [one.taken.number for one in results] == sorted({one.taken.number for one in results})
    assert results[-1].taken.number == 39, "the frames of `lookahead` get theirs at the end"
    for one in results:
        assert one.result.stamp == one.taken.stamp == one.taken.number
        assert (one.taken.frame == one.taken.number % 256).all()
        np.testing.assert_array_equal(one.seen.masks[3], seen_in(one.taken.number).masks[3])
        assert one.age == 1000 - one.taken.stamp
    assert loop.ages().tolist() == [one.age for one in results]


def test_while_a_window_runs_any_number_of_frames_may_come() -> None:
    gate = threading.Event()
    networks = Networks(gate)

    def before(number: int) -> None:
        if number == 6:
            assert networks.began.wait(60)  # a window runs, of frames up to 5 at most
        if number == 299:
            gate.set()

    loop, results = loop_over(Source(300, before), networks)
    tally = loop.run()
    assert results[0].taken.number < 6, "the frames of a window are kept until it is done"
    assert results[-1].taken.number == 299
    assert tally.results + tally.skipped == 300
    assert len(loop._kept) + len(loop._window) <= 2 * T


def test_late_results_are_counted() -> None:
    loop, results = loop_over(Source(20), deadline=985.0)
    tally = loop.run()
    assert tally.late == sum(one.age > 985 for one in results) > 0


def test_frames_without_masks_and_of_another_size_are_left_out_and_counted() -> None:
    def find(taken):
        if taken.number % 4 == 1:
            return None
        if taken.number % 4 == 2:
            return Seen({3: np.ones((3, 3), bool)}, DEPTH)
        return seen_in(taken.number)

    loop, results = loop_over(Source(40), masks=Masks(find))
    tally = loop.run()
    assert (tally.unknown, tally.refused) == (10, 10)
    assert "object 3 is 3x3" in tally.reason
    assert {one.taken.number % 4 for one in results} <= {0, 3}


def test_what_does_not_fit_from_the_beginning_ends_the_loop() -> None:
    loop, _ = loop_over(Source(40), masks=Masks(lambda taken: Seen(seen_in(0).masks, None)))
    with pytest.raises(InputError, match="has no depth"):
        loop.run()


@pytest.mark.parametrize("where", ["window", "publish"])
def test_an_error_in_the_thread_comes_out_of_the_loop(where: str) -> None:
    networks = Networks(error=BackendError("the GPU is gone") if where == "window" else None)
    source = Source(10**9, lambda number: time.sleep(0.001))
    loop, results = loop_over(source, networks)
    if where == "publish":
        loop._publish = lambda found: (_ for _ in ()).throw(OSError("disk full"))
    with pytest.raises((BackendError, OSError), match=r"GPU is gone|disk full"):
        loop.run()
    assert not results
    assert not [thread for thread in threading.enumerate() if thread.name == "amodal-live"]


def test_stopping_ends_the_loop_with_all_results() -> None:
    def before(number: int) -> None:
        if number == 15:
            loop.stop()

    loop, results = loop_over(Source(10**9, before))
    assert loop.run().frames in (15, 16)
    assert results[-1].taken.number >= 14
