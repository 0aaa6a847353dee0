"""Runs `segment` on single windows of a clip that has no end: what a stream calls again and again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial

import numpy as np
from numpy.typing import NDArray

from ...clips.noise import FrameNoise
from ...clips.windows import newest_windows
from ...errors import InputError
from ...execution.session import Session
from ...pictures.objects import ObjectId
from ...sampling.denoiser import guidance_ramp
from .block_inputs import SegmentPictures, padded_frames
from .block_noise import NoiseByFrame
from .block_settings import OBJECTS_AT_ONCE, fit_objects
from .config import config_of
from .encoded_masks import EncodedMasks
from .settings import Settings
from .shape import run_shape
from .stage import Stage
from .windowed import run_block


@dataclass(frozen=True)
class WindowRun:
    """Draws objects in windows of at most T frames, or of 2 T, on prepared arrays.

    Attributes:
        seed: of the noise, which belongs to the frames' numbers, whatever the window.
        reach: most frames of a window, T or 2 T; None for T.

    Raises:
        InputError: settings that do not fit the bundle.
        MemoryBudgetError: a window of one object would take more GPU memory than allowed.
    """

    session: Session
    settings: Settings = field(default_factory=Settings)
    seed: int | FrameNoise = 23
    reach: int | None = None
    _encoded: EncodedMasks = field(default_factory=EncodedMasks, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        FrameNoise.of(self.seed)
        _ = self._stage

    def __call__(
        self, objects: Mapping[ObjectId, NDArray[np.float32]], depth: NDArray[np.float32], numbers: range, steps: int
    ) -> dict[ObjectId, NDArray[np.uint8]]:
        """Returns the decoded pictures of each object, uint8 [m, H, W, 3]; black if it is seen in none of the frames.

        They are those of the last m frames, n or T if that is less. Of fewer than T frames, the last is repeated; 2 T
        are cut as `newest_windows` does. Encoded masks are kept for the next window.

        Args:
            objects: visible masks, float32 [n, H, W] in [-1, 1].
            depth: float32 [n, H, W] in [-1, 1], nearer is larger.
            numbers: of the n frames in the stream.
            steps: of the sampler.

        Raises:
            InputError: more than T frames that are not 2 T, or arrays of other lengths.
            NonFiniteError: latents or pictures became NaN or infinite.
        """
        frames, count = config_of(self.session.manifest).frames, len(numbers)
        self._check(numbers, {len(depth), *map(len, objects.values())})
        stage = self._stage
        if steps != stage.settings.steps:
            stage = Stage(self.session.components, "segment", replace(stage.settings, steps=steps))
        ids, maps = list(objects), padded_frames(depth, frames, 0)
        plan = partial(newest_windows, len(maps), frames, steps=steps)
        scale = guidance_ramp(stage.settings.guidance, len(maps))
        self._encoded.forget(numbers.start)
        result: dict[ObjectId, NDArray[np.uint8]] = {}
        for group in (ids[at : at + self._at_once] for at in range(0, len(ids), self._at_once)):
            modal = padded_frames(np.stack([objects[object_id] for object_id in group]), frames, 1)
            pictures = SegmentPictures(modal, maps, np.any(modal > 0, axis=(2, 3)))
            noise = NoiseByFrame(stage, FrameNoise.of(self.seed), range(numbers.start, numbers.start + len(maps)))
            known = [self._encoded.of(object_id, objects[object_id], numbers) for object_id in group]
            with self.session.backend.active():
                drawn = run_block(stage, pictures, noise, plan, scale, encoded=known)
            for object_id, found in zip(group, known, strict=True):
                self._encoded.keep(object_id, objects[object_id], numbers, found)
            shown = drawn.frames[:, max(count - frames, 0) : count]
            result |= dict(zip(group, shown, strict=True))
        return result

    def _check(self, numbers: range, lengths: set[int]) -> None:
        frames, count = config_of(self.session.manifest).frames, len(numbers)
        double = self.reach == 2 * frames
        if not (1 <= count <= frames or (double and count == self.reach)) or lengths != {count}:
            found, also = " and ".join(map(str, sorted(lengths))), f" or {self.reach}" if double else ""
            raise InputError(
                f"a window of frames {numbers} has arrays of {found} frames; expected 1 to {frames}{also}, alike."
            )

    @cached_property
    def _stage(self) -> Stage:
        return Stage(self.session.components, "segment", self._fitted[0])

    @property
    def _at_once(self) -> int:
        return self._fitted[1]

    @cached_property
    def _fitted(self) -> tuple[Settings, int]:
        """The settings with CFG rows as memory allows, and how many objects are drawn together."""
        block = self.reach or config_of(self.session.manifest).frames
        shape = run_shape(("segment",), self.settings, depth=False, block=block, objects=OBJECTS_AT_ONCE)
        fitted = fit_objects(self.session, shape)
        return replace(self.settings, cfg_rows=fitted.cfg_rows), fitted.objects
