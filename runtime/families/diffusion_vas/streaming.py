"""Runs the windows of streams."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...clips.gate import Gate
from ...clips.noise import FrameNoise
from ...clips.stream import Stream
from ...clips.stream_windows import Clock, StreamOptions
from ...clips.windows import windows_at
from ...errors import InputError
from ...execution.session import Session
from ...pictures.depth_kind import DepthKind
from ...pictures.images import prepare_rgb
from ...pictures.objects import ObjectId
from ...sampling.denoiser import guidance_ramp
from .block_inputs import SegmentPictures, padded_frames
from .block_noise import NoiseByFrame
from .config import Config, config_of
from .running import find_maps
from .settings import PRESETS, Preset, Settings, SettingsKeywords
from .stage import Stage
from .windowed import run_block


class StreamKeywords(SettingsKeywords, total=False):
    """The options of `Model.stream`, which documents them."""

    every: int
    lookahead: int
    deadline: float | None
    forget: float
    clock: Clock
    preset: Preset | Literal["auto"]
    gate: Gate | None
    depth_kind: DepthKind | None
    seed: int


def open_stream(
    session: Session,
    *,
    every: int = 2,
    lookahead: int = 2,
    deadline: float | None = None,
    forget: float = 3.0,
    clock: Clock = time.monotonic,
    preset: Preset | Literal["auto"] = "fast",
    gate: Gate | None = Gate(),  # noqa: B008 - frozen
    depth_kind: DepthKind | None = None,
    seed: int = 23,
    **settings: Any,
) -> Stream:
    """Opens a stream; see `Model.stream`."""
    config = config_of(session.manifest)
    runner = StreamRunner(session, Settings(**settings), FrameNoise.of(seed))
    if "steps" in settings:
        steps: tuple[int, ...] = (settings["steps"],)
    elif preset == "auto":
        steps = tuple(PRESETS.values())
    elif preset in PRESETS:
        steps = (PRESETS[preset],)
    else:
        raise InputError(f"preset {preset!r} is unknown; expected {', '.join(PRESETS)} or auto.", field="preset")
    options = StreamOptions(every, lookahead, deadline, forget, steps, gate, depth_kind)
    find_depth = None if config.depth is None else runner.find_depth
    return Stream(runner, config.frames, config.size, options, find_depth, clock)


@dataclass(frozen=True)
class StreamRunner:
    """Draws the windows of a stream; see `amodal.runtime.clips.stream_windows.RunWindow`.

    A frame's noise is its own in all windows. Guidance goes from the first frame of each window to the last.

    Attributes:
        settings: all but the steps.
    """

    session: Session
    settings: Settings
    noise: FrameNoise

    @cached_property
    def config(self) -> Config:
        """The bundle's config."""
        return config_of(self.session.manifest)

    def __call__(
        self, objects: Mapping[ObjectId, NDArray[np.float32]], depth: NDArray[np.float32], numbers: range, steps: int
    ) -> dict[ObjectId, NDArray[np.uint8]]:
        """Draws objects; a window at the beginning that is too short is padded by repeating its last frame."""
        config, session = self.config, self.session
        stage = Stage(session.components, "segment", replace(self.settings, steps=steps))
        session.components.start_timing()
        frames, ids = config.frames, list(objects)
        scale = guidance_ramp(self.settings.guidance, frames)
        maps = padded_frames(depth, frames, 0)
        at_once = 1 if session.backend.on_gpu else len(ids)
        found: dict[ObjectId, NDArray[np.uint8]] = {}
        with session.backend.active():
            for start in range(0, len(ids), at_once):
                group = ids[start : start + at_once]
                modal = padded_frames(np.stack([objects[object_id] for object_id in group]), frames, 1)
                noise = NoiseByFrame(stage, self.noise, range(numbers.start, numbers.start + frames))
                pictures = SegmentPictures(modal, maps, np.ones(modal.shape[:2], bool))
                drawn = run_block(stage, pictures, noise, self._plan, scale).frames[:, : len(numbers)]
                found |= dict(zip(group, drawn, strict=True))
        return found

    def find_depth(self, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Computes relative depth of a frame; see `amodal.runtime.clips.stream_windows.FindDepth`."""
        with self.session.backend.active():
            prepared = self.session.backend.xp.asarray(prepare_rgb(picture, self.config.size))
            maps = find_maps(self.session, prepared, self.settings.depth_channels)
            return self.session.backend.to_host(maps).astype(np.float32)

    def _plan(self, step: int) -> Any:
        return windows_at("chunks", self.config.frames, self.config.frames, step, 1)
