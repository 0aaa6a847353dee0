"""Detects NaN and infinity without waiting for the device."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..arrays.interop import Array
from ..errors import NonFiniteError


class Finiteness:
    """One flag per array, kept on its device and read at the end. On the host, an error is raised at once."""

    def __init__(self, xp: Any = np) -> None:
        self._xp = xp
        self._flags: list[tuple[Array, NonFiniteError]] = []

    def note(self, values: Array, error: NonFiniteError) -> None:
        """Records whether `values` are finite, and the error to raise if not; raises it at once on the host."""
        self._flags.append((self._xp.isfinite(values).all(), error))
        if self._xp is np:
            self.raise_if_not_finite()

    def flags(self) -> Array:
        """Returns all flags as bool [n], n >= 1, on the device, to be fetched together with other arrays."""
        return self._xp.stack([flag for flag, _ in self._flags])

    def raise_if_not_finite(self, flags: NDArray[np.bool_] | None = None) -> None:
        """Clears the flags and raises the first recorded `NonFiniteError`, if any array was not finite.

        Args:
            flags: `flags()` on the host; None to read them from the device.
        """
        noted, self._flags = self._flags, []
        if flags is None and (not noted or bool(self._xp.stack([flag for flag, _ in noted]).all())):
            return
        for flag, (_, error) in zip([flag for flag, _ in noted] if flags is None else flags, noted, strict=True):
            if not flag:
                raise error
