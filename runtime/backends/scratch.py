"""The memory that engines share for their activations."""

from __future__ import annotations

from typing import Any

from ..errors import MemoryBudgetError, first_line
from .gpu import ALIGNMENT, GpuBackend


class Scratch:
    """One allocation for the activations of all loaded engines, as large as the largest need.

    Attributes:
        least: bytes to allocate at once even if the first engines need less. Growing later moves the memory, and with
            that every CUDA graph that was recorded with it is void.
    """

    def __init__(self, backend: GpuBackend) -> None:
        self.least = 0
        self._backend = backend
        self._users: set[int] = set()
        self._memory: Any = None
        self._size = 0

    def reserve(self, owner: int, size: int) -> None:
        """Makes room for an engine's `size` bytes; raises MemoryBudgetError where they are not free."""
        if size > self._size:
            size = max(size, self.least)
            self._backend.empty_pool()
            self._memory, self._size = None, 0  # freed first, so that both are never held
            try:
                # Not from CuPy's pool, which would keep the smaller allocations.
                self._memory = self._backend.xp.cuda.Memory(size + ALIGNMENT)
            except Exception as error:
                raise MemoryBudgetError(
                    f"GPU memory ran out: {size / 1e6:.0f} MB for activations are not free ({first_line(error)}); "
                    'close other programs, or run with `memory="sequential"` or `cfg_rows="separate"`.'
                ) from error
            self._size = size
        self._users.add(owner)

    def release(self, owner: int) -> None:
        """Removes an engine; the last one frees the memory."""
        self._users.discard(owner)
        if not self._users:
            self._memory, self._size = None, 0

    @property
    def address(self) -> tuple[int, int]:
        """Aligned pointer, and size in bytes."""
        pointer = int(self._memory.ptr) if self._memory is not None else 0
        return -(-pointer // ALIGNMENT) * ALIGNMENT, self._size
