"""The shapes that each component's engine accepts.

What the runtime asks for is known (see `amodal.runtime.stage`), so that most profiles are of one shape each: a compiler
then plans for that shape alone, and says what memory it takes.
"""

from __future__ import annotations

from amodal.runtime.engine_store import Profile, Shape
from amodal.runtime.manifest import ComponentEntry, Manifest

ENCODE_FRAMES = 5
"""Frames that the VAE encodes at once: twice the memory of two, and a GPU's cores are full by then."""

LARGEST_STEPS = 200
"""Sampler steps that a conditioner's engine takes."""


def profiles_of(entry: ComponentEntry, manifest: Manifest) -> tuple[Profile, ...]:
    """One or more profiles, by the component's kind.

    `unet` has one for a single CFG row and one for both, so that the memory of each is known and rows one after the
    other take less. `vae_decoder` takes 1 to `decode_chunk` frames. Frames of the others are independent.
    """
    frames = manifest.frames
    if entry.kind == "unet":
        return tuple(_profile(f"rows={rows}", entry, {"rows": (rows, rows, rows)}) for rows in (1, 2))
    if entry.kind == "unet_conditioner":
        return (_profile("any", entry, {"rows": (1, 2, 2), "steps": (1, 25, LARGEST_STEPS)}),)
    most = {
        "image_encoder": frames,
        "vae_encoder": min(ENCODE_FRAMES, frames),
        "vae_decoder": min(manifest.decode_chunk, frames),
        "depth": 1,
    }[entry.kind]
    return (_profile(f"frames<={most}", entry, {"frames": (1, most, most)}),)


def _profile(name: str, entry: ComponentEntry, free: dict[str, tuple[int, int, int]]) -> Profile:
    shapes: dict[str, tuple[Shape, Shape, Shape]] = {}
    for tensor in entry.inputs:
        if any(isinstance(n, str) for n in tensor.shape):
            low, likely, high = (tuple(free[n][i] if isinstance(n, str) else n for n in tensor.shape) for i in range(3))
            shapes[tensor.name] = (low, likely, high)
    return Profile(name=name, shapes=shapes)
