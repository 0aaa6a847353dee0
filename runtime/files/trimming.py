"""Which frames of a clip are used: from one, to another, every n-th."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import InputError

_SECONDS = re.compile(r"([0-9]*\.?[0-9]+)\s*s(ec|econds?)?")


@dataclass(frozen=True)
class Moment:
    """A place in a clip: a number of frames or, if `seconds`, of seconds."""

    value: float
    seconds: bool = False

    @classmethod
    def parse(cls, text: str) -> Moment:
        """Reads `12` as frames, `1.5s` as seconds; raises `ValueError` for anything else."""
        match = _SECONDS.fullmatch(text.strip().lower())
        if match is not None:
            return cls(float(match[1]), seconds=True)
        if text.strip().isdecimal():
            return cls(int(text))
        raise ValueError(text)

    def __str__(self) -> str:
        return f"{self.value:g}{'s' * self.seconds}"

    def in_frames(self, fps: float | None, name: str) -> int:
        """Returns the nearest number of frames; raises `InputError` for seconds where no frame rate is known."""
        if not self.seconds:
            return int(self.value)
        if fps is None:
            raise InputError(
                f"`{name}` is {self.value:g} seconds, but the frames say no frame rate; give it in frames.", field=name
            )
        return round(self.value * fps)


@dataclass(frozen=True)
class Trim:
    """The frames from `start` up to `stop`, without it, every `stride`-th; counted from 0 in the clip's order."""

    start: Moment = Moment(0)
    stop: Moment | None = None
    stride: Moment = Moment(1)

    def end(self, fps: float | None) -> int | None:
        """Returns the frame to stop before, None for the last."""
        return None if self.stop is None else self.stop.in_frames(fps, "stop")

    def step(self, fps: float | None) -> int:
        """Returns the distance of the frames used; at least 1."""
        return max(1, self.stride.in_frames(fps, "stride"))

    def choose(self, count: int, fps: float | None) -> range:
        """Returns the numbers of the frames that are used, of `count`; raises `InputError` if there are none."""
        if self.stride.value <= 0:
            raise InputError(f"`stride` is {self.stride.value:g}; expected 1 or more.", field="stride")
        end = self.end(fps)
        chosen = range(self.start.in_frames(fps, "start"), count if end is None else min(end, count), self.step(fps))
        if not chosen:
            raise InputError(
                f"There are {count} frames (0 to {count - 1}), none of them from {chosen.start} up to "
                f"{'the end' if end is None else end}; choose others with `start` and `stop`.",
                field="start" if chosen.start >= count else "stop",
            )
        return chosen

    @property
    def is_whole(self) -> bool:
        """Whether every frame is used."""
        return self == Trim()
