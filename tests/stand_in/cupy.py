"""A stand-in for CuPy on machines without a GPU: numpy's memory plays the device's.

It is as strict as CuPy where that matters: arrays of the host and of the device do not mix, nothing of the device
becomes numpy's unless `asnumpy` is asked, what numpy has and CuPy has not is not here, and while a CUDA graph is
recorded nothing is allocated, copied to or from the device, or waited for.

With `lazy`, which the stand-ins for TensorRT and ONNX Runtime set, work is done as on a device: queued on its stream
and run when somebody waits for that stream, or for one that waits for it. Until then results are garbage.
"""

import collections
import ctypes
import itertools
import sys
import threading
import time
import types
from functools import partial

import numpy as np
from numpy import float32  # noqa: F401

lazy = False
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


# When work is done.


class _Queue:
    """The work of one stream, in order."""

    def __init__(self):
        self.items, self.done = collections.deque(), 0

    @property
    def end(self):
        return self.done + len(self.items)

    def run(self, until=None):
        """Does what was queued first, up to a place in the order; None for all of it."""
        with _lock, np.errstate(all="ignore"):
            until = self.end if until is None else until
            while self.done < until:
                self.done += 1
                self.items.popleft()()


_queues, _lock = collections.defaultdict(_Queue), threading.RLock()
_alive = []  # memory that work in a queue may read: it knows addresses alone


def queue(run, stream=None):
    """Has work done on a stream, by its address, or the current one; or recorded where a graph is."""
    if _here.recording is not None:
        _here.recording.append(run)
    elif lazy:
        _queues[cuda.get_current_stream().ptr if stream is None else stream].items.append(run)
    else:
        run()


def _later():
    return lazy or _here.recording is not None


def _let_go():
    """Forgets memory that nobody holds any more, once nothing is queued."""
    with _lock:
        if not any(one.items for one in _queues.values()):
            _alive[:] = [room for room in _alive if sys.getrefcount(room) > 3]


def _room(size):
    """Memory full of garbage."""
    room = np.full(size, 255, np.uint8)
    if lazy:
        _alive.append(room)
    return room


def _refuse_while_recording(what):
    if _here.recording is not None:
        raise CUDARuntimeError(f"cudaErrorStreamCaptureUnsupported: {what} is not permitted when stream is capturing")


def _computed(function, inputs, views=False):
    """What a function gives of plain arrays: now, or garbage of its shape until the stream gets there.

    The shape is found with zeros in the place of what is not there yet.

    Args:
        views: whether it may give its first input's own memory; that is there at once.
    """
    if not _later():
        return _device(function(*inputs))
    with np.errstate(all="ignore"):
        if views and np.may_share_memory(seen := function(*inputs), inputs[0]):
            return _device(seen)
        _refuse_while_recording("an allocation")
        shown = function(*map(_zeros, inputs))
    shown = shown if isinstance(shown, tuple) else (shown,)
    found = tuple(_room(part.nbytes).view(part.dtype).reshape(part.shape) for part in shown)
    queue(partial(_write, found, function, inputs))
    return _device(found if len(found) > 1 else found[0])


def _zeros(value):
    if isinstance(value, list | tuple):
        return [_zeros(one) for one in value]
    return np.zeros_like(value) if isinstance(value, np.ndarray) else value


def _write(found, function, inputs):
    results = function(*inputs)
    for place, result in zip(found, results if isinstance(results, tuple) else (results,), strict=True):
        place[...] = result


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
        function, inputs = partial(getattr(ufunc, method), **options), list(map(_plain, inputs))
        if out is None:
            return _computed(function, inputs)
        if _later():
            function(*_zeros(inputs), out=tuple(_zeros(_plain(one)) for one in out))  # refuses what cannot be cast
        queue(partial(function, *inputs, out=tuple(map(_plain, out))))
        return out[0]

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
        basic = not any(isinstance(one, np.ndarray | list) for one in (index if isinstance(index, tuple) else [index]))
        return _computed(lambda x: x[_index(index)], [_plain(self)], views=basic)

    def __setitem__(self, index, value):
        _require_device([value])
        queue(partial(np.ndarray.__setitem__, _plain(self), _index(index), _plain(value)))

    def fill(self, value):
        queue(partial(np.ndarray.fill, _plain(self), value))

    def __iter__(self):
        return (self[index] for index in range(len(self)))

    def view(self, dtype):
        if np.dtype(dtype).kind == "V":
            raise TypeError("Unsupported dtype V32")
        return super().view(dtype)

    def copy(self):
        found = empty(self.shape, self.dtype)
        copyto(found, self)
        return found


def _index(index):
    return tuple(map(_plain, index)) if isinstance(index, tuple) else _plain(index)


def _method(name, views):
    def method(self, *arguments, **options):
        return _computed(lambda x: getattr(x, name)(*map(_plain, arguments), **options), [_plain(self)], views)

    return method


for _name in ("all", "any", "min", "max", "sum", "mean", "repeat", "take", "clip", "round"):
    setattr(ndarray, _name, _method(_name, views=False))
for _name in ("astype", "reshape", "ravel", "squeeze", "transpose", "swapaxes"):
    setattr(ndarray, _name, _method(_name, views=True))


def _of(name):
    function = getattr(np, name)

    def call(*arguments, **options):
        flat = [x for a in arguments for x in (a if isinstance(a, list | tuple) else [a])]
        _require_device(flat)
        plain = [[_plain(x) for x in a] if isinstance(a, list) else _plain(a) for a in arguments]
        named = {name: _plain(value) for name, value in options.items()}
        return _computed(partial(function, **named), plain, views=name == "ascontiguousarray")

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


def asarray(value, dtype=None):
    if isinstance(value, ndarray):
        return value if dtype is None else value.astype(dtype, copy=False)
    if hasattr(value, "__cuda_array_interface__"):
        return _at(value)
    _refuse_while_recording("a copy from the host")
    found = empty(np.shape(value), dtype or np.asarray(value).dtype)
    # The host may change it as soon as this returns.
    queue(partial(np.ndarray.__setitem__, _plain(found), ..., np.array(value, dtype) if lazy else value))
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
    _refuse_while_recording("an allocation")
    _used.add(_Device().id)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    room = _room(size + 256)
    start = -room.ctypes.data % 256
    return _device(room[start : start + size].view(dtype).reshape(shape))


def copyto(target, source):
    _require_device([target, source])
    queue(partial(np.copyto, _plain(target), _plain(source)))


def asnumpy(value):
    _refuse_while_recording("a copy to the host")
    downloads.append(value.nbytes)
    return np.array(_waited(value))


_places = itertools.count(4099, 8192)  # no two the same; not aligned, as nothing says that they are


class _Memory:
    def __init__(self, size):
        _refuse_while_recording("an allocation")
        self.ptr, self._size = next(_places), size
        _bytes["now"] += size
        _bytes["most"] = max(_bytes["most"], _bytes["now"])

    def __del__(self):
        _bytes["now"] -= self._size


class _Here(threading.local):
    """What each thread has of its own."""

    def __init__(self):
        self.devices, self.recording = [0], None
        self.streams = collections.defaultdict(lambda: [_Stream(ptr=0)])  # of each device


_numbers = itertools.count(77)


class _Stream:
    def __init__(self, non_blocking=False, ptr=None):
        self.ptr = next(_numbers) if ptr is None else ptr

    @classmethod
    def from_external(cls, value):
        return cls(ptr=value.__cuda_stream__()[1])

    def _check(self):
        if failing:
            raise CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

    def synchronize(self):
        self._check()
        _refuse_while_recording("waiting for a stream")
        _queues[self.ptr].run()
        _let_go()

    def record(self):
        self._check()
        return _Event(self.ptr)

    def wait_event(self, event):
        events.append((self.ptr, int(event)))
        if lazy:
            _queues[self.ptr].items.append(event.reach)

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
    """A stream's number, its place in the stream's work, and when it was recorded."""

    def __new__(cls, stream):
        made = super().__new__(cls, stream)
        made.at, made.place = time.perf_counter(), _queues[stream].end
        return made

    def reach(self):
        _queues[int(self)].run(self.place)

    synchronize = reach


class _Graph:
    def __init__(self, recorded):
        self._recorded = recorded

    def launch(self, stream):
        launches.append(stream.ptr)
        for run in self._recorded:
            queue(run, stream.ptr)


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


def zeros(shape, dtype=None):
    return _device(np.zeros(shape, dtype or float))


def full(shape, value, dtype=None):
    return _device(np.full(shape, value, dtype))


def get_default_memory_pool():
    return types.SimpleNamespace(free_all_blocks=lambda: None, total_bytes=lambda: 0)


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
