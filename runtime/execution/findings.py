"""What a model's methods give, and where it is put: host memory, the device, or buffers of the caller's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..arrays.interop import Array, as_output_buffer, namespace_of
from ..backends import Backend
from ..errors import InputError
from ..sampling.finiteness import Finiteness
from ..sampling.noise import NoiseStream
from .components import Timings

To = Literal["host", "device"]
Out = Mapping[str, Any]


@dataclass(frozen=True)
class Segmentation:
    """What `Model.segment` found.

    Arrays are numpy's; those of the backend with `to="device"` (CuPy's on a GPU); or the buffers of `out`.

    Attributes:
        masks: bool [T, H, W], the whole object, at the bundle's size.
        masks_full: bool [T, h, w], the same at the size of the masks handed in; with `padding`, of the padded frame.
        frames: uint8 [T, H, W, 3], the decoded picture before the threshold.
        noise: the noise stream after this stage; hand it to `complete` as its seed to go on with it.
        seconds: wall time, of all samples together; `timings` has it by component.
        others: what the further seeds found, if `samples` were asked for.
    """

    masks: NDArray[np.bool_]
    masks_full: NDArray[np.bool_]
    frames: NDArray[np.uint8]
    noise: NoiseStream
    seconds: float
    timings: Timings
    others: tuple[Segmentation, ...] = ()

    @property
    def samples(self) -> tuple[Segmentation, ...]:
        """One per seed, this one first."""
        return self, *self.others


@dataclass(frozen=True)
class Completion:
    """What `Model.complete` drew; arrays as in `Segmentation`.

    Attributes:
        frames: uint8 [T, H, W, 3], RGB of the whole object, at the bundle's size.
        frames_full: uint8 [T, h, w, 3], the same at the size of the frames handed in; with `padding`, of the padded
            frame.
        noise: the noise stream after this stage.
        seconds: wall time; `timings` has it by component.
        known: bool [T, H, W], the pixels of `frames` that are visible or carried over from other frames; all others
            are drawn. None without propagation: then all are.
    """

    frames: NDArray[np.uint8]
    frames_full: NDArray[np.uint8]
    noise: NoiseStream
    seconds: float
    timings: Timings
    known: NDArray[np.bool_] | None = None


class _Buffer(NamedTuple):
    owner: Any  # what the caller handed over
    array: Array


class Delivery:
    """Where the results of one call go.

    Args:
        to: where those without a buffer go.
        out: buffers to write into, by the result's name.

    Raises:
        InputError: `to` is unknown.
    """

    def __init__(self, backend: Backend, to: To, out: Out | None) -> None:
        if to not in ("host", "device"):
            raise InputError(f"to={to!r} is unknown; expected host or device.")
        self._backend, self._to, self._out = backend, to, out or {}
        self._buffers: dict[str, _Buffer] = {}

    def expect(self, wanted: Mapping[str, tuple[tuple[int, ...], Any]]) -> None:
        """Looks at the buffers, before anything runs, for results of these shapes and dtypes.

        Raises:
            InputError: a buffer cannot take its result, or there is no such result.
        """
        for name, buffer in self._out.items():
            if name not in wanted:
                raise InputError(f"out: there is no result {name!r}; expected {', '.join(wanted)}.")
            self._buffers[name] = _Buffer(buffer, as_output_buffer(buffer, name, *wanted[name], self._backend.xp))

    def __call__(self, found: Sequence[Mapping[str, Array]], finite: Finiteness) -> list[dict[str, Any]]:
        """Puts the results of all samples in their places, once it is known that everything was finite.

        All that goes to the host from a device goes in one copy, the flags included: the host waits once.

        Returns:
            What the caller finds each result in.

        Raises:
            NonFiniteError: something was not.
        """
        xp = self._backend.xp
        leaving = [drawn[name] for drawn in found for name in drawn if self._leaves(name)]
        if xp is np:  # where what is not finite was said at once
            fetched = leaving
        else:
            flags, *fetched = self._fetched([finite.flags(), *leaving])
            finite.raise_if_not_finite(flags)
        there = iter(fetched)
        return [{name: self._put(name, array, there) for name, array in drawn.items()} for drawn in found]

    def _leaves(self, name: str) -> bool:
        """Whether a result goes to the host."""
        buffer = self._buffers.get(name)
        return self._to == "host" if buffer is None else namespace_of(buffer.array, self._backend.xp) is np

    def _fetched(self, arrays: Sequence[Array]) -> list[NDArray[Any]]:
        """Arrays of the device on the host, in one copy; each has memory of its own there."""
        xp = self._backend.xp
        whole = self._backend.to_host(xp.concatenate([_octets(array, xp) for array in arrays]))
        ends = np.cumsum([array.nbytes for array in arrays])
        return [
            whole[end - array.nbytes : end].copy().view(array.dtype).reshape(array.shape)
            for array, end in zip(arrays, ends, strict=True)
        ]

    def _put(self, name: str, array: Array, there: Iterator[Array]) -> Any:
        buffer, placed = self._buffers.get(name), next(there) if self._leaves(name) else array
        if buffer is None:
            return placed
        buffer.array[...] = placed
        return buffer.owner


def _octets(array: Array, xp: Any) -> Array:
    """The bytes of an array, uint8 [n]."""
    return xp.ascontiguousarray(array).reshape(-1).view(np.uint8)
