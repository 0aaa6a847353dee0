"""Draws the objects of a stream in windows of several frames, whose pictures are blended; uses depth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..pictures.images import Size, prepare_modal, resize_masks, threshold
from ..pictures.objects import ObjectId
from .depth_range import Extremes
from .gate import JUDGEMENTS, Judgement, needs_network
from .stream_drawing import Drawn
from .stream_frames import Frame
from .stream_options import StreamOptions

RANGE_FRAMES = 256
"""Frames whose extremes give the range of depth: enough that what passes does not count, few enough to follow."""


class RunWindow(Protocol):
    """Draws the objects of a window."""

    def __call__(
        self, objects: Mapping[ObjectId, NDArray[np.float32]], depth: NDArray[np.float32], numbers: range, steps: int
    ) -> Mapping[ObjectId, NDArray[np.uint8]]:
        """Draws objects.

        Args:
            objects: visible masks, float32 [m, H, W] in [-1, 1]; m is at most T or, with dilated windows, 2 T.
            depth: float32 [m, H, W] in [-1, 1].
            numbers: of the m frames in the stream.
            steps: of the sampler.

        Returns:
            decoded pictures of the last frames, T or fewer: uint8 [n, H, W, 3].
        """
        ...


FindDepth = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""Computes relative depth float32 [1, H, W], in the network's own range, from a frame uint8 [1, h, w, 3]."""


class BlendedWindows:
    """Draws windows with `run`, and blends what several of them drew of a frame.

    See `amodal.runtime.clips.stream_drawing.Drawing`.

    Args:
        run: draws a window.
        frames: T, frames of a window.
        size: (H, W) of pictures as the networks take them.
        options: those of the stream, which gives the gate and the reach of windows.
        find_depth: computes depth; None if that is not possible.
    """

    def __init__(
        self, run: RunWindow, frames: int, size: Size, options: StreamOptions, find_depth: FindDepth | None = None
    ) -> None:
        self.run, self.frames, self.depth_size = run, frames, size
        self.reach, self.computes_depth = options.reach(frames), find_depth is not None
        self._find_depth, self._gate = find_depth, options.gate
        self._objects: dict[ObjectId, _Memory] = {}
        self._depth, self._extremes = Ring(self.reach, size), Extremes(RANGE_FRAMES)

    def begin_anew(self) -> None:
        """See `Drawing`."""
        self._extremes = Extremes(RANGE_FRAMES)

    def take_in(self, frame: Frame) -> None:
        """See `Drawing`."""
        self._depth[frame.number][:] = self._depth_of(frame)
        self._extremes.add(self._depth[frame.number][None])

    def see(self, object_id: ObjectId, frame: Frame) -> None:
        """See `Drawing`."""
        if object_id not in self._objects:
            self._objects[object_id] = _Memory(frame.number, self.reach, self.depth_size)
        self._objects[object_id].see(frame.number, frame.masks.get(object_id))

    def forget(self, object_id: ObjectId) -> None:
        """See `Drawing`."""
        del self._objects[object_id]

    def look(self, frames: Sequence[Frame], objects: Iterable[ObjectId]) -> _Window:
        """See `Drawing`."""
        if len(frames) < self.reach:
            frames = frames[-self.frames :]
        numbers = range(frames[0].number, frames[-1].number + 1)
        depth = self._extremes.range().normalise(np.stack([self._depth[n] for n in numbers]))
        seen = {object_id: self._look_at(self._objects[object_id], numbers, depth) for object_id in objects}
        return _Window(self, numbers, depth, seen)

    def _look_at(self, memory: _Memory, numbers: range, depth: NDArray[np.float32]) -> _Seen:
        modal = memory.modal(numbers)
        judged = None if self._gate is None else self._gate.judge(modal > 0, depth)
        return _Seen(memory, modal, judged)

    def _depth_of(self, frame: Frame) -> NDArray[np.float32]:
        if frame.depth is not None:
            return frame.depth
        assert self._find_depth is not None
        assert frame.picture is not None
        return np.asarray(self._find_depth(frame.picture[None])[0])


@dataclass(frozen=True)
class _Seen:
    """An object in a window: visible masks float32 [m, H, W], and judgements uint8 [m]; None without a gate."""

    memory: _Memory
    modal: NDArray[np.float32]
    judged: NDArray[np.uint8] | None


@dataclass(frozen=True)
class _Window:
    """See `amodal.runtime.clips.stream_drawing.StreamWindow`; `depth` is float32 [m, H, W] in [-1, 1]."""

    drawing: BlendedWindows
    numbers: range
    depth: NDArray[np.float32]
    objects: Mapping[ObjectId, _Seen]

    def is_needed(self, object_id: ObjectId, first: int) -> bool:
        one = self.objects[object_id]
        if not self.is_seen(object_id):
            return False
        wanted = max(first, one.memory.born) - self.numbers.start
        return one.judged is None or bool(needs_network(one.judged[wanted:]).any())

    def is_seen(self, object_id: ObjectId) -> bool:
        return bool((self.objects[object_id].modal > 0).any())

    def judgement(self, object_id: ObjectId, number: int) -> Judgement | None:
        judged = self.objects[object_id].judged
        return None if judged is None else JUDGEMENTS[judged[number - self.numbers.start]]

    def prepare(self) -> None:
        pass

    def draw(self, objects: Sequence[ObjectId], steps: int) -> None:
        drawn = self.drawing.run({o: self.objects[o].modal for o in objects}, self.depth, self.numbers, steps)
        for object_id in objects:
            self.objects[object_id].memory.blend(self.numbers[-self.drawing.frames :], drawn[object_id])

    def whole(self, object_id: ObjectId, frame: Frame) -> Drawn | None:
        drawn = self.objects[object_id].memory.whole(frame.number)
        return None if drawn is None else Drawn(resize_masks(drawn[None], frame.size)[0])


def blend_shares(count: int) -> NDArray[np.float32]:
    """Returns the weight of each frame of a window in what is blended, float32 [count].

    It falls from the middle with the square of the distance to the end. With a weight that falls evenly, what earlier
    windows drew at their ends, before they had seen what came next, spoils the mask: by a point of mIoU_occ.
    """
    return np.square(np.minimum(np.arange(1, count + 1), np.arange(count, 0, -1))).astype(np.float32)


class Ring:
    """Arrays by number of the frame, in memory that is taken once; a frame takes the place of an older one."""

    def __init__(self, reach: int, shape: tuple[int, ...]) -> None:
        self._values = np.zeros((reach, *shape), np.float32)
        self._numbers = np.full(reach, -1)

    def __contains__(self, number: int) -> bool:
        return bool(self._numbers[number % len(self._numbers)] == number)

    def __getitem__(self, number: int) -> NDArray[np.float32]:
        """The array of a frame; zeros, from then on, if there is none."""
        place = number % len(self._numbers)
        if self._numbers[place] != number:
            self._numbers[place] = number
            self._values[place] = 0
        found: NDArray[np.float32] = self._values[place]
        return found


class _Memory:
    """What was seen and drawn of an object in the frames that windows reach.

    Args:
        born: number of the first frame in which it is seen.
        reach: frames that windows see.
        size: (H, W) of masks as the networks take them.
    """

    def __init__(self, born: int, reach: int, size: Size) -> None:
        self.born, self._size = born, size
        self._modal, self._drawn, self._weights = Ring(reach, size), Ring(reach, (*size, 3)), Ring(reach, (1,))

    def see(self, number: int, mask: NDArray[np.bool_] | None) -> None:
        """Takes in a frame; each once, in order."""
        self._modal[number][:] = -1 if mask is None else prepare_modal(mask[None], self._size)[0]

    def modal(self, numbers: range) -> NDArray[np.float32]:
        """Returns visible masks, float32 [n, H, W] in [-1, 1]; empty ones before its birth."""
        return np.stack([self._modal[n] if n in self._modal else np.full(self._size, np.float32(-1)) for n in numbers])

    def blend(self, numbers: range, pictures: NDArray[np.uint8]) -> None:
        """Adds the pictures uint8 [n, H, W, 3] that a window drew of these frames."""
        for number, picture, weight in zip(numbers, pictures, blend_shares(len(numbers)), strict=True):
            drawn, total = self._drawn[number], self._weights[number]
            drawn += picture * weight
            total += weight

    def whole(self, number: int) -> NDArray[np.bool_] | None:
        """Returns the whole object in a frame, bool [H, W], of all windows that drew it; None if none did."""
        weight = float(self._weights[number][0])
        if weight == 0:
            return None
        picture = np.rint(self._drawn[number] / weight).astype(np.uint8)
        found: NDArray[np.bool_] = threshold(picture[None], self._modal[number][None])[0]
        return found
