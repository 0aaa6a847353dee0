"""NaN and infinity in latents and pictures, found without waiting for a device."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..errors import NonFiniteError

Array: TypeAlias = Any  # numpy.ndarray or cupy.ndarray


class Finiteness:
    """A flag per array, on its device, and the error to raise for it; the flags are read once, at the end.

    On the host an array that is not finite is reported at once.
    """

    def __init__(self, xp: Any = np) -> None:
        self._xp = xp
        self._flags: list[tuple[Array, NonFiniteError]] = []

    def note(self, values: Array, error: NonFiniteError) -> None:
        """Records whether `values` are finite, and the error to raise if not.

        Raises:
            NonFiniteError: they are not, on the host.
        """
        self._flags.append((self._xp.isfinite(values).all(), error))
        if self._xp is np:
            self.raise_if_not_finite()

    def flags(self) -> Array:
        """All flags, bool [n] with n >= 1, on the device: to be fetched together with something else."""
        return self._xp.stack([flag for flag, _ in self._flags])

    def raise_if_not_finite(self, flags: NDArray[np.bool_] | None = None) -> None:
        """Reads and clears the flags.

        Args:
            flags: `flags()` on the host; None to fetch them.

        Raises:
            NonFiniteError: the first one recorded for an array that was not finite.
        """
        noted, self._flags = self._flags, []
        if flags is None and (not noted or bool(self._xp.stack([flag for flag, _ in noted]).all())):
            return
        for flag, (_, error) in zip([flag for flag, _ in noted] if flags is None else flags, noted, strict=True):
            if not flag:
                raise error
