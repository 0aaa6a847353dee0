"""What a model's methods give, and where it is put: host memory, the device, or buffers of the caller's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arrays import Array, namespace_of, written
from .backends import Backend
from .components import Timings
from .errors import InputError
from .noise import NoiseStream

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
    """

    frames: NDArray[np.uint8]
    frames_full: NDArray[np.uint8]
    noise: NoiseStream
    seconds: float
    timings: Timings


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
            self._buffers[name] = _Buffer(buffer, written(buffer, name, *wanted[name], self._backend.xp))

    def __call__(self, name: str, array: Array) -> Any:
        """Puts a result in its place; gives what the caller finds it in."""
        xp, buffer = self._backend.xp, self._buffers.get(name)
        if buffer is None:
            return array if self._to == "device" else self._backend.to_host(array)
        on_host = namespace_of(buffer.array, xp) is np
        buffer.array[...] = self._backend.to_host(array) if on_host else array
        return buffer.owner
