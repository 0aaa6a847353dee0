"""Streams over a stand-in for the networks and a simulated clock."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from amodal.runtime.clips.gate import Gate
from amodal.runtime.clips.pace import Pace
from amodal.runtime.clips.stream import Stream
from amodal.runtime.clips.stream_blending import BlendedWindows
from amodal.runtime.clips.stream_options import StreamOptions
from amodal.runtime.errors import InputError

T, SIZE = 8, (16, 32)
FAR = np.zeros(SIZE, np.float32)
FAR[0, 0] = 1  # a range, away from the objects
HIDDEN = FAR.copy()
HIDDEN[:, 20:] = 1  # something near


class Clock:
    """Seconds that pass only when told."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


class Networks:
    """Takes its time, and draws a square of the object's id at the frame's number; keeps what it was asked."""

    def __init__(self, clock=None, seconds=0.0, per_step=0.0, during=None):
        self.clock, self.seconds, self.per_step, self.during = clock, seconds, per_step, during
        self.calls = []

    def __call__(self, objects, depth, numbers, steps):
        self.calls.append((list(objects), numbers, steps, depth))
        assert all(modal.shape == (len(numbers), *SIZE) for modal in objects.values())
        assert depth.shape == (len(numbers), *SIZE)
        assert len(numbers) <= T
        took = self.seconds + self.per_step * steps * len(objects)
        if self.during:
            self.during(took)
        if self.clock:
            self.clock.now += took
        return {
            o: np.full((len(numbers), *SIZE, 3), 255, np.uint8) * (modal > -2)[..., None]
            for o, modal in objects.items()
        }


def mask(left, width=6, top=4):
    found = np.zeros(SIZE, bool)
    found[top : top + 6, max(left, 0) : max(left + width, 0)] = True
    return found


def opened(networks, clock=None, find_depth=None, **options):
    chosen = StreamOptions(**options)
    return Stream(BlendedWindows(networks, T, SIZE, chosen, find_depth), chosen, clock or Clock())


def beside(stream, count, start=0.0, period=1.0, depth=HIDDEN, masks=None):
    """Results of frames in which object 1 stands beside something near."""
    given = {1: mask(14)} if masks is None else masks
    return [r for i in range(count) for r in stream.step(None, given, depth, start + i * period)]


# What comes out, and when


def test_every_frame_gets_one_result_in_order():
    for every, lookahead in ((1, 0), (2, 2), (3, 1), (8, 0), (2, 6)):
        networks = Networks()
        stream = opened(networks, every=every, lookahead=lookahead)
        frames = ((None, {1: mask(14)}, HIDDEN, float(i)) for i in range(21))
        results = list(stream.over(frames))
        assert [r.number for r in results] == list(range(21))
        assert [r.stamp for r in results] == [float(i) for i in range(21)]
        assert all(r.skipped == 0 for r in results)
        for _, numbers, _, _ in networks.calls[:-1]:
            assert numbers.stop == networks.calls[0][1].stop or (numbers.stop - networks.calls[0][1].stop) % every == 0
        assert all(len(numbers) == min(numbers.stop, T) for _, numbers, _, _ in networks.calls)


def test_a_result_lags_by_the_lookahead():
    stream = opened(Networks(), every=2, lookahead=3)
    came = {}
    for i in range(20):
        for result in stream.step(None, {1: mask(14)}, HIDDEN, float(i)):
            came[result.number] = i
    assert all(3 <= at - number <= 4 for number, at in came.items())


def test_push_says_when_a_window_is_due_and_poll_runs_it_once():
    networks = Networks()
    stream = opened(networks, every=2, lookahead=1)
    due = [stream.push(None, {1: mask(14)}, HIDDEN, float(i)) for i in range(4)]
    assert due == [False, False, True, True]
    assert networks.calls == []
    assert [r.number for r in stream.poll()] == [0, 1, 2]
    assert stream.poll() == ()
    assert not stream.push(None, {1: mask(14)}, HIDDEN, 4.0)
    assert len(networks.calls) == 1


@pytest.mark.parametrize("rate", [0.2, 0.9, 1.0, 3.0, 7.0, 50.0, 1000.0])
@pytest.mark.parametrize("every", [1, 2, 4])
def test_the_last_result_is_late_by_at_most_a_window_and_a_frame(rate, every):
    clock, cost, period = Clock(), 1.0, 1 / rate
    stream, pushed = None, 0

    def arrive(until):
        nonlocal pushed
        while pushed * period <= until:
            stream.push(None, {1: mask(14)}, HIDDEN, pushed * period)
            pushed += 1

    # Frames come while the networks run, as from another thread.
    networks = Networks(clock, cost, during=lambda took: arrive(clock.now + took))
    stream = opened(networks, clock, every=every, lookahead=0, forget=1000.0)
    late, numbers, lost = [], [], 0
    while clock.now < 60 or len(late) < 20:
        results = stream.poll()
        if not results:
            clock.now = max(clock.now, pushed * period)
            arrive(clock.now)
            continue
        late.append(clock.now - results[-1].stamp)
        numbers += [r.number for r in results]
        lost += sum(r.skipped for r in results)
    assert max(late) <= cost + period + 1e-9
    assert numbers == sorted(set(numbers))
    assert lost == numbers[-1] + 1 - len(numbers)
    assert (lost > 0) == (rate > T / cost + 1e-9 and True) or rate <= T  # only what no window reaches is skipped


def test_pictures_of_several_windows_are_blended_by_their_place():
    class Alternating(Networks):
        def __call__(self, objects, depth, numbers, steps):
            super().__call__(objects, depth, numbers, steps)
            value = 255 if len(self.calls) % 2 else 0
            return {o: np.full((*modal.shape, 3), value, np.uint8) for o, modal in objects.items()}

    stream = opened(Alternating(), every=2, lookahead=2, gate=None)
    results = {r.number: r.objects[1].mask for r in beside(stream, 24)}
    # Frame n is at place 7 or 6 of one window (weight 1 or 4), and at 5 or 4 of the next (weight 9 or 16).
    for number in range(8, 20):
        window = number // 2  # that gives the result, from 0 in the order of windows
        later_is_white = window % 2 == 0
        share = {0: (9, 10), 1: (16, 20)}[(number + 1) % 2]  # weight of the later window, and of both
        white = share[0] / share[1] if later_is_white else 1 - share[0] / share[1]
        expected = 3 * np.rint(255 * white) > 600
        assert (results[number] & ~mask(14)).any() == expected, number


# What is said of objects


def test_what_nothing_hides_is_not_drawn():
    networks = Networks()
    results = beside(opened(networks), 12, depth=FAR)
    assert networks.calls == []
    assert {r.objects[1].status for r in results} == {"visible"}
    assert {r.steps for r in results} == {0}
    assert all((r.objects[1].mask == mask(14)).all() and r.objects[1].age == 0 for r in results)


def test_without_a_gate_everything_that_is_seen_is_drawn():
    results = beside(opened(Networks(), gate=None), 12, depth=FAR)
    assert {r.objects[1].status for r in results} == {"fresh"}


def test_an_object_that_vanishes_is_drawn_while_a_window_reaches_it_then_lost_then_forgotten():
    stream = opened(Networks(), every=1, lookahead=0, forget=12.0)
    results = beside(stream, 4) + beside(stream, 20, start=4.0, masks={})
    states = [r.objects[1].status if 1 in r.objects else None for r in results]
    assert states == ["fresh"] * 11 + ["lost"] * 5 + [None] * 8
    assert [r.objects[1].hidden for r in results[:16]] == [0] * 4 + list(range(1, 13))
    assert [r.objects[1].age for r in results[:16]] == [0.0] * 11 + [1.0, 2.0, 3.0, 4.0, 5.0]
    assert results[15].objects[1].mask.all()  # the last that was known
    assert [r.number for r in results if r.ends] == [16]
    assert results[16].ends == (1,)


def test_an_object_that_left_the_picture_has_an_empty_mask():
    stream = opened(Networks(), every=1, lookahead=0)
    results = beside(stream, 3, masks={1: mask(-2)}, depth=FAR, period=0.1)
    results += beside(stream, 12, start=1.0, masks={}, depth=FAR, period=0.1)
    assert [r.objects[1].status for r in results] == ["visible"] * 3 + ["lost"] * 12
    assert not any(r.objects[1].mask.any() for r in results[3:])


def test_births_and_ends_are_told_once_and_a_late_object_has_no_past():
    stream = opened(Networks(), forget=4.0)
    given = [{1: mask(14)}] * 5 + [{1: mask(14), "b": mask(2, top=8)}] * 3 + [{"b": mask(2, top=8)}] * 12
    results = [r for i, masks in enumerate(given) for r in stream.step(None, masks, HIDDEN, float(i))]
    assert {r.number: r.births for r in results if r.births} == {0: (1,), 5: ("b",)}
    assert {o for r in results for o in r.ends} == {1}
    assert sum(len(r.ends) for r in results) == 1
    assert all(("b" in r.objects) == (r.number >= 5) for r in results)


def test_an_object_that_returns_after_it_was_forgotten_is_born_again():
    stream = opened(Networks(), every=1, lookahead=0, forget=2.0)
    results = beside(stream, 2) + beside(stream, 5, start=2.0, masks={}) + beside(stream, 1, start=7.0)
    assert [r.number for r in results if r.births] == [0, 7]
    assert [r.number for r in results if r.ends] == [4]


def test_a_gap_in_time_begins_anew():
    networks = Networks()
    stream = opened(networks, every=2, lookahead=2, forget=3.0)
    results = beside(stream, 9) + beside(stream, 6, start=30.0, masks={2: mask(14)})
    after = next(r for r in results if r.stamp >= 30)
    assert after.number == 9
    assert (after.reset, after.births, after.ends) == (True, (2,), (1,))
    assert after.skipped == 9 - results[results.index(after) - 1].number - 1 > 0
    assert [r.reset for r in results].count(True) == 1
    assert all(not (numbers.start < 9 < numbers.stop) for _, numbers, _, _ in networks.calls)


def test_the_range_of_depth_is_the_median_of_the_frames():
    networks = Networks()
    stream = opened(networks, gate=None)
    spot = HIDDEN.copy()
    spot[0, 0] = 4
    for i in range(20):
        stream.step(None, {1: mask(14)}, spot if i in (9, 10) else HIDDEN, float(i))
    for _, _, _, depth in networks.calls:
        assert set(np.unique(depth)) == {-1.0, 1.0}
    assert any(9 in numbers for _, numbers, _, _ in networks.calls)


# Too little time


def test_under_a_deadline_those_that_waited_longest_go_first_and_the_others_are_stale():
    clock = Clock()
    networks = Networks(clock, per_step=0.05)
    masks = {name: mask(14) for name in "abcde"}
    stream = opened(networks, clock, every=1, lookahead=0, deadline=0.7, forget=100.0, steps=(6,))
    begin = None
    turns, slowest = [], 0.0
    for i in range(30):
        begin, before = clock.now, len(networks.calls)
        (result,) = stream.step(None, masks, HIDDEN, float(i))
        turns.append([name for names, _, _, _ in networks.calls[before:] for name in names])
        slowest = max(slowest, clock.now - begin)
        for name, found in result.objects.items():
            drawn = name in turns[-1]
            assert (found.status == "fresh") == drawn
            assert (found.age == 0) == drawn or i < 5
    assert slowest <= 0.7
    assert all(1 <= len(turn) <= 2 for turn in turns)
    order = [name for turn in turns for name in turn]
    assert all(order[i] == order[i - 5] for i in range(5, len(order)))  # in turns


def test_a_stale_mask_is_the_last_known_and_what_is_seen_now():
    clock = Clock()
    networks = Networks(clock, seconds=1.0)
    masks = {"a": mask(14), "b": mask(14)}
    stream = opened(networks, clock, every=1, lookahead=0, deadline=0.1, forget=100.0)
    results = [stream.step(None, masks, HIDDEN, float(i))[0] for i in range(3)]
    assert [[r.objects[o].status for o in "ab"] for r in results] == [
        ["fresh", "stale"],
        ["stale", "fresh"],
        ["fresh", "stale"],
    ]
    assert (results[0].objects["b"].mask == mask(14)).all()  # nothing was known
    assert results[1].objects["a"].mask.all()
    assert results[1].objects["a"].age == 1.0


def test_steps_become_fewer_before_frames_do():
    clock = Clock()
    networks = Networks(clock, per_step=0.01)
    stream = opened(networks, clock, every=2, lookahead=2, steps=(6, 10, 25), forget=100.0)

    stamp = 0.0

    def steps_at(period):
        nonlocal stamp
        del networks.calls[:]
        results = beside(stream, 40, start=stamp + period, period=period)
        stamp = results[-1].stamp + 2 * period
        assert all(r.skipped == 0 for r in results[4:])
        return networks.calls[-1][2]

    assert steps_at(1.0) == 25
    assert steps_at(0.1) == 10
    assert steps_at(0.04) == 6
    assert steps_at(1.0) == 25


def test_a_slow_moment_is_not_remembered_for_ever():
    pace = Pace((6, 10, 25))
    assert pace.steps(1, 1.0) == 6
    pace.note(0.06, 1, 6)
    assert pace.steps(1, 1.0) == 25
    pace.note(4.0, 1, 25)
    assert pace.steps(1, 1.0) < 25
    for _ in range(8):
        pace.note(0.06, 1, 6)
    assert pace.steps(1, 1.0) == 25


# Threads


def test_a_thread_may_wait_for_windows_while_another_pushes():
    stream = opened(Networks(), every=2, lookahead=0)
    found = []

    def work():
        while not stream.closed:
            found.extend(stream.poll(wait=30))

    worker = threading.Thread(target=work)
    worker.start()
    for i in range(40):
        stream.push(None, {1: mask(14)}, HIDDEN, float(i))
    while not found or found[-1].number < 39:
        worker.join(0.01)
    stream.close()
    worker.join(30)
    assert not worker.is_alive()
    assert [r.number + 0 for r in found] == sorted({r.number for r in found})


def test_an_error_of_the_networks_leaves_the_stream_usable():
    class Failing(Networks):
        def __call__(self, objects, depth, numbers, steps):
            super().__call__(objects, depth, numbers, steps)
            if len(self.calls) == 1:
                raise RuntimeError("broken")
            return super().__call__(objects, depth, numbers, steps)

    stream = opened(Failing(), every=1, lookahead=0)
    with pytest.raises(RuntimeError, match="broken"):
        stream.step(None, {1: mask(14)}, HIDDEN, 0.0)
    assert [r.number for r in stream.step(None, {1: mask(14)}, HIDDEN, 1.0)] == [0, 1]


def test_what_is_pushed_may_be_overwritten():
    stream = opened(Networks(), every=4, lookahead=0)
    seen, depth = mask(14), FAR.copy()
    for i in range(3):
        stream.push(None, {1: seen}, depth, float(i))
    seen[:], depth[:] = False, 0
    results = stream.step(None, {1: mask(14)}, FAR, 3.0)
    assert all((r.objects[1].mask == mask(14)).all() for r in results)
    assert len(results) == 4


def test_depth_is_computed_once_for_each_frame():
    asked = []

    def find(picture):
        asked.append(int(picture[0, 0, 0, 0]))
        return HIDDEN[None]

    stream = opened(Networks(), find_depth=find, every=1, lookahead=0)
    for i in range(12):
        stream.step(np.full((*SIZE, 3), i, np.uint8), {1: mask(14)}, None, float(i))
    assert asked == list(range(12))


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every": 9}, "every 9 frames: expected 1 to 8"),
        ({"every": 0}, "every 0 frames"),
        ({"every": 4, "lookahead": 5}, "lookahead 5: expected 0 to 4"),
        ({"lookahead": -1}, "lookahead -1"),
        ({"deadline": 0.0}, "deadline 0"),
        ({"forget": -1.0}, "forget -1"),
        ({"depth_kind": "near"}, "near"),
        ({"every": 2.5}, "every 2.5: expected a whole number"),
        ({"gate": "auto"}, "gate 'auto': expected `amodal.Gate`, or None"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        opened(Networks(), **options)


PICTURE = np.zeros((*SIZE, 3), np.uint8)


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        ((None, {1: mask(14)}, HIDDEN, 0.5), "stamp 0.5 follows 1; expected stamps that grow"),
        ((None, {1: mask(14)}, HIDDEN, 1.0), "stamp 1 follows 1"),
        ((None, {1: mask(14)}, HIDDEN, float("nan")), "not a time"),
        ((np.zeros((8, 32, 3), np.uint8), {1: mask(14)}, HIDDEN, 2.0), "the frame is 8x32, the stream 16x32"),
        ((None, {1: mask(14), 2: np.ones((4, 4), bool)}, HIDDEN, 2.0), "object 2 is 4x4, the stream 16x32"),
        ((None, {1: np.ones((1, *SIZE), bool)}, HIDDEN, 2.0), r"object 1 has a mask \[1, 16, 32\]"),
        ((np.zeros(SIZE, np.uint8), {1: mask(14)}, HIDDEN, 2.0), r"expected uint8 \[h, w, 3\]"),
        ((PICTURE, {1: mask(14)}, None, 2.0), "depth stops at frame 1"),
        ((None, {1: mask(14)}, HIDDEN[None], 2.0), r"expected numbers \[h, w\]"),
        ((None, {1: mask(14)}, np.full(SIZE, np.nan, np.float32), 2.0), "depth"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused_and_left_out(frame, message):
    stream = opened(Networks(), every=1, lookahead=0)
    stream.step(None, {1: mask(14)}, HIDDEN, 1.0)
    with pytest.raises(InputError, match=message):
        stream.push(*frame)
    assert [r.number for r in stream.step(None, {1: mask(14)}, HIDDEN, 3.0)] == [1]


def test_a_stream_without_any_depth_is_refused():
    stream = opened(Networks())
    with pytest.raises(InputError, match="no depth component"):
        stream.push(PICTURE, {1: mask(14)})
    stream = opened(Networks(), find_depth=lambda picture: HIDDEN[None])
    with pytest.raises(InputError, match="neither a picture nor depth"):
        stream.push(None, {1: mask(14)})
    stream.push(PICTURE, {1: mask(14)}, None, 0.0)
    with pytest.raises(InputError, match="depth begins in the middle"):
        stream.push(PICTURE, {1: mask(14)}, HIDDEN, 1.0)


def test_frames_that_are_all_gaps_are_warned_of_once():
    stream = opened(Networks())
    assert beside(stream, 2, period=4.0) == []
    with pytest.warns(UserWarning, match="frames come 4 s apart, and the history begins anew after 3 s") as caught:
        assert beside(stream, 4, start=8.0, period=4.0) == []
    assert len(caught) == 1


def test_a_closed_stream_is_refused():
    with opened(Networks()) as stream:
        pass
    for call in (lambda: stream.push(None, {1: mask(14)}, HIDDEN), stream.flush):
        with pytest.raises(InputError, match="the stream is closed"):
            call()
    assert stream.poll(wait=10) == ()


def test_nothing_to_flush_gives_nothing():
    stream = opened(Networks())
    assert stream.flush() == ()
    assert list(stream.over([])) == []


def test_dilated_windows_see_twice_as_many_frames_once_there_are_as_many():
    asked = []

    def run(objects, depth, numbers, steps):
        asked.append(numbers)
        assert all(len(modal) == len(depth) == len(numbers) for modal in objects.values())
        count = min(len(numbers), T)
        return {o: np.full((count, *SIZE, 3), 255, np.uint8) for o in objects}

    stream = opened(run, windows="dilated")
    frames = ((None, {1: mask(14)}, HIDDEN, float(i)) for i in range(21))
    results = list(stream.over(frames))
    assert [r.number for r in results] == list(range(21))
    assert all(r.objects[1].mask.all() and r.objects[1].status == "fresh" for r in results)
    for numbers in asked:
        wanted = 2 * T if numbers.stop >= 2 * T else min(numbers.stop, T)
        assert len(numbers) == wanted
    assert asked[-1] == range(5, 21)
    with pytest.raises(InputError, match="windows 'shifted' of a stream are unknown; expected newest or dilated"):
        opened(run, windows="shifted")


def test_frames_too_old_for_a_window_have_no_result_though_dilated_windows_see_them():
    def run(objects, depth, numbers, steps):
        return {o: np.full((min(len(numbers), T), *SIZE, 3), 255, np.uint8) for o in objects}

    stream = opened(run, windows="dilated")
    for i in range(20):
        stream.push(None, {1: mask(14)}, HIDDEN, float(i))
    results = stream.poll()
    assert [r.number for r in results] == list(range(12, 18))
    assert results[0].skipped == 12


def test_the_gate_has_its_tolerance():
    slightly = FAR.copy()
    slightly[:, 20:] = 0.05
    for tolerance, status in ((0.02, "fresh"), (0.1, "visible")):
        results = beside(opened(Networks(), gate=Gate(tolerance)), 12, depth=slightly)
        assert {r.objects[1].status for r in results} == {status}
