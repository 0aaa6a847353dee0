"""How clips longer than the bundle's, and several objects, are run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias

from ...clips.gate import Gate, require_gate
from ...clips.noise import FrameNoise
from ...clips.windows import WindowStrategy, check_strategy
from ...errors import InputError, MemoryBudgetError
from ...execution.session import Session
from ...progress import Progress, silent
from ...sampling.noise import NoiseStream
from .config import config_of
from .running import Request, shape_of
from .settings import Settings, SettingsKeywords
from .shape import RunShape

OBJECTS_AT_ONCE = 8
"""The most objects that are denoised together unless the caller says otherwise: bounds memory."""
Seed: TypeAlias = int | NoiseStream | FrameNoise
"""A number, or the noise after an earlier stage."""


@dataclass(frozen=True)
class BlockRequest:
    """How clips are run.

    Attributes:
        seed: of the noise, as for `Model.segment`.
        windows: see `amodal.runtime.clips.windows`.
        block_frames: frames of a block; None for the default.
        gate: leaves out frames that need no network; None to run all in which the object is seen.
        objects_at_once: objects that are denoised together; None for as many as fit into memory, at most
            `OBJECTS_AT_ONCE`.
        propagate: as for `Model.complete`.
        progress: called with the stage, "block B of N, object, step", and how many of all steps are done.
    """

    settings: Settings = field(default_factory=Settings)
    seed: int | NoiseStream | FrameNoise = 23
    windows: WindowStrategy = "shifted"
    block_frames: int | None = None
    gate: Gate | None = None
    objects_at_once: int | None = None
    propagate: bool | None = None
    progress: Progress = silent

    def __post_init__(self) -> None:
        check_strategy(self.windows)
        require_gate(self.gate)
        if self.objects_at_once is not None and self.objects_at_once < 1:
            raise InputError(f"{self.objects_at_once} objects at once: expected 1 or more.", field="objects_at_once")


class BlockKeywords(SettingsKeywords, total=False):
    """The fields of `Settings` and, but for the seed, of `BlockRequest` as keyword arguments."""

    windows: WindowStrategy
    block_frames: int | None
    gate: Gate | None
    objects_at_once: int | None
    propagate: bool | None
    progress: Progress


def block_request(seed: Seed, keywords: Mapping[str, Any]) -> BlockRequest:
    """Returns the request of keyword arguments."""
    own = {name for name in BlockKeywords.__annotations__ if name in {f.name for f in fields(BlockRequest)}}
    settings = Settings(**{name: value for name, value in keywords.items() if name not in own})
    return BlockRequest(settings, seed, **{name: value for name, value in keywords.items() if name in own})


def is_long(session: Session, modal: Any) -> bool:
    """Returns whether unchecked masks have more frames than the bundle's clips."""
    shape = shape_of(modal)
    return len(shape) == 3 and shape[0] > config_of(session.manifest).frames


def long_request(request: Request, windows: WindowStrategy) -> BlockRequest:
    """Returns the request of one object in a long clip; raises `InputError` for what only short ones have."""
    given = {
        "padding": request.padding is not None,
        "samples": request.samples != 1,
        "callback": request.callback is not None,
        "to": request.to != "host",
        "out": bool(request.out),
    }
    for name, unusable in given.items():
        if unusable:
            raise InputError(
                f"`{name}` is for clips of at most the bundle's frames; omit it, or give fewer frames.", field=name
            )
    return BlockRequest(request.settings, request.seed, windows, propagate=request.propagate)


def fit_objects(session: Session, shape: RunShape, settled: bool = False) -> RunShape:
    """Returns a run that the memory plan, if there is one, allows, with as many objects at once as fit.

    Args:
        shape: with the most objects.
        settled: whether they are not to be fewer.

    Raises:
        MemoryBudgetError: not even one object fits, or the settled number.
    """
    if session.planned is None:
        return shape
    for objects in range(shape.objects, 1, -1):
        try:
            fitted: RunShape = session.planned.fit_to_budget(replace(shape, objects=objects))
        except MemoryBudgetError:
            if settled:
                raise
        else:
            return fitted
    last: RunShape = session.planned.fit_to_budget(replace(shape, objects=1))
    return last
