"""Streams of single pictures, over a stand-in for the networks and a simulated clock."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from amodal.runtime.clips.stream import Stream
from amodal.runtime.clips.stream_options import StreamOptions
from amodal.runtime.clips.stream_pictures import SinglePictures
from amodal.runtime.errors import InputError

SIZE = (16, 32)


class Networks:
    """Reads pictures and fills the rows of what is seen, in a time of its own; keeps what it was asked."""

    def __init__(self, clock: Any = None, reading: float = 0.0, each: float = 0.0) -> None:
        self.clock, self.reading, self.each = clock, reading, each
        self.read: list[int] = []
        self.asked: list[int] = []

    def __call__(self, picture: Any) -> Any:
        self.read.append(int(picture[0, 0, 0]))
        self._pass(self.reading)
        return self.find

    def find(self, visible: Any) -> Any:
        assert visible.dtype == bool
        assert visible.any(axis=(1, 2)).all()
        self.asked.append(len(visible))
        self._pass(self.each * len(visible))
        masks = np.broadcast_to(visible.any(axis=2, keepdims=True), visible.shape)
        return masks.copy(), np.linspace(0.5, 0.9, len(visible), dtype=np.float32)

    def _pass(self, seconds: float) -> None:
        if self.clock is not None:
            self.clock.now += seconds


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def picture(value: int = 0) -> Any:
    return np.full((*SIZE, 3), value, np.uint8)


def mask(left: int, width: int = 6) -> Any:
    found = np.zeros(SIZE, bool)
    found[4:10, max(left, 0) : left + width] = True
    return found


def rows(*rows: int) -> Any:
    found = np.zeros(SIZE, bool)
    found[list(rows)] = True
    return found


def opened(networks: Any, clock: Any = None, **options: Any) -> Stream:
    chosen = StreamOptions(every=1, lookahead=0, gate=None, steps=(1,), **options)
    return Stream(SinglePictures(networks), chosen, clock or Clock())


def test_each_frame_has_a_result_of_its_own_picture_and_masks() -> None:
    networks = Networks()
    frames = ((picture(i), {1: mask(3 + i), 2: mask(20)}, None, float(i)) for i in range(5))
    results = list(opened(networks).over(frames))
    assert [r.number for r in results] == networks.read == list(range(5))
    assert networks.asked == [2] * 5
    for result in results:
        assert {o: found.status for o, found in result.objects.items()} == {1: "fresh", 2: "fresh"}
        assert (result.objects[1].mask == rows(*range(4, 10))).all()
        assert [found.iou for found in result.objects.values()] == [np.float32(0.5), np.float32(0.9)]
        assert result.steps == 1


def test_an_object_that_is_not_seen_keeps_its_mask_until_it_is_forgotten_unless_it_left() -> None:
    stream = opened(Networks(), forget=2.0)
    given = [{1: mask(14), 2: mask(-2)}] * 2 + [{}] * 4
    results = [r for i, masks in enumerate(given) for r in stream.step(picture(), masks, None, float(i))]
    assert [r.objects[1].status for r in results[:4]] == ["fresh", "fresh", "lost", "lost"]
    assert [r.objects[1].hidden for r in results[:4]] == [0, 0, 1, 2]
    assert [r.objects[1].age for r in results[:4]] == [0.0, 0.0, 1.0, 2.0]
    assert (results[3].objects[1].mask == rows(*range(4, 10))).all()
    assert not results[3].objects[2].mask.any()
    assert [sorted(r.ends) for r in results] == [[], [], [], [], [1, 2], []]
    assert [r.births for r in results] == [(1, 2), (), (), (), (), ()]
    assert results[4].objects == {}
    assert [r.steps for r in results] == [1, 1, 0, 0, 0, 0]


def test_no_network_runs_where_nothing_is_seen() -> None:
    networks = Networks()
    assert (
        len(list(opened(networks).over((picture(), {1: np.zeros(SIZE, bool)}, None, float(i)) for i in range(3)))) == 3
    )
    assert networks.read == []


def test_what_came_while_the_networks_ran_is_skipped() -> None:
    networks = Networks()
    stream = opened(networks)
    for i in range(5):
        assert stream.push(picture(i), {1: mask(3)}, None, float(i))
    (result,) = stream.poll()
    assert (result.number, result.skipped, networks.read) == (4, 4, [4])
    assert stream.poll() == stream.flush() == ()


def test_the_time_to_read_a_picture_counts_against_the_deadline_but_not_for_each_object() -> None:
    clock = Clock()
    networks = Networks(clock, reading=1.0, each=0.1)
    stream = opened(networks, clock, deadline=1.6, forget=100.0)
    turns, slowest = [], 0.0
    for i in range(12):
        begin = clock.now
        (result,) = stream.step(picture(i), {name: mask(14) for name in "abcdefgh"}, None, float(i))
        turns.append([name for name, found in result.objects.items() if found.status == "fresh"])
        slowest = max(slowest, clock.now - begin)
        assert all(f.status == "fresh" or (f.status == "stale" and f.mask.any()) for f in result.objects.values())
    assert slowest <= 1.6 + 1e-9
    assert {len(turn) for turn in turns} == {5}
    drawn = [sum(name in turn for turn in turns) for name in "abcdefgh"]
    assert max(drawn) - min(drawn) <= 1  # in turns


def test_at_least_one_object_is_drawn_where_reading_takes_longer_than_the_deadline() -> None:
    clock = Clock()
    stream = opened(Networks(clock, reading=1.0, each=0.1), clock, deadline=0.5, forget=100.0)
    for i in range(6):
        (result,) = stream.step(picture(i), {"a": mask(3), "b": mask(14)}, None, float(i))
        assert sorted(found.status for found in result.objects.values()) == ["fresh", "stale"]
        assert result.objects["ab"[i % 2]].status == "fresh"


def test_pictures_that_are_pushed_may_be_overwritten() -> None:
    networks = Networks()
    stream, shown, seen = opened(networks), picture(7), mask(3)
    stream.push(shown, {1: seen}, None, 0.0)
    shown[:], seen[:] = 9, False
    (result,) = stream.poll()
    assert networks.read == [7]
    assert result.objects[1].mask.any()


@pytest.mark.parametrize(
    ("frame", "field", "message"),
    [
        ((None, {1: mask(3)}, None, 1.0), "rgb", "frame 1 has no picture, in which .* look for objects; give it"),
        ((picture(), {1: mask(3)}, np.ones(SIZE), 1.0), "depth", "frame 1 has depth, which .* do not use; omit it"),
        ((picture(), {1: mask(3)}, None, 0.0), "stamp", "stamp 0 follows 0"),
        ((picture()[:8], {1: mask(3)}, None, 1.0), "rgb", "the frame is 8x32, the stream 16x32"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused_and_left_out(frame: Any, field: str, message: str) -> None:
    stream = opened(Networks())
    stream.step(picture(), {1: mask(3)}, None, 0.0)
    with pytest.raises(InputError, match=message) as refused:
        stream.push(*frame)
    assert refused.value.field == field
    assert [r.number for r in stream.step(picture(), {1: mask(3)}, None, 2.0)] == [1]
