"""Where results go: the host or the device, new arrays or the caller's, and never what is not finite."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from amodal.runtime.errors import InputError, NonFiniteError
from amodal.runtime.execution.delivery import Delivery
from amodal.runtime.families.diffusion_vas.results import Segmentation
from amodal.runtime.sampling.noise import NoiseStream
from amodal.runtime.sampling.sampler import Finiteness

SHAPE = (2, 4, 6)
WANTED = {"masks": (SHAPE, np.bool_), "frames": ((*SHAPE, 3), np.uint8)}


def drawn(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {"masks": rng.random(SHAPE) > 0.5, "frames": rng.integers(0, 256, (*SHAPE, 3), np.uint8)}


@pytest.fixture(params=["numpy", "device"])
def xp(request: pytest.FixtureRequest, device: Any) -> Any:
    """numpy, or the stand-in for CuPy."""
    return np if request.param == "numpy" else device


def backend_on(xp: Any) -> Any:
    return SimpleNamespace(xp=xp, to_host=np.asarray if xp is np else xp.asnumpy)


def finite_on(xp: Any) -> Finiteness:
    """All that was noted was finite."""
    found = Finiteness(xp)
    found.note(xp.asarray(np.ones(3, np.float32)), NonFiniteError(0, 1.0))
    return found


def there(results: dict[str, Any], xp: Any) -> dict[str, Any]:
    return {name: xp.asarray(array) for name, array in results.items()}


def plain(array: Any, xp: Any) -> Any:
    return array if isinstance(array, np.ndarray) and xp is np else xp.asnumpy(array)


def test_results_arrive_on_the_host_as_they_were_drawn(xp: Any) -> None:
    want = [drawn(0), drawn(1)]
    got = Delivery(backend_on(xp), "host", None)([there(one, xp) for one in want], finite_on(xp))
    assert [list(one) for one in got] == [list(one) for one in want]
    for one, expected in zip(got, want, strict=True):
        for name, array in one.items():
            assert type(array) is np.ndarray
            assert array.dtype == expected[name].dtype
            np.testing.assert_array_equal(array, expected[name])


def test_results_stay_on_the_device_without_a_copy(xp: Any) -> None:
    given = there(drawn(), xp)
    (got,) = Delivery(backend_on(xp), "device", None)([given], finite_on(xp))
    assert all(got[name] is given[name] for name in given)


def test_the_host_waits_once_for_all_samples(device: Any) -> None:
    found = [there(drawn(seed), device) for seed in range(3)]
    finite = finite_on(device)
    before, device.waits = device.waits, 0
    got = Delivery(backend_on(device), "host", None)(found, finite)
    assert device.waits == 1
    device.waits = before
    assert len({one["frames"].ctypes.data for one in got}) == 3, "each array has memory of its own"
    assert all(one["frames"].flags.owndata or one["frames"].base is not got[0]["frames"].base for one in got[1:])


def test_buffers_on_the_device_are_finished_when_it_returns(device: Any) -> None:
    """Nobody waits afterwards: what the caller's own library reads there must be the results."""
    device.lazy = True
    buffer, want = device.empty(SHAPE, np.bool_), drawn()
    delivery = Delivery(backend_on(device), "device", {"masks": buffer})
    delivery.expect(WANTED)
    (got,) = delivery([there(want, device)], finite_on(device))
    assert got["masks"] is buffer
    for name, array in got.items():
        np.testing.assert_array_equal(device._plain(array), want[name])


def test_results_go_into_the_buffers_that_are_there_for_them(xp: Any) -> None:
    want, buffer = drawn(), np.zeros(SHAPE, np.bool_)
    delivery = Delivery(backend_on(xp), "device", {"masks": buffer})
    delivery.expect(WANTED)
    given = there(want, xp)
    (got,) = delivery([given], finite_on(xp))
    assert got["masks"] is buffer
    np.testing.assert_array_equal(buffer, want["masks"])
    assert got["frames"] is given["frames"], "what has no buffer stays where it is asked to be"


def test_a_buffer_on_the_device_is_filled_there(device: Any) -> None:
    want, buffer = drawn(), device.asarray(np.zeros((*SHAPE, 3), np.uint8))
    delivery = Delivery(backend_on(device), "host", {"frames": buffer})
    delivery.expect(WANTED)
    (got,) = delivery([there(want, device)], finite_on(device))
    assert got["frames"] is buffer
    np.testing.assert_array_equal(device.asnumpy(buffer), want["frames"])
    assert type(got["masks"]) is np.ndarray


def test_a_view_with_strides_is_filled(xp: Any) -> None:
    want, whole = drawn(), np.zeros((2, 4, 12, 3), np.uint8)
    delivery = Delivery(backend_on(xp), "host", {"frames": whole[:, :, ::2]})
    delivery.expect(WANTED)
    delivery([there(want, xp)], finite_on(xp))
    np.testing.assert_array_equal(whole[:, :, ::2], want["frames"])
    assert not whole[:, :, 1::2].any()


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ({"depth": np.zeros(SHAPE, np.uint8)}, r"there is no result 'depth'; expected masks, frames\."),
        ({"masks": np.zeros((2, 4, 5), np.bool_)}, r"out: masks is bool \[2, 4, 5\]; .* bool \[2, 4, 6\]\."),
        ({"masks": np.zeros(SHAPE, np.uint8)}, r"out: masks is uint8 \[2, 4, 6\]; .* bool \[2, 4, 6\]\."),
        ({"masks": np.broadcast_to(np.zeros(6, np.bool_), SHAPE)}, "out: masks is read-only"),
        ({"masks": [[False]]}, "out: masks is list; expected an array to write into"),
    ],
)
def test_buffers_that_cannot_take_a_result_are_refused(xp: Any, out: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Delivery(backend_on(xp), "host", out).expect(WANTED)


def test_an_unknown_place_is_refused() -> None:
    with pytest.raises(InputError, match=r"to='disk' is unknown; expected host or device\."):
        Delivery(backend_on(np), "disk", None)  # type: ignore[arg-type]


def test_what_is_not_finite_is_reported_and_no_buffer_touched(device: Any) -> None:
    buffer = np.zeros(SHAPE, np.bool_)
    delivery = Delivery(backend_on(device), "host", {"masks": buffer})
    delivery.expect(WANTED)
    finite = Finiteness(device)
    for step, value in ((0, 1.0), (1, np.nan), (2, np.inf)):
        finite.note(device.asarray(np.array([1, value], np.float32)), NonFiniteError(step, 0.5))
    with pytest.raises(NonFiniteError) as caught:
        delivery([there({**drawn(), "masks": np.ones(SHAPE, np.bool_)}, device)], finite)
    assert caught.value.step == 1, "the first of them"
    assert not buffer.any()


def test_results_that_stay_on_the_device_are_checked_too(device: Any) -> None:
    finite = Finiteness(device)
    finite.note(device.asarray(np.array([np.nan], np.float32)), NonFiniteError(3, 0.5))
    with pytest.raises(NonFiniteError):
        Delivery(backend_on(device), "device", None)([there(drawn(), device)], finite)


def test_samples_are_the_first_and_the_others_in_order() -> None:
    empty: Any = np.zeros(0)
    others = tuple(Segmentation(empty, empty, empty, NoiseStream(seed), 1.0, {}) for seed in (2, 3))
    first = Segmentation(empty, empty, empty, NoiseStream(1), 1.0, {}, others)
    assert first.samples == (first, *others)
    assert others[0].samples == (others[0],)
