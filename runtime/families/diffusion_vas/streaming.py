"""Opens streams over the networks of a bundle."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...clips.gate import Gate
from ...clips.stream import Stream
from ...clips.stream_blending import BlendedWindows
from ...clips.stream_options import Clock, StreamOptions
from ...clips.windows import StreamWindows
from ...errors import InputError
from ...execution.session import Session
from ...pictures.depth import DepthChannels
from ...pictures.depth_kind import DepthKind
from ...pictures.images import prepare_rgb
from .config import config_of
from .one_window import WindowRun
from .running import find_maps
from .settings import PRESETS, Settings, SettingsKeywords

StreamPreset = Literal["exact", "balanced", "fast", "auto"]


class StreamKeywords(SettingsKeywords, total=False):
    """The options of `Model.stream`, which documents them."""

    every: int
    lookahead: int
    windows: StreamWindows
    deadline: float | None
    forget: float
    clock: Clock
    preset: StreamPreset
    gate: Gate | None
    depth_kind: DepthKind | None
    seed: int


def open_stream(session: Session, options: Mapping[str, Any]) -> Stream:
    """Opens a stream; see `Model.stream`."""
    return _open(session, **options)


def _open(
    session: Session,
    *,
    clock: Clock = time.monotonic,
    preset: StreamPreset | None = None,
    depth_kind: DepthKind | None = None,
    seed: int = 23,
    **more: Any,
) -> Stream:
    own = ("every", "lookahead", "windows", "deadline", "forget", "gate")
    options = {name: more.pop(name) for name in own if name in more}
    if preset is not None and "steps" in more:
        raise InputError("preset and steps both say how many steps are run; give one of them.", field="preset")
    steps = (more.pop("steps"),) if "steps" in more else _steps_of(preset or "fast")
    config, settings = config_of(session.manifest), Settings(**more, steps=steps[0])
    channels = settings.depth_channels
    find_depth = None if config.depth is None else partial(_find_depth, session, channels)
    given = StreamOptions(**options, steps=steps, depth_kind=depth_kind)
    given.check(config.frames)
    run = WindowRun(session, settings, seed, given.reach(config.frames))
    return Stream(BlendedWindows(run, config.frames, config.size, given, find_depth), given, clock)


def _steps_of(preset: str) -> tuple[int, ...]:
    """Returns the numbers of steps to choose from, most first."""
    if preset != "auto" and preset not in PRESETS:
        raise InputError(f"preset {preset!r} is unknown; expected {', '.join(PRESETS)} or auto.", field="preset")
    return tuple(sorted(PRESETS.values(), reverse=True)) if preset == "auto" else (PRESETS[preset],)


def _find_depth(session: Session, channels: DepthChannels | None, picture: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Computes relative depth of a frame; see `amodal.runtime.clips.stream_blending.FindDepth`."""
    with session.backend.active():
        prepared = session.backend.xp.asarray(prepare_rgb(picture, config_of(session.manifest).size))
        return session.backend.to_host(find_maps(session, prepared, channels)).astype(np.float32)
