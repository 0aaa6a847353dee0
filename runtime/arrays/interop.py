"""Converts arrays of any library to the backend's, without a copy where they are on its device.

Supported are whatever `numpy.asarray` takes, DLPack (`__dlpack__`: CuPy, torch, JAX) and `__cuda_array_interface__`
(CuPy, PyCUDA, Numba, torch). If work for an array is queued on another stream, the device waits for it, not the host.
The backend must be `active`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np

from ..errors import InputError, first_line

Array: TypeAlias = Any  # numpy.ndarray or cupy.ndarray

_CPU, _CUDA, _CUDA_HOST, _CUDA_MANAGED = 1, 2, 3, 13  # DLDeviceType of dlpack.h
_UNREGISTERED, _DEVICE = 0, 2  # cudaMemoryType
_INTERFACE = "__cuda_array_interface__"


def as_input(value: Any, name: str, xp: Any = np) -> Array:
    """Wraps the caller's array without moving it: as numpy's in host memory, as `xp`'s on the backend's device.

    Args:
        value: an array of any library, contiguous or strided, or anything that numpy converts to one.
        name: of the argument, for messages.

    Raises:
        InputError: it is on another device, was freed, or cannot be read as an array.
    """
    return _read(value, name, xp, _from_host)


def as_output_buffer(value: Any, name: str, shape: tuple[int, ...], dtype: Any, xp: Any = np) -> Array:
    """Wraps the caller's buffer for a result, without moving or copying it.

    Raises:
        InputError: it is not a buffer, is read-only, is on another device, or has another shape or dtype.
    """
    if not any(_has(value, attribute) for attribute in ("__array_interface__", _INTERFACE, "__dlpack__")):
        raise InputError(
            f"out: {name} is {type(value).__name__}; expected an array to write into: numpy's, or one with "
            "__cuda_array_interface__ or __dlpack__."
        )
    # Memory shared by `__array__` is writable; by DLPack it is read-only in some versions of numpy.
    array = _read(value, f"out: {name}", xp, np.asarray if _has(value, "__array__") else _from_host)
    if tuple(array.shape) != shape or array.dtype != dtype:
        raise InputError(
            f"out: {name} is {array.dtype} {list(array.shape)}; this call writes {np.dtype(dtype)} {list(shape)}."
        )
    host = namespace_of(array, xp) is np
    if not (array.flags.writeable if host else _writable(value)):
        raise InputError(f"out: {name} is read-only; pass a writable array.")
    return array


def namespace_of(array: Array, xp: Any) -> Any:
    """Returns `xp` for an array on its device, numpy for one in host memory."""
    return xp if isinstance(array, xp.ndarray) else np


def stream_of(stream: Any, xp: Any) -> Any:
    """Converts the caller's stream to CuPy's.

    Args:
        stream: an address (`cudaStream_t`), a stream of CuPy, torch, PyCUDA or Numba, or one with `__cuda_stream__`.

    Raises:
        InputError: it is something else.
    """
    number = stream
    for attribute in ("ptr", "cuda_stream", "handle"):  # CuPy, torch, PyCUDA and Numba
        number = getattr(number, attribute, number)
    number = getattr(number, "value", number)  # a ctypes pointer, None for the default stream
    if hasattr(number, "__cuda_stream__"):
        number = number.__cuda_stream__()[1]
    if number is not None and not hasattr(number, "__index__"):
        raise InputError(
            f"stream is {type(stream).__name__}; expected one of CuPy, torch, PyCUDA or Numba, or its address."
        )
    return xp.cuda.Stream.from_external(_Stream(stream, int(number or 0)))


class _Stream:
    """A stream by its address; keeps its owner alive."""

    def __init__(self, owner: Any, number: int) -> None:
        self._owner, self._number = owner, number

    def __cuda_stream__(self) -> tuple[int, int]:
        return 0, self._number


def _has(value: Any, name: str) -> bool:
    try:
        return hasattr(value, name)
    except Exception:  # noqa: BLE001 (torch raises for a tensor with gradients; `as_input` reports it)
        return True


def _writable(value: Any) -> bool:
    return _has(value, "__dlpack__") or not value.__cuda_array_interface__["data"][1]  # DLPack has no such flag


def _read(value: Any, name: str, xp: Any, from_host: Callable[[Any], Array]) -> Array:
    try:
        if xp is not np and isinstance(value, xp.ndarray):
            _require_here(name, int(value.device.id), xp)
            return value
        kind, number = (_CPU, 0) if isinstance(value, np.ndarray) else _place(value)
        if kind in (_CPU, _CUDA_HOST):
            return from_host(value)
        if xp is not np and kind in (_CUDA, _CUDA_MANAGED):
            _require_here(name, number, xp)
            return _from_device(value, name, xp)
    except InputError:
        raise
    except Exception as error:
        if type(error).__module__.startswith("cupy_backends"):  # the device failed, not the array
            raise
        what = type(value).__name__
        raise InputError(f"{name} ({what}) cannot be read as an array: {first_line(error)}.") from error
    if kind in (_CUDA, _CUDA_MANAGED):
        raise InputError(
            f"{name} is on a GPU and this model runs on the CPU; pass a copy in host memory (`cupy.asnumpy(x)`, "
            "`x.cpu()` in torch, `x.get()` in PyCUDA), or load the bundle with a backend that runs on the GPU."
        )
    raise InputError(f"{name} is on another kind of device (DLPack's {kind}); pass a copy in host memory.")


def _place(value: Any) -> tuple[int, int]:
    """Returns DLPack's kind of device, and the device's number, -1 if unknown."""
    if hasattr(value, "__dlpack_device__"):
        kind, number = value.__dlpack_device__()
        return int(kind), int(number)
    return (_CUDA, -1) if _has(value, _INTERFACE) else (_CPU, 0)


def _from_host(value: Any) -> Array:
    if isinstance(value, np.ndarray) or not hasattr(value, "__dlpack__"):
        return np.asarray(value)
    return np.from_dlpack(value)


def _from_device(value: Any, name: str, xp: Any) -> Array:
    if hasattr(value, "__dlpack__"):
        # The producer makes our stream wait for its own. Some libraries lack DLPack's bool, a later addition.
        try:
            return xp.from_dlpack(value)
        except Exception:
            if not _has(value, _INTERFACE):
                raise
    described = dict(getattr(value, _INTERFACE))
    address = int(described["data"][0])
    if address:
        try:
            found = xp.cuda.runtime.pointerGetAttributes(address)
        except Exception as error:
            if "cudaErrorInvalidValue" not in str(error):
                raise
            found = None  # CUDA does not know the address
        if found is None or found.type == _UNREGISTERED:
            freed = f"{name} points to {address:#x}, which is no GPU memory: it was freed"
            raise InputError(f"{freed}; keep the array until the call returns.")
        if found.type == _DEVICE:
            _require_here(name, int(found.device), xp)
    stream = described.get("stream")
    if stream is not None:
        xp.cuda.get_current_stream().wait_event(stream_of(int(stream), xp).record())
    # Without the stream, which is awaited already; `owner` stays alive as long as the array.
    return xp.asarray(SimpleNamespace(owner=value, **{_INTERFACE: {**described, "stream": None}}))


def _require_here(name: str, number: int, xp: Any) -> None:
    here = int(xp.cuda.Device().id)
    if number not in (here, -1):
        raise InputError(
            f"{name} is on GPU {number} and this model runs on GPU {here}; copy it there, or load the bundle with "
            f"device cuda:{number}."
        )
