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
        return bool(self.view(np.ndarray))

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


concatenate, stack, zeros_like, isfinite, ascontiguousarray = map(
    _of, ("concatenate", "stack", "zeros_like", "isfinite", "ascontiguousarray")
)


def asarray(value, dtype=None):
    plain = value.view(np.ndarray) if isinstance(value, ndarray) else np.array(value)
    return _device(plain if dtype is None else plain.astype(dtype, copy=False))


def empty(shape, dtype):
    return _device(np.full(shape, np.nan, dtype))


def asnumpy(value):
    global waits
    waits += 1
    return np.array(value.view(np.ndarray))


class _Memory:
    def __init__(self, size):
        self.ptr, self._size = 4099, size  # not aligned, as nothing says that it is
        _bytes["now"] += size
        _bytes["most"] = max(_bytes["most"], _bytes["now"])

    def __del__(self):
        _bytes["now"] -= self._size


class _Stream:
    ptr = 77

    def synchronize(self):
        pass


class _Device:
    def __init__(self, number=0):
        self.id = number
        self.compute_capability = "86"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


cuda = types.SimpleNamespace(
    Device=_Device,
    alloc=_Memory,
    get_current_stream=_Stream,
    runtime=types.SimpleNamespace(
        getDeviceCount=lambda: 1,
        getDeviceProperties=lambda number: {"name": b"RTX 3090"},
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
    ),
)
