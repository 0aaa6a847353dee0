"""The shapes that each component's engine accepts.

What the runtime asks for is known, so that most profiles are of one shape each: a compiler
then plans for that shape alone, and says what memory it takes.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..bundle.manifest import TensorEntry
from .store import ENCODE_FRAMES, LARGEST_STEPS, Profile, Shape


def profiles_of(kind: str, inputs: Sequence[TensorEntry], frames: int, decode_chunk: int) -> tuple[Profile, ...]:
    """One or more profiles of a component.

    `unet` has one for a single CFG row and one for both, so that the memory of each is known and rows one after the
    other take less. `vae_decoder` takes 1 to `decode_chunk` frames. Frames of the others are independent.

    Args:
        kind: the component's name in the vocabulary.
        inputs: of its graph; axes given as text are free.
        frames, decode_chunk: the bundle's.
    """
    if kind == "unet":
        return tuple(_profile(f"rows={rows}", inputs, {"rows": (rows, rows, rows)}) for rows in (1, 2))
    if kind == "unet_conditioner":
        return (_profile("any", inputs, {"rows": (1, 2, 2), "steps": (1, 25, LARGEST_STEPS)}),)
    most = {
        "image_encoder": frames,
        "vae_encoder": min(ENCODE_FRAMES, frames),
        "vae_decoder": min(decode_chunk, frames),
        "depth": 1,
    }[kind]
    return (_profile(f"frames<={most}", inputs, {"frames": (1, most, most)}),)


def _profile(name: str, inputs: Sequence[TensorEntry], free: dict[str, tuple[int, int, int]]) -> Profile:
    shapes: dict[str, tuple[Shape, Shape, Shape]] = {}
    for tensor in inputs:
        if any(isinstance(n, str) for n in tensor.shape):
            low, likely, high = (tuple(free[n][i] if isinstance(n, str) else n for n in tensor.shape) for i in range(3))
            shapes[tensor.name] = (low, likely, high)
    return Profile(name=name, shapes=shapes)
