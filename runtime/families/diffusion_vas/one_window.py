"""Runs `segment` on single windows of a clip that has no end: what a stream calls again and again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from ...clips.noise import FrameNoise
from ...clips.windows import windows_at
from ...errors import InputError
from ...execution.session import Session
from ...pictures.objects import ObjectId
from ...sampling.denoiser import guidance_ramp
from .block_inputs import SegmentPictures, padded_frames
from .block_noise import NoiseByFrame
from .block_settings import OBJECTS_AT_ONCE, fit_objects
from .config import config_of
from .settings import Settings
from .shape import run_shape
from .stage import Stage
from .windowed import run_block


@dataclass(frozen=True)
class WindowRun:
    """Draws objects in a window of at most T frames, on prepared arrays.

    Attributes:
        seed: of the noise, which belongs to the frames' numbers, whatever the window.

    Raises:
        InputError: settings that do not fit the bundle.
        MemoryBudgetError: a window of one object would take more GPU memory than allowed.
    """

    session: Session
    settings: Settings = field(default_factory=Settings)
    seed: int | FrameNoise = 23

    def __post_init__(self) -> None:
        FrameNoise.of(self.seed)
        _ = self._stage

    def __call__(
        self, objects: Mapping[ObjectId, NDArray[np.float32]], depth: NDArray[np.float32], numbers: range, steps: int
    ) -> dict[ObjectId, NDArray[np.uint8]]:
        """Returns the decoded pictures uint8 [n, H, W, 3] of each object; black if it is seen in none of the frames.

        Of fewer than T frames, the last is repeated.

        Args:
            objects: visible masks, float32 [n, H, W] in [-1, 1].
            depth: float32 [n, H, W] in [-1, 1], nearer is larger.
            numbers: of the n frames in the stream.
            steps: of the sampler.

        Raises:
            InputError: more than T frames, or arrays of other lengths.
            NonFiniteError: latents or pictures became NaN or infinite.
        """
        frames, count = config_of(self.session.manifest).frames, len(numbers)
        lengths = {len(depth), *map(len, objects.values())}
        if not 1 <= count <= frames or lengths != {count}:
            found = " and ".join(map(str, sorted(lengths)))
            raise InputError(
                f"a window of frames {numbers} has arrays of {found} frames; expected 1 to {frames}, alike."
            )
        stage = self._stage
        if steps != stage.settings.steps:
            stage = Stage(self.session.components, "segment", replace(stage.settings, steps=steps))
        ids, maps = list(objects), padded_frames(depth, frames, 0)
        plan = partial(windows_at, "chunks", frames, frames, steps=steps)
        scale = guidance_ramp(stage.settings.guidance, frames)
        result: dict[ObjectId, NDArray[np.uint8]] = {}
        for group in (ids[at : at + self._at_once] for at in range(0, len(ids), self._at_once)):
            modal = padded_frames(np.stack([objects[object_id] for object_id in group]), frames, 1)
            pictures = SegmentPictures(modal, maps, np.any(modal > 0, axis=(2, 3)))
            noise = NoiseByFrame(stage, FrameNoise.of(self.seed), range(numbers.start, numbers.start + frames))
            with self.session.backend.active():
                drawn = run_block(stage, pictures, noise, plan, scale)
            result |= dict(zip(group, drawn.frames[:, :count], strict=True))
        return result

    @cached_property
    def _stage(self) -> Stage:
        return Stage(self.session.components, "segment", self._fitted[0])

    @property
    def _at_once(self) -> int:
        return self._fitted[1]

    @cached_property
    def _fitted(self) -> tuple[Settings, int]:
        """The settings with CFG rows as memory allows, and how many objects are drawn together."""
        block = config_of(self.session.manifest).frames
        shape = run_shape(("segment",), self.settings, depth=False, block=block, objects=OBJECTS_AT_ONCE)
        fitted = fit_objects(self.session, shape)
        return replace(self.settings, cfg_rows=fitted.cfg_rows), fitted.objects
