"""A stand-in for CuPy on machines without a GPU: numpy's memory plays the device's.

It is as strict as CuPy where that matters: arrays of the host and of the device do not mix, and nothing of the device
becomes numpy's unless `asnumpy` is asked.
"""

import types

import numpy as np
from numpy import float32  # noqa: F401

waits = 0  # how often the host waited for the device
_bytes = {"now": 0, "most": 0}


class ndarray(np.ndarray):  # noqa: N801
    """An array on the device."""

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.ctypes.data)

    def __array_ufunc__(self, ufunc, method, *inputs, **options):
        _require_device(inputs)
        plain = [x.view(np.ndarray) if isinstance(x, ndarray) else x for x in inputs]
        return _device(getattr(ufunc, method)(*plain, **options))

    def __array_function__(self, function, kinds, arguments, options):
        raise TypeError(f"numpy.{function.__name__} on an array of the device")

    def __array__(self, *arguments, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __bool__(self):
        global waits
        waits += 1
        _streams[-1].synchronize()
        return bool(self.view(np.ndarray))

    def copy(self):
        return asarray(self.view(np.ndarray))

    def all(self, *arguments, **options):
        return _device(self.view(np.ndarray).all(*arguments, **options))


def _device(value):
    return np.asarray(value).view(ndarray) if not isinstance(value, tuple) else tuple(map(_device, value))


def _require_device(inputs):
    for value in inputs:
        if isinstance(value, np.ndarray) and not isinstance(value, ndarray) and value.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")


def _of(name):
    function = getattr(np, name)

    def call(first, *arguments, **options):
        several = first if isinstance(first, list | tuple) else [first]
        _require_device(several)
        plain = [x.view(np.ndarray) if isinstance(x, ndarray) else x for x in several]
        return _device(function(plain if isinstance(first, list | tuple) else plain[0], *arguments, **options))

    return call


# What makes arrays gives some that begin anywhere: only `empty` and `asarray` are at CuPy's places.
concatenate, stack, zeros_like, isfinite, ascontiguousarray = map(
    _of, ("concatenate", "stack", "zeros_like", "isfinite", "ascontiguousarray")
)


def asarray(value, dtype=None):
    if isinstance(value, ndarray):
        return value if dtype is None else _device(value.view(np.ndarray).astype(dtype, copy=False))
    found = empty(np.shape(value), dtype or np.asarray(value).dtype)
    found.view(np.ndarray)[...] = value
    return found


def empty(shape, dtype):
    """Begins where CuPy's arrays begin, at multiples of 256 bytes."""
    _used.add(_devices[-1])
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.full(size + 256, 255, np.uint8)
    start = -room.ctypes.data % 256
    return room[start : start + size].view(dtype).reshape(shape).view(ndarray)


def copyto(target, source):
    _require_device([target, source])
    np.copyto(target.view(np.ndarray), source.view(np.ndarray))


def asnumpy(value):
    global waits
    waits += 1
    _streams[-1].synchronize()
    return np.array(value.view(np.ndarray))


class _Memory:
    def __init__(self, size):
        self.ptr, self._size = 4099, size  # not aligned, as nothing says that it is
        _bytes["now"] += size
        _bytes["most"] = max(_bytes["most"], _bytes["now"])

    def __del__(self):
        _bytes["now"] -= self._size


class _Stream:
    def __init__(self, non_blocking=False, ptr=77):
        self.ptr = ptr

    def synchronize(self):
        if failing:
            raise CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    def record(self):
        return object()

    def wait_event(self, event):
        pass

    def __enter__(self):
        _streams.append(self)

    def __exit__(self, *error):
        assert _streams.pop() is self


class _Device:
    def __init__(self, number=None):
        self.id = _devices[-1] if number is None else number
        self.compute_capability = "86"

    def __enter__(self):
        _devices.append(self.id)
        return self

    def __exit__(self, *error):
        assert _devices.pop() == self.id


class CUDARuntimeError(RuntimeError):
    """What the driver reports, at the next call that waits."""


CUDARuntimeError.__module__ = "cupy_backends.cuda.api.runtime"
failing = False
free_bytes = 20 * 10**9
_streams, _devices, _used = [_Stream(ptr=0)], [0], set()


def zeros(shape):
    return _device(np.zeros(shape))


def get_default_memory_pool():
    return types.SimpleNamespace(free_all_blocks=lambda: None)


cuda = types.SimpleNamespace(
    Device=_Device,
    Memory=_Memory,
    Stream=_Stream,
    get_current_stream=lambda: _streams[-1],
    runtime=types.SimpleNamespace(
        getDeviceCount=lambda: 2,
        getDeviceProperties=lambda number: {"name": b"RTX 3090"},
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
        memGetInfo=lambda: (free_bytes, 24 * 10**9),
    ),
)
