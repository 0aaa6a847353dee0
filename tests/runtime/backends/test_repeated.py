"""A run that is recorded gives what the run gives, and is recorded anew where its addresses no longer hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from amodal.runtime.backends.repeated import Repeated


class Doubling:
    """Writes twice what it reads, through the stand-in's queue; counts how often the host queued it."""

    def __init__(self, device: Any) -> None:
        self.device, self.queued = device, 0

    def __call__(self, arrays: Any, results: Any = None) -> dict[str, Any]:
        self.queued += 1
        results = results or {"y": self.device.empty(arrays["x"].shape, np.float32)}

        def run() -> None:
            results["y"][:] = arrays["x"] + arrays["x"]

        self.device.queue(run)
        return dict(results)


@pytest.fixture
def doubling(device: Any) -> Doubling:
    return Doubling(device)


def test_what_is_launched_is_what_would_be_run(device: Any, doubling: Doubling) -> None:
    x = device.asarray(np.arange(4, dtype=np.float32))
    repeated = Repeated(device, doubling, {"x": x}, graph=True)
    kept = []
    with device.cuda.Stream():
        for k in range(5):
            kept.append(repeated({"x": x + device.asarray(np.float32(k))}, "here")["y"])
    for k, found in enumerate(kept):  # each its own: the next run has not written over it
        np.testing.assert_array_equal(device.asnumpy(found), 2 * (np.arange(4) + k))
    assert doubling.queued == 2  # once as it is, once to be recorded
    assert len(device.launches) == 4
    assert repeated.graphs == 1


def test_where_the_scratch_has_moved_the_run_is_recorded_again(device: Any, doubling: Doubling) -> None:
    x = device.asarray(np.ones(2, np.float32))
    repeated = Repeated(device, doubling, {"x": x}, graph=True)
    with device.cuda.Stream():
        for place in ("here", "here", "here", "there", "there", "there"):
            np.testing.assert_array_equal(device.asnumpy(repeated({"x": x}, place)["y"]), [2, 2])
    assert repeated.graphs == 2
    assert doubling.queued == 4


@pytest.mark.parametrize("graph", [True, False])
def test_what_cannot_be_recorded_is_run(
    device: Any, doubling: Doubling, graph: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "refusing", True)
    x = device.asarray(np.ones(2, np.float32))
    repeated = Repeated(device, doubling, {"x": x}, graph=graph)
    with device.cuda.Stream():
        for _ in range(4):
            np.testing.assert_array_equal(device.asnumpy(repeated({"x": x}, "here")["y"]), [2, 2])
    assert (doubling.queued, repeated.graphs, device.launches) == (4, 0, [])


def test_a_run_that_fails_while_it_is_recorded_leaves_no_recording_of_a_part(device: Any, doubling: Doubling) -> None:
    def run(arrays: Any, results: Any = None) -> dict[str, Any]:
        if doubling.queued == 1:  # the second is the one that is recorded
            doubling.queued += 1
            device.queue(lambda: results["y"].fill(-1))
            raise RuntimeError("the rest cannot be queued")
        return doubling(arrays, results)

    x = device.asarray(np.ones(2, np.float32))
    repeated = Repeated(device, run, {"x": x}, graph=True)
    with device.cuda.Stream():
        for _ in range(4):
            np.testing.assert_array_equal(device.asnumpy(repeated({"x": x}, "here")["y"]), [2, 2])
    assert (repeated.graphs, device.launches) == (0, [])


@pytest.mark.parametrize("what", ["an allocation", "a copy from the host", "a copy to the host", "waiting"])
def test_what_must_not_happen_while_recording_keeps_a_run_from_being_recorded(
    device: Any, doubling: Doubling, what: str
) -> None:
    x = device.asarray(np.ones(2, np.float32))
    forbidden = {
        "an allocation": lambda: device.empty((2,), np.float32),
        "a copy from the host": lambda: device.asarray(np.ones(2)),
        "a copy to the host": lambda: device.asnumpy(x),
        "waiting": lambda: device.cuda.get_current_stream().synchronize(),
    }

    def run(arrays: Any, results: Any = None) -> dict[str, Any]:
        forbidden[what]()
        return doubling(arrays, results)

    repeated = Repeated(device, run, {"x": x}, graph=True)
    with device.cuda.Stream():
        for _ in range(3):
            np.testing.assert_array_equal(device.asnumpy(repeated({"x": x}, "here")["y"]), [2, 2])
    assert repeated.graphs == 0
