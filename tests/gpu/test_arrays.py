"""What CuPy alone must show: streams, recordings, arrays of other libraries; without a GPU, on its stand-in.

A real stream is kept busy, so that whoever does not wait for it reads what was there before.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from amodal.runtime.backends.gpu import Gpu, GpuBackend, find_gpu
from amodal.runtime.backends.repeated import Repeated
from amodal.runtime.diagnosis import gpus
from amodal.runtime.errors import NonFiniteError
from amodal.runtime.execution.delivery import Delivery
from amodal.runtime.sampling.finiteness import Finiteness

from ..places import STAND_IN
from ..stand_ins import forget_stand_ins


@pytest.fixture(params=["stand-in", pytest.param("gpu", marks=pytest.mark.gpu)])
def xp(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """CuPy, or its stand-in, whose work waits in queues as on a device."""
    if request.param == "gpu":
        if not gpus():
            pytest.skip("no GPU here")
        yield pytest.importorskip("cupy")
        return
    monkeypatch.syspath_prepend(str(STAND_IN))
    forget_stand_ins()
    found = import_module("cupy")
    found.lazy = True
    yield found
    forget_stand_ins()


def is_real(xp: Any) -> bool:
    return not hasattr(xp, "lazy")


def keep_busy(xp: Any) -> None:
    """Some tenths of a second of work on the current stream."""
    if is_real(xp):
        busy = xp.ones((4096, 4096), np.float32)
        for _ in range(60):
            busy = busy @ busy * np.float32(1e-4)


def backend_on(xp: Any) -> GpuBackend:
    return GpuBackend("test", xp, find_gpu(xp, "test") if is_real(xp) else Gpu(0, "RTX 3090", "86"))


def seen_elsewhere(xp: Any, array: Any) -> Any:
    """What lies there now, as a library would read it that waits for no stream of ours."""
    if not is_real(xp):
        return np.array(xp._plain(array))
    with xp.cuda.Stream(non_blocking=True):
        return xp.asnumpy(array)


def test_buffers_and_results_on_the_device_are_finished_on_return(xp: Any) -> None:
    want = np.arange(1 << 20, dtype=np.int32)
    backend = backend_on(xp)
    buffer = xp.asarray(np.zeros_like(want))
    with backend.active():
        keep_busy(xp)
        drawn = {"masks": xp.asarray(want) + np.int32(1), "frames": xp.asarray(want) + np.int32(2)}
        finite = Finiteness(xp)
        finite.note(drawn["masks"].astype(np.float32), NonFiniteError(0, 1.0))
        delivery = Delivery(backend, "device", {"masks": buffer})  # type: ignore[arg-type]
        delivery.expect({"masks": (want.shape, np.int32), "frames": (want.shape, np.int32)})
        (found,) = delivery([drawn], finite)
    np.testing.assert_array_equal(seen_elsewhere(xp, buffer), want + 1)
    np.testing.assert_array_equal(seen_elsewhere(xp, found["frames"]), want + 2)


def test_a_callers_stream_is_waited_for_and_waits(xp: Any) -> None:
    want = np.arange(1 << 20, dtype=np.float32)
    backend, stream = backend_on(xp), xp.cuda.Stream(non_blocking=True)
    with stream:
        x = xp.asarray(np.zeros_like(want))
        keep_busy(xp)
        xp.copyto(x, xp.asarray(want))
        with backend.active():
            keep_busy(xp)
            doubled = x + x
        found = doubled + np.float32(1)
    stream.synchronize()
    np.testing.assert_array_equal(seen_elsewhere(xp, found), 2 * want + 1)


def test_recorded_work_gives_what_direct_work_gives(xp: Any) -> None:
    x = np.arange(1 << 16, dtype=np.float32)

    def run(arrays: Any, results: Any = None) -> dict[str, Any]:
        results = results or {"y": xp.empty(x.shape, np.float32)}
        xp.multiply(arrays["x"], np.float32(3), out=results["y"])
        return dict(results)

    with xp.cuda.Stream(non_blocking=True):
        repeated = Repeated(xp, run, {"x": xp.asarray(x)}, graph=True)
        kept = [repeated({"x": xp.asarray(x + np.float32(k))}, "here")["y"] for k in range(4)]
        found = [xp.asnumpy(array) for array in kept]
    assert repeated.graphs == 1
    for k, array in enumerate(found):
        np.testing.assert_array_equal(array, 3 * (x + np.float32(k)))


@pytest.mark.gpu
def test_arrays_of_torch_are_taken_and_given_without_a_copy() -> None:
    cupy, torch = pytest.importorskip("cupy"), pytest.importorskip("torch")
    if not torch.cuda.is_available() or "lazy" in vars(sys.modules["cupy"]):
        pytest.skip("torch finds no GPU here")
    x = torch.arange(12, device="cuda", dtype=torch.float32)
    taken = cupy.from_dlpack(x)
    assert taken.data.ptr == x.data_ptr()
    taken += cupy.float32(1)
    given = torch.from_dlpack(taken)
    assert given.data_ptr() == x.data_ptr()
    assert given.cpu().tolist() == list(range(1, 13))
