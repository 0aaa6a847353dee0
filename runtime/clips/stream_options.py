"""How a stream is run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import get_args

import numpy as np

from ..errors import InputError
from ..pictures.depth_kind import DepthKind, check_kind
from .gate import Gate, require_gate
from .windows import StreamWindows

Clock = Callable[[], float]


@dataclass(frozen=True)
class StreamOptions:
    """How a stream is run.

    Attributes:
        every: new frames from window to window.
        lookahead: frames at the end of a window without a result yet.
        windows: of the newest T frames, or "dilated", which also look at the T before, with half as many calls more.
        deadline: seconds that a window may take; objects that do not fit wait, and those that have waited longest go
            first. None for no limit.
        forget: seconds after which an object that is not seen ends, and a gap between frames after which the history
            begins anew.
        steps: of the sampler, 1 without one; with several, the most with which all objects fit into the deadline or,
            without one, into the time in which `every` frames come.
        gate: leaves out objects that nothing hides; None to draw all.
        depth_kind: what the numbers of depth mean, as for `Model.segment`.
    """

    every: int = 2
    lookahead: int = 2
    windows: StreamWindows = "newest"
    deadline: float | None = None
    forget: float = 3.0
    steps: tuple[int, ...] = (6,)
    gate: Gate | None = field(default_factory=Gate)
    depth_kind: DepthKind | None = None

    def reach(self, frames: int) -> int:
        """Returns how many of the newest frames windows of `frames` see."""
        return 2 * frames if self.windows == "dilated" else frames

    def check(self, frames: int) -> None:
        """Raises `InputError` unless the options are in range and fit windows of `frames`."""
        for name in ("every", "lookahead"):
            if not isinstance(value := getattr(self, name), (int, np.integer)):
                raise InputError(f"{name} {value!r}: expected a whole number of frames.", field=name)
        require_gate(self.gate)
        if self.windows not in get_args(StreamWindows):
            raise InputError(
                f"windows {self.windows!r} of a stream are unknown; expected {' or '.join(get_args(StreamWindows))}.",
                field="windows",
            )
        if not 1 <= self.every <= frames:
            most = f"1 to {frames}" if frames > 1 else "1"
            raise InputError(f"a window every {self.every} frames: expected {most}, its length.", field="every")
        if not 0 <= self.lookahead <= frames - self.every:
            most = f"0 to {frames - self.every}" if frames > self.every else "0"
            raise InputError(
                f"lookahead {self.lookahead}: expected {most}, so that each of {self.every} new frames is in a window "
                f"of {frames}.",
                field="lookahead",
            )
        if self.deadline is not None and not 0 < self.deadline < math.inf:
            raise InputError(f"deadline {self.deadline:g}: expected seconds above 0, or None.", field="deadline")
        if not 0 < self.forget < math.inf:
            raise InputError(f"forget {self.forget:g}: expected seconds above 0.", field="forget")
        check_kind(self.depth_kind)
