"""Encodes the conditions of a block of frames.

What the networks see of a frame, and its noise, do not depend on the window, so that both are encoded once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ...arrays.interop import Array
from ...execution.components import Component
from ...pictures.images import clip_pixels, rescale_unsigned
from .block_noise import Noise
from .stage import Stage, map_frames


class Pictures(Protocol):
    """A stage's two conditions for K objects in a block of n frames, on the host."""

    @property
    def objects(self) -> int:
        """K."""
        ...

    @property
    def count(self) -> int:
        """n, at least T."""
        ...

    @property
    def shared(self) -> bool:
        """Whether the second condition is the same for all objects, as depth is."""
        ...

    @property
    def active(self) -> NDArray[np.bool_]:
        """The frames that the networks must see, bool [K, n]."""
        ...

    def first(self, index: int, numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        """Returns the first condition of an object, [m, 3, H, W] in [-1, 1], which CLIP also sees."""
        ...

    def second(self, index: int, numbers: NDArray[np.intp]) -> NDArray[np.float32]:
        """Returns the second condition, likewise."""
        ...


@dataclass(frozen=True)
class EncodedBlock:
    """A block's encoded conditions.

    Attributes:
        embeddings: float32 [K, n, D], CLIP's of the first condition.
        conditioning: float32 [K, n, 2C, h, w].
    """

    embeddings: Array
    conditioning: Array


class Encoded(NamedTuple):
    """A frame's encoded first condition: CLIP's embedding float32 [D], and latents float32 [C, h, w]."""

    embedding: Array
    latents: Array


Known = Sequence[dict[int, Encoded]]
"""For each object, the first conditions that are encoded already, by the frame's place in the block."""


def encode_block(
    stage: Stage, pictures: Pictures, noise: Noise, seen: NDArray[np.bool_], known: Known | None = None
) -> EncodedBlock:
    """Encodes the conditions of K objects in n frames.

    Args:
        seen: bool [K, n]; T frames of an object that are all outside of it stay zeros.
        known: what need not be encoded; what is encoded is added.
    """
    xp, config, at_once = stage.xp, stage.config, stage.frames_at_once["image_encoder"]
    count, frames, clip = pictures.count, config.frames, config.image_encoder
    groups = [np.arange(start, start + frames) for start in [*range(0, count - frames, frames), count - frames]]
    embeddings = xp.zeros((pictures.objects, count, clip.width), np.float32)
    with stage.components.use(stage.keys["image_encoder"], frames) as image_encoder:
        for index in range(pictures.objects):
            for group in groups:
                if len(new := _new(group, seen, known, index)):
                    pixels = clip_pixels(xp.asarray(pictures.first(index, new)), clip.side, clip.mean, clip.std, xp)
                    found = map_frames(image_encoder, "pixels", pixels, "embeddings", at_once, xp)
                    embeddings[index, xp.asarray(new)] = found
    latents = (pictures.objects, count, 2 * config.latent_channels, *config.latent_size)
    block = EncodedBlock(embeddings, xp.zeros(latents, np.float32))
    with stage.components.use(stage.keys["vae_encoder"], 2 * frames) as vae_encoder:
        for group in groups:
            _encode_group(stage, vae_encoder, pictures, noise, group, seen, block.conditioning, known)
    if known is not None:
        _exchange(
            block, known, [[f for g in groups for f in _new(g, seen, known, i).tolist()] for i in range(len(seen))]
        )
    return block


def _new(group: NDArray[np.intp], seen: NDArray[np.bool_], known: Known | None, index: int) -> NDArray[np.intp]:
    """Returns the frames of a group in which an object's first condition is to be encoded."""
    if not seen[index, group].any():
        return group[:0]
    return group if known is None else np.array([frame for frame in group if int(frame) not in known[index]], np.intp)


def _exchange(block: EncodedBlock, known: Known, new: Sequence[list[int]]) -> None:
    """Fills in what was known, and adds what is new."""
    channels = block.conditioning.shape[2] // 2
    for index, (held, frames) in enumerate(zip(known, new, strict=True)):
        for frame, one in held.items():
            block.embeddings[index, frame] = one.embedding
            block.conditioning[index, frame, :channels] = one.latents
        for frame in frames:
            latents = block.conditioning[index, frame, :channels]
            held[frame] = Encoded(block.embeddings[index, frame].copy(), latents.copy())


def _encode_group(
    stage: Stage,
    vae_encoder: Component,
    pictures: Pictures,
    noise: Noise,
    group: NDArray[np.intp],
    seen: NDArray[np.bool_],
    conditioning: Array,
    known: Known | None,
) -> None:
    """Encodes T frames of all objects; noise is drawn even if none is seen, so that it stays the frame's own."""
    xp, strength = stage.xp, np.float32(stage.config.noise_augmentation)
    size, channels = stage.frames_at_once["vae_encoder"], stage.config.latent_channels
    first_noise, second_noise = noise.conditions(group, xp)
    at = slice(int(group[0]), int(group[-1]) + 1)

    def encoded(frames: NDArray[np.float32], drawn: Array) -> Array:
        noisy = rescale_unsigned(xp.asarray(frames), xp) + drawn * strength
        return map_frames(vae_encoder, "frames", noisy, "latents", size, xp)

    shared = None
    for index in range(pictures.objects):
        if not seen[index, group].any():
            continue
        if len(new := _new(group, seen, known, index)):
            fresh = encoded(pictures.first(index, new), first_noise[xp.asarray(new - group[0])])
            conditioning[index, xp.asarray(new), :channels] = fresh
        if shared is None or not pictures.shared:
            shared = encoded(pictures.second(index, group), second_noise)
        conditioning[index, at, channels:] = shared
