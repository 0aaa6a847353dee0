"""Shapes that an engine accepts.

What the runtime asks for is known, so that most profiles are of one shape each: a compiler then plans for that shape
alone, and reports what memory it takes.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..bundle.manifest import TensorEntry
from .store import Profile, Shape


def make_profile(name: str, inputs: Sequence[TensorEntry], free: dict[str, tuple[int, int, int]]) -> Profile:
    """A profile of a graph.

    Args:
        name: by which the runtime picks it (`rows=1`).
        inputs: of the graph; axes given as text are free.
        free: smallest, likeliest and largest size of each free axis.
    """
    shapes: dict[str, tuple[Shape, Shape, Shape]] = {}
    for tensor in inputs:
        if any(isinstance(n, str) for n in tensor.shape):
            low, likely, high = (tuple(free[n][i] if isinstance(n, str) else n for n in tensor.shape) for i in range(3))
            shapes[tensor.name] = (low, likely, high)
    return Profile(name=name, shapes=shapes)
