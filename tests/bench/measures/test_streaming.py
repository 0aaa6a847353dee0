"""Streams that are played at a rate: what is answered, dropped and late, on a clock that the test moves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.cli.conftest import issue

from amodal.bench.measures.streaming import Played, measure_stream
from amodal.bench.running.clips import Execution
from amodal.bench.running.played import Player, SimulatedClock, StubWindow
from amodal.runtime.errors import InputError

ONE = Execution(threads=1)
SMALL: dict[str, Any] = {"rate": 10.0, "seconds": 10.0, "size": (32, 64)}


def play(bundle: str | Path = "default", **options: Any) -> dict[str, Any]:
    """A stream in which only the stub takes time."""
    return measure_stream(bundle, ONE, Played(**SMALL | options), timer=lambda: 0.0)


def simulated(rate: float, frames: int, window: float, every: int, lookahead: int, length: int) -> list[float]:
    """Ages of results by hand: when a window begins it takes all that has come, and of these the newest `length`."""
    ages, done, free = [], 0, 0.0
    for number in range(frames):
        come = number / rate
        if free > come + 1 / rate - 1e-9:  # the worker is busy until after the next frame
            continue
        begin = max(come, free)
        if number + 1 - lookahead - max(done, number + 1 - length) < every:
            continue
        free = begin + window
        ages += [free - n / rate for n in range(max(done, number + 1 - length), number + 1 - lookahead)]
        done = number + 1 - lookahead
    return ages


@pytest.mark.parametrize(("stub", "every", "lookahead"), [(0.05, 2, 2), (0.05, 1, 0), (0.25, 2, 1), (1.33, 2, 2)])
def test_ages_and_drops_are_those_of_a_simulation_by_hand(stub: float, every: int, lookahead: int) -> None:
    found = play(stub=stub, every=every, lookahead=lookahead)
    ages = simulated(10.0, 100, stub, every, lookahead, 8)
    frames = found["frames"]
    assert frames["answered"] == len(ages)
    assert frames["pushed"] == 100 == frames["answered"] + frames["dropped"] + frames["waiting at the end"]
    assert found["age_s"]["p50"] == pytest.approx(np.percentile(ages, 50))
    assert found["age_s"]["p99"] == pytest.approx(np.percentile(ages, 99))
    assert found["age_s"]["max"] == pytest.approx(max(ages))


def test_a_model_that_is_too_slow_drops_frames_and_its_results_do_not_age() -> None:
    short, long = (play(stub=1.5, seconds=seconds) for seconds in (20.0, 80.0))
    assert short["frames"]["dropped"] > 0
    assert long["age_s"]["max"] == pytest.approx(short["age_s"]["max"])


def test_windows_after_their_deadline_are_counted() -> None:
    assert play(stub=0.05, deadline=0.1)["windows"]["deadline_misses"] == 0
    late = play(stub=0.2, deadline=0.1)["windows"]
    # The first window shows how long one takes; from then on there is no room, and what is known is kept.
    assert 0 < late["deadline_misses"] <= late["run"]
    assert play(stub=0.2)["windows"]["deadline_misses"] is None


def test_steps_become_fewer_before_frames_are_dropped() -> None:
    assert play(stub=0.02, preset="auto")["windows"]["steps"].keys() >= {"25"}
    slow = play(stub=0.15, preset="auto")
    assert slow["windows"]["steps"].keys() == {"6"}
    assert slow["frames"]["dropped"] == 0


def test_several_objects_are_drawn_in_every_answered_frame() -> None:
    found = play(stub=0.01, objects=3)
    assert found["objects"] == {"fresh": 3 * found["frames"]["answered"]}


def test_the_player_goes_forwards_and_backwards() -> None:
    player = Player(2, (32, 64))
    for number, same in [(0, 30), (14, 16), (1, 29), (7, 53)]:
        (_, ours, depth), (_, theirs, other) = player[number], player[same]
        assert ours.keys() == {1, 2}
        assert all(np.array_equal(ours[key], theirs[key]) and ours[key].any() for key in ours)
        assert np.array_equal(depth, other)
    assert not np.array_equal(player[0][1][1], player[15][1][1])


def test_the_clock_runs_only_while_something_computes() -> None:
    times = iter([5.0, 5.5, 6.0])
    clock = SimulatedClock(lambda: next(times))
    clock.wait_until(2.0)
    clock.wait_until(1.0)
    assert clock() == 2.0
    with clock.computing():
        assert clock() == 2.5
        clock.move_on(10.0)
    assert clock() == 13.0


def test_the_stub_draws_what_is_seen_of_the_last_frames() -> None:
    waits: list[float] = []
    modal = np.where(np.random.default_rng(0).random((6, 4, 5)) < 0.5, -1, 1).astype(np.float32)
    drawn = StubWindow(4, 0.06, waits.append)({7: modal}, modal, range(6), 10)
    assert waits == [pytest.approx(0.1)]
    assert drawn[7].shape == (4, 4, 5, 3)
    assert np.array_equal(drawn[7] == 255, np.broadcast_to((modal[2:] > 0)[..., None], (4, 4, 5, 3)))


def test_the_networks_of_a_bundle_are_played_in_real_time() -> None:
    found = measure_stream("default", ONE, Played(rate=20.0, seconds=1.0, size=(32, 64), real_time=True))
    frames = found["frames"]
    assert frames["pushed"] == 20
    assert frames["answered"] + frames["dropped"] + frames["waiting at the end"] == 20
    assert found["windows"]["own_s"] is None
    assert found["executed"]["backend"] == "onnxruntime"


def test_an_error_of_the_thread_that_computes_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> Any:
        raise MemoryError("no room")

    monkeypatch.setattr(StubWindow, "__call__", fail)
    with pytest.raises(MemoryError, match="no room"):
        measure_stream("default", ONE, Played(rate=50.0, seconds=1.0, size=(32, 64), stub=0.01, real_time=True))


@pytest.mark.parametrize(
    ("options", "said"), [({"seconds": 0.2}, "expected at least 8"), ({"every": 9}, "expected 1 to 8")]
)
def test_what_cannot_be_played_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        play(stub=0.01, **options)


def test_a_family_that_draws_from_pictures_is_played_pictures() -> None:
    found = measure_stream("default-sameo", ONE, Played(rate=30.0, seconds=0.5, size=(32, 64), objects=2))
    frames = found["frames"]
    assert frames["pushed"] == 15 == frames["answered"] + frames["dropped"] + frames["waiting at the end"]
    assert found["windows"]["steps"] == {"1": found["windows"]["run"]}
    assert found["objects"] == {"fresh": 2 * frames["answered"]}


def test_what_a_family_does_not_have_is_refused() -> None:
    with pytest.raises(InputError, match="`stub` takes the place of Diffusion-VAS's networks"):
        play("default-sameo", stub=0.01)
    with pytest.raises(InputError, match="`preset`: a SAMEO bundle draws each frame by itself"):
        measure_stream("default-sameo", ONE, Played(seconds=0.5, size=(32, 64), preset="fast"))


@pytest.mark.slow
def test_the_resident_set_stays_within_5_percent() -> None:
    memory = play(stub=0.05, rate=30.0, seconds=400.0)["memory"]["host"]
    assert abs(memory["growth"]) <= 0.05


def test_the_command_prints_a_table_and_json() -> None:
    small = ("bench", "stream", "default", "--stub-ms", "20", "--seconds", "1", "--frame-size", "32x64")
    outcome = issue(*small, "--deadline", "0.1")
    assert outcome.code == 0
    assert "windows after the deadline  0" in outcome.out
    found = json.loads(issue(*small, "--json").out)
    assert found["frames"]["pushed"] == 30
    assert found["settings"]["stub"] == 0.02
