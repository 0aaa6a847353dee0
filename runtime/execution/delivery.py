"""Delivers a run's results to host memory, the device, or the caller's buffers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..arrays.interop import Array, as_output_buffer, namespace_of
from ..backends import Backend
from ..errors import InputError
from ..sampling.finiteness import Finiteness

To = Literal["host", "device"]
Out = Mapping[str, Any]


class Delivery:
    """Delivers the results of one call.

    Args:
        to: destination of results without a buffer.
        out: buffers to write into, by name of the result.

    Raises:
        InputError: `to` is unknown.
    """

    def __init__(self, backend: Backend, to: To, out: Out | None) -> None:
        if to not in ("host", "device"):
            raise InputError(f"to={to!r} is unknown; expected host or device.")
        self._backend, self._to, self._out = backend, to, out or {}
        self._buffers: dict[str, tuple[Any, Array]] = {}  # the caller's object, and its memory as an array

    def expect(self, wanted: Mapping[str, tuple[tuple[int, ...], Any]]) -> None:
        """Checks the buffers for results of these shapes and dtypes, before anything runs.

        Raises:
            InputError: a buffer does not fit its result, or there is no such result.
        """
        for name, buffer in self._out.items():
            if name not in wanted:
                raise InputError(f"out: there is no result {name!r}; expected {', '.join(wanted)}.")
            self._buffers[name] = buffer, as_output_buffer(buffer, name, *wanted[name], self._backend.xp)

    def __call__(self, found: Sequence[Mapping[str, Array]], finite: Finiteness) -> list[dict[str, Any]]:
        """Delivers the results of all samples after checking that everything was finite.

        All data from a device, including the flags, is copied to the host at once, so that the host waits once.

        Returns:
            The array or the caller's buffer of each result, by name, for each sample.

        Raises:
            NonFiniteError: a value was not finite.
        """
        xp = self._backend.xp
        for drawn in found:
            for name, array in drawn.items():
                if not self._leaves(name) and name in self._buffers:
                    # Before the only wait, so that it waits for these copies too.
                    self._buffers[name][1][...] = array
        leaving = [drawn[name] for drawn in found for name in drawn if self._leaves(name)]
        if xp is np:  # where a value that is not finite raised at once
            fetched = leaving
        else:
            flags, *fetched = self._fetched([finite.flags(), *leaving])
            finite.raise_if_not_finite(flags)
        there = iter(fetched)
        return [{name: self._deliver(name, array, there) for name, array in drawn.items()} for drawn in found]

    def _leaves(self, name: str) -> bool:
        if name not in self._buffers:
            return self._to == "host"
        return namespace_of(self._buffers[name][1], self._backend.xp) is np

    def _fetched(self, arrays: Sequence[Array]) -> list[NDArray[Any]]:
        """Copies device arrays to the host at once; each result owns its memory."""
        xp = self._backend.xp
        whole = self._backend.to_host(xp.concatenate([_bytes(array, xp) for array in arrays]))
        ends = np.cumsum([array.nbytes for array in arrays])
        return [
            whole[end - array.nbytes : end].copy().view(array.dtype).reshape(array.shape)
            for array, end in zip(arrays, ends, strict=True)
        ]

    def _deliver(self, name: str, array: Array, there: Iterator[Array]) -> Any:
        leaves = self._leaves(name)
        result = next(there) if leaves else array
        if name not in self._buffers:
            return result
        owner, buffer = self._buffers[name]
        if leaves:
            buffer[...] = result
        return owner


def _bytes(array: Array, xp: Any) -> Array:
    return xp.ascontiguousarray(array).reshape(-1).view(np.uint8)
