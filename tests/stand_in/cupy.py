"""A stand-in for CuPy on machines without a GPU: numpy's memory plays the device's.

It is as strict as CuPy where that matters: arrays of the host and of the device do not mix, nothing of the device
becomes numpy's unless `asnumpy` is asked, and what numpy has and CuPy has not is not here.
"""

import collections
import ctypes
import threading
import time
import types

import numpy as np
from numpy import float32  # noqa: F401

waits = 0  # how often the host waited for the device
uploads = []  # bytes of each copy to the device
downloads = []  # bytes of each copy back
events = []  # (a stream that waits, the stream it waits for)
freed = set()  # addresses of memory that is gone
elsewhere = {}  # device, by addresses that are not on the current one
_bytes = {"now": 0, "most": 0}


def _plain(value):
    return np.ndarray.view(value, np.ndarray) if isinstance(value, ndarray) else value


def _device(value):
    if isinstance(value, tuple):
        return tuple(map(_device, value))
    return np.ndarray.view(np.asarray(value), ndarray)


def _require_device(inputs):
    for value in inputs:
        if isinstance(value, np.ndarray) and not isinstance(value, ndarray) and value.ndim:
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")


def _waited(value):
    global waits
    waits += 1
    cuda.get_current_stream().synchronize()
    return _plain(value)


class ndarray(np.ndarray):  # noqa: N801
    """An array on the device."""

    @property
    def data(self):
        return types.SimpleNamespace(ptr=self.ctypes.data)

    @property
    def device(self):
        return _Device(elsewhere.get(self.ctypes.data, 0))

    @property
    def __cuda_array_interface__(self):
        return {**_plain(self).__array_interface__, "version": 3, "stream": 1}

    def __dlpack_device__(self):
        return 2, self.device.id

    def __dlpack__(self, **options):
        return _plain(self).__dlpack__()

    def __array_ufunc__(self, ufunc, method, *inputs, out=None, **options):
        _require_device((*inputs, *(out or ())))
        if out is not None:
            options["out"] = tuple(map(_plain, out))
        found = getattr(ufunc, method)(*map(_plain, inputs), **options)
        return out[0] if out is not None else _device(found)

    def __array_function__(self, function, kinds, arguments, options):
        raise TypeError(f"numpy.{function.__name__} on an array of the device")

    def __array__(self, *arguments, **options):
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __bool__(self):
        return bool(_waited(self))

    def __float__(self):
        return float(_waited(self))

    def __int__(self):
        return int(_waited(self))

    def __getitem__(self, index):
        return _device(_plain(self)[index])

    def __setitem__(self, index, value):
        _require_device([value])
        _plain(self)[index] = _plain(value)

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    def view(self, dtype):
        if np.dtype(dtype).kind == "V":
            raise TypeError("Unsupported dtype V32")
        return super().view(dtype)

    def copy(self):
        return asarray(_plain(self), copies=False)


def _reducing(name):
    def method(self, *arguments, **options):
        return _device(getattr(_plain(self), name)(*arguments, **options))

    return method


for _name in ("all", "any", "min", "max", "sum"):
    setattr(ndarray, _name, _reducing(_name))


def _of(name):
    function = getattr(np, name)

    def call(*arguments, **options):
        flat = [x for a in arguments for x in (a if isinstance(a, list | tuple) else [a])]
        _require_device(flat)
        plain = [[_plain(x) for x in a] if isinstance(a, list) else _plain(a) for a in arguments]
        return _device(function(*plain, **{name: _plain(value) for name, value in options.items()}))

    return call


# What makes arrays gives some that begin anywhere: only `empty` and `asarray` are at CuPy's places.
for _name in (
    *("concatenate", "stack", "zeros_like", "isfinite", "ascontiguousarray", "where", "clip", "rint", "repeat", "pad"),
    "take",
):
    globals()[_name] = _of(_name)

# On the host these take arrays of the device as they are, by way of `__array_ufunc__`.
add, subtract, multiply, sqrt = np.add, np.subtract, np.multiply, np.sqrt
bitwise_and, bitwise_xor, left_shift, right_shift = np.bitwise_and, np.bitwise_xor, np.left_shift, np.right_shift


def asarray(value, dtype=None, copies=True):
    if isinstance(value, ndarray):
        return value if dtype is None else _device(_plain(value).astype(dtype, copy=False))
    if hasattr(value, "__cuda_array_interface__"):
        return _at(value)
    found = empty(np.shape(value), dtype or np.asarray(value).dtype)
    _plain(found)[...] = value
    if copies:
        uploads.append(found.nbytes)
    return found


def _at(owner):
    """The memory that is described, without a copy."""
    said = owner.__cuda_array_interface__
    assert said["stream"] is None, "CuPy would make the host wait for the stream"
    shape, dtype = said["shape"], np.dtype(said["typestr"])
    strides = said.get("strides") or np.empty(shape, dtype).strides
    steps = [(n - 1) * step for n, step in zip(shape, strides, strict=True)]
    before = -sum(step for step in steps if step < 0)
    size = before + sum(step for step in steps if step > 0) + dtype.itemsize
    room = (ctypes.c_uint8 * size).from_address(said["data"][0] - before)
    room.owner = owner
    return _device(np.ndarray(shape, dtype, room, before, strides))


def from_dlpack(value):
    kind, number = value.__dlpack_device__()
    assert (kind, number) == (2, _Device().id)
    capsule = value.__dlpack__(stream=cuda.get_current_stream().ptr)
    # NumPy 1 looks for the methods on the type.
    methods = {"__dlpack__": lambda self, **options: capsule, "__dlpack_device__": lambda self: (1, 0)}
    return _device(np.from_dlpack(type("Holder", (), methods)()))


def empty(shape, dtype):
    """Begins where CuPy's arrays begin, at multiples of 256 bytes."""
    _used.add(_Device().id)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = np.full(size + 256, 255, np.uint8)
    start = -room.ctypes.data % 256
    return _device(room[start : start + size].view(dtype).reshape(shape))


def copyto(target, source):
    _require_device([target, source])
    _plain(target)[...] = _plain(source)


def asnumpy(value):
    downloads.append(value.nbytes)
    return np.array(_waited(value))


class _Memory:
    def __init__(self, size):
        self.ptr, self._size = 4099, size  # not aligned, as nothing says that it is
        _bytes["now"] += size
        _bytes["most"] = max(_bytes["most"], _bytes["now"])

    def __del__(self):
        _bytes["now"] -= self._size


class _Here(threading.local):
    """What each thread has of its own."""

    def __init__(self):
        self.devices, self.recording = [0], None
        self.streams = collections.defaultdict(lambda: [_Stream(ptr=0)])  # of each device


class _Stream:
    def __init__(self, non_blocking=False, ptr=77):
        self.ptr = ptr

    @classmethod
    def from_external(cls, value):
        return cls(ptr=value.__cuda_stream__()[1])

    def synchronize(self):
        if failing:
            raise CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    def record(self):
        self.synchronize()
        return _Event(self.ptr)

    def wait_event(self, event):
        events.append((self.ptr, int(event)))

    def begin_capture(self):
        if not self.ptr or refusing:
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: operation not permitted")
        _here.recording = []

    def end_capture(self):
        recorded, _here.recording = _here.recording, None
        return _Graph(recorded)

    def __enter__(self):
        _here.streams[_here.devices[-1]].append(self)

    def __exit__(self, *error):
        assert _here.streams[_here.devices[-1]].pop() is self


class _Event(int):
    """A stream's number, and when the event was recorded."""

    def __new__(cls, stream):
        made = super().__new__(cls, stream)
        made.at = time.perf_counter()
        return made

    def synchronize(self):
        pass


class _Graph:
    def __init__(self, recorded):
        self._recorded = recorded

    def launch(self, stream):
        launches.append(stream.ptr)
        for run in self._recorded:
            run()


def queue(run):
    """What drivers do with a run: now, or when the graph that is being recorded is launched."""
    if _here.recording is None:
        run()
    else:
        _here.recording.append(run)


class _Device:
    def __init__(self, number=None):
        self.id = _here.devices[-1] if number is None else number
        self.compute_capability = "86"

    def __enter__(self):
        if failing:
            raise CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")
        _here.devices.append(self.id)
        return self

    def __exit__(self, *error):
        assert _here.devices.pop() == self.id


class CUDARuntimeError(RuntimeError):
    """What the driver reports, at the next call that waits."""


CUDARuntimeError.__module__ = "cupy_backends.cuda.api.runtime"
failing = refusing = False
launches = []
free_bytes = 20 * 10**9
_here, _used = _Here(), set()


def zeros(shape):
    return _device(np.zeros(shape))


def full(shape, value, dtype=None):
    return _device(np.full(shape, value, dtype))


def get_default_memory_pool():
    return types.SimpleNamespace(free_all_blocks=lambda: None)


cuda = types.SimpleNamespace(
    Device=_Device,
    Memory=_Memory,
    Stream=_Stream,
    get_current_stream=lambda: _here.streams[_here.devices[-1]][-1],
    get_elapsed_time=lambda begin, end: 1e3 * (end.at - begin.at),
    runtime=types.SimpleNamespace(
        getDeviceCount=lambda: 2,
        getDeviceProperties=lambda number: {"name": b"RTX 3090"},
        driverGetVersion=lambda: 13000,
        runtimeGetVersion=lambda: 13000,
        memGetInfo=lambda: (free_bytes, 24 * 10**9),
        pointerGetAttributes=lambda address: types.SimpleNamespace(
            type=0 if address in freed else 2, device=elsewhere.get(address, 0)
        ),
    ),
)
