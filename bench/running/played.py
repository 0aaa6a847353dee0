"""What a stream is measured with: a clock that is moved, objects without end, a model that takes a given time."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.errors import InputError
from amodal.runtime.pictures.images import Size
from amodal.runtime.scenes import make_scene

_FRAMES = 16  # of the scenes, which are played forwards and backwards
_SEEDS = 1000  # among which objects are looked for
_STUB_STEPS = 6  # for which the stub's time is given


class SimulatedClock:
    """Seconds from 0, which pass while something computes, and otherwise only where they are moved on.

    Args:
        timer: gives the seconds that computing takes.
    """

    def __init__(self, timer: Callable[[], float] = time.perf_counter) -> None:
        self._timer, self._now = timer, 0.0
        self._since: float | None = None

    def __call__(self) -> float:
        """Returns the seconds that have passed."""
        return self._now + (0.0 if self._since is None else self._timer() - self._since)

    def move_on(self, seconds: float) -> None:
        """Lets time pass, in addition to what computing takes."""
        self._now += seconds

    def wait_until(self, moment: float) -> None:
        """Moves on to a moment, unless that is over."""
        self._now = max(self._now, moment)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Lets the timer's seconds pass in the block."""
        self._since = self._timer()
        try:
            yield
        finally:
            self._now, self._since = self(), None


class Player:
    """Visible masks, and depth or pictures, of objects that move for ever: drawn scenes, forwards and backwards.

    Each object is that of another scene, so masks may overlap; depth and pictures are those of the first one's scene.

    Args:
        objects: 1 or more, with ids from 1.
        size: (h, w) of the frames.
        pictures: for networks that draw from pictures; otherwise frames have depth.

    Raises:
        InputError: there are not that many scenes in which the object is seen in all frames.
    """

    def __init__(self, objects: int, size: Size, pictures: bool = False) -> None:
        masks: list[NDArray[np.bool_]] = []
        for seed in range(_SEEDS):
            scene = make_scene(seed, _FRAMES, size)
            if not scene.modal.any(axis=(1, 2)).all():
                continue
            if not masks:
                self._frames = scene.frames if pictures else scene.depth
            masks.append(scene.modal)
            if len(masks) == objects:
                break
        else:
            raise InputError(f"objects {objects}: expected at most {len(masks)}.", field="objects")
        self._masks, self._pictures = masks, pictures

    def __getitem__(self, number: int) -> tuple[NDArray[Any] | None, dict[int, NDArray[np.bool_]], NDArray[Any] | None]:
        """Returns a frame's picture, uint8 [h, w, 3], the masks, bool [h, w] by object, and its depth, float32 [h, w].

        Either the picture or the depth (nearer is larger) is None.
        """
        period = 2 * (_FRAMES - 1)
        place = number % period
        place = min(place, period - place)
        masks, frame = {index: each[place] for index, each in enumerate(self._masks, start=1)}, self._frames[place]
        return (frame, masks, None) if self._pictures else (None, masks, frame)


class StubWindow:
    """A `RunWindow` that draws what is seen, after a given time.

    Args:
        frames: T of a window.
        seconds: that a window of 6 steps takes, whatever the number of objects; other steps take their share.
        wait: lets seconds pass.
    """

    def __init__(self, frames: int, seconds: float, wait: Callable[[float], None]) -> None:
        self._frames, self._seconds, self._wait = frames, seconds, wait
        self.waited = 0.0

    def __call__(
        self, objects: Mapping[int | str, NDArray[np.float32]], depth: NDArray[np.float32], numbers: range, steps: int
    ) -> dict[int | str, NDArray[np.uint8]]:
        """See `amodal.runtime.clips.stream_windows.RunWindow`."""
        seconds = self._seconds * steps / _STUB_STEPS
        self._wait(seconds)
        self.waited += seconds
        drawn = {key: np.where(modal[-self._frames :] > 0, 255, 0).astype(np.uint8) for key, modal in objects.items()}
        return {key: np.repeat(masks[..., None], 3, axis=-1) for key, masks in drawn.items()}
