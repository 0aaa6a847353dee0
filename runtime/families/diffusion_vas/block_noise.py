"""The noise of a block of frames, as the windowed stages draw it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...arrays.interop import Array
from ...clips.noise import FrameNoise
from ...sampling.noise import NoiseStream
from .stage import Stage, normals


class Noise(Protocol):
    """The noise of a block's frames.

    Attributes:
        following: the noise of the next stage, after all draws.
    """

    @property
    def following(self) -> NoiseStream | FrameNoise:
        """See above."""
        ...

    def conditions(self, numbers: NDArray[np.intp], xp: Any) -> tuple[Array, Array]:
        """Returns that of both conditions, float32 [m, 3, H, W] each."""
        ...

    def start(self, xp: Any) -> Array:
        """Returns that of the latents, float32 [n, C, h, w]; asked for after all of `conditions`."""
        ...

    def churn(self, xp: Any) -> Array:
        """Draws that of a step, float32 [n, C, h, w]."""
        ...


class NoiseByFrame:
    """Noise of absolute frames, `start` on, drawn as it is needed."""

    def __init__(self, stage: Stage, noise: FrameNoise, numbers: Sequence[int]) -> None:
        config = stage.config
        self._streams = [noise.stream(number) for number in numbers]
        self.following: NoiseStream | FrameNoise = noise.next_stage()
        self._picture = (1, 3, *config.size)
        self._latents, self._dtype = (1, config.latent_channels, *config.latent_size), config.noise_dtype
        self._drawn: dict[int, NoiseStream] = {}

    def conditions(self, numbers: NDArray[np.intp], xp: Any) -> tuple[Array, Array]:
        """See `Noise`."""
        pairs = []
        for number in numbers.tolist():
            stream = self._streams[number].clone()
            pairs.append([normals(stream.draw(self._picture), xp) for _ in range(2)])
            self._drawn[number] = stream
        first, second = zip(*pairs, strict=True)
        return xp.concatenate(first), xp.concatenate(second)

    def start(self, xp: Any) -> Array:
        """See `Noise`."""
        self._streams = [self._drawn[number] for number in range(len(self._streams))]
        return self.churn(xp)

    def churn(self, xp: Any) -> Array:
        """See `Noise`."""
        return xp.concatenate([normals(s.draw(self._latents, self._dtype), xp) for s in self._streams])


class NoiseOfClip:
    """Noise of a clip of T frames in one stream, as of a single object."""

    def __init__(self, stage: Stage, stream: NoiseStream) -> None:
        config, self._stream = stage.config, stream.clone()
        pictures = (config.frames, 1, 3, *config.size)
        self._pictures = [self._stream.randn(pictures)[:, 0] for _ in range(2)]
        self._shape, self._dtype = (1, config.frames, config.latent_channels, *config.latent_size), config.noise_dtype

    @property
    def following(self) -> NoiseStream | FrameNoise:
        """See `Noise`."""
        return self._stream

    def conditions(self, numbers: NDArray[np.intp], xp: Any) -> tuple[Array, Array]:
        """See `Noise`."""
        first, second = (xp.asarray(noise[numbers]) for noise in self._pictures)
        return first, second

    def start(self, xp: Any) -> Array:
        """See `Noise`."""
        return self.churn(xp)

    def churn(self, xp: Any) -> Array:
        """See `Noise`."""
        return normals(self._stream.draw(self._shape, self._dtype), xp)[0]
