"""Noise of clips longer than a window: each frame has a stream of its own, whatever window, block or object it is in.

Windows that overlap agree far better on what is hidden if they begin with the same noise, and a run that is resumed, or
a stream of frames without an end, needs the noise of any frame without that of all before it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError
from ..sampling.noise import NoiseStream


@dataclass(frozen=True)
class FrameNoise:
    """The noise of all frames of a clip.

    Attributes:
        seed: a whole number, taken modulo 2^64.
        stage: counts the stages that have drawn from this seed: `complete` continues the noise of `segment` with the
            next one.
    """

    seed: int
    stage: int = 0

    @classmethod
    def of(cls, seed: int | NoiseStream | FrameNoise) -> FrameNoise:
        """Returns the noise of a seed; of a `NoiseStream`, which is not changed, that of its next 64 bits.

        Raises:
            InputError: the seed is not a whole number that `NoiseStream` takes.
        """
        if isinstance(seed, FrameNoise):
            return seed
        if isinstance(seed, NoiseStream):
            return cls(seed.clone().word64())
        NoiseStream(seed)
        return cls(int(seed))

    def next_stage(self) -> FrameNoise:
        """Returns the noise of the stage after this one."""
        return replace(self, stage=self.stage + 1)

    def of_clip(self) -> NoiseStream:
        """Returns one stream for a clip that is run as a whole."""
        return NoiseStream(int(np.random.SeedSequence([self.seed % 2**64, self.stage]).generate_state(1)[0]))

    def stream(self, frame: int) -> NoiseStream:
        """Returns the stream of a frame by its number in the clip.

        Its seed is the first word of numpy's `SeedSequence` of seed, stage and frame, which mixes them well.

        Raises:
            InputError: a number below 0.
        """
        if frame < 0:
            raise InputError(f"frame {frame} has no noise; expected 0 or more.")
        sequence = np.random.SeedSequence([self.seed % 2**64, self.stage, frame])
        return NoiseStream(int(sequence.generate_state(1)[0]))
