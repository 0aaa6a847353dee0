"""Cuts a long clip into blocks, and a block into the windows of T frames that the networks take.

A sampler denoises all frames of a block together. At every step, windows of T frames cover the block:

    chunks   0 to T, T to 2 T and so on; independent of each other
    shifted  chunks whose cuts move at every step, by T / 2, T / 4, 3 T / 4 and so on, so that neighbours agree on what
             is hidden
    joint    windows overlap by T / 2, and what they give is averaged at every step
    dilated  in the first steps every second frame is in a window, so that it looks twice as far; then shifted
    blended  blocks of a single window that overlap by T / 2; their pictures are blended

Streams, which have only the newest frames, cut those into windows of two ways, see `newest_windows`.

A last window that would stick out is moved back, never padded. Joint windows are MultiDiffusion (Bar-Tal et al., ICML
2023) in time; shifted ones cost no more calls than chunks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

WindowStrategy = Literal["shifted", "blended", "joint", "dilated", "chunks"]
StreamWindows = Literal["newest", "dilated"]
BLOCK_FRAMES = 128
"""Frames of a block, about: bounds memory, and what is lost when a run is killed."""
_EIGHTHS = (0, 4, 2, 6, 1, 5, 3, 7)
"""Of T, where cuts lie in the last step, the one before and so on: between two, they are as far apart as they can be
(van der Corput)."""
_DILATED_SHARE = 0.4  # of the steps


class Window(NamedTuple):
    """T frames that the networks see together.

    Attributes:
        frames: their numbers in the block, [T].
        weights: float32 [T], the share of this window in the result at each of them; 0 where another window decides.
    """

    frames: NDArray[np.intp]
    weights: NDArray[np.float32]


class Block(NamedTuple):
    """Frames `start` to `stop` of a clip, which are denoised together.

    Attributes:
        final: the frames before this one are in no later block.
        ramp: the frames before this one are also in the block before.
    """

    start: int
    stop: int
    final: int
    ramp: int


def check_strategy(strategy: str) -> None:
    """Raises `InputError` for an unknown strategy."""
    if strategy not in get_args(WindowStrategy):
        raise InputError(
            f"windows {strategy!r} are unknown; expected {', '.join(get_args(WindowStrategy))}.", field="windows"
        )


def longest_block(frames: int, strategy: WindowStrategy, length: int | None = None) -> int:
    """Returns the most frames of a block; arguments and errors are those of `cut_blocks`."""
    check_strategy(strategy)
    if length is not None and length < 1:
        raise InputError(f"blocks of {length} frames: expected at least 1.", field="block_frames")
    wanted = BLOCK_FRAMES if length is None else length
    return frames if strategy == "blended" else max(math.ceil(wanted / frames), 2) * frames


def cut_blocks(count: int, frames: int, strategy: WindowStrategy, length: int | None = None) -> list[Block]:
    """Cuts a clip into blocks of one length, which overlap by T / 2 or more and are spread evenly.

    Args:
        count: N, frames of the clip.
        frames: T.
        length: most frames of a block; None for about `BLOCK_FRAMES`. Rounded up to whole windows, at least two.

    Raises:
        InputError: an unknown strategy, or a length below 1.
    """
    longest = longest_block(frames, strategy, length)
    if count <= longest:
        return [Block(0, count, count, 0)]
    overlap = frames // 2
    number = math.ceil((count - overlap) / (longest - overlap))
    even = math.ceil((count + (number - 1) * overlap) / number)
    longest = min(math.ceil(even / frames) * frames, longest)
    starts = [index * (count - longest) // (number - 1) for index in range(number)]
    stops = [start + longest for start in starts]
    return [
        Block(start, stop, following, before)
        for start, stop, following, before in zip(starts, stops, [*starts[1:], count], [0, *stops[:-1]], strict=True)
    ]


def blend_weights(overlap: int) -> NDArray[np.float32]:
    """Returns the share of the later block in each frame of an overlap, rising linearly: float32 [overlap]."""
    return (np.arange(1, overlap + 1) / (overlap + 1)).astype(np.float32)


def windows_at(strategy: WindowStrategy, count: int, frames: int, step: int, steps: int) -> list[Window]:
    """Returns the windows of a block of `count` frames at a step of `steps`; one if it has at most T frames.

    Every frame is in a window that decides it at the last step and at most others, see `_shifted`.
    """
    if count <= frames:
        return [_window(np.arange(count), np.ones(count, bool))]
    if strategy == "joint":
        return _averaged(count, frames)
    if strategy == "dilated" and _looks_far(step, steps) and count >= 2 * frames:
        return _every_second(count, frames)
    offset = _EIGHTHS[(steps - 1 - step) % 8] * frames // 8
    if strategy in ("shifted", "dilated") and offset:
        return list(_shifted(count, frames, offset, at_start=step % 2 == 1))
    return _chunks(count, frames)


def newest_windows(count: int, frames: int, step: int, steps: int) -> list[Window]:
    """Returns the windows of a stream's newest frames at a step of `steps`: one of at most T frames, or those of 2 T.

    Of 2 T frames, which are those of a stream with dilated windows, every second one is in a window in the first steps,
    then only the newest T are in one.

    Args:
        count: at most T, or 2 T.
    """
    if count <= frames:
        return [_window(np.arange(count), np.ones(count, bool))]
    return (
        _every_second(count, frames)
        if _looks_far(step, steps)
        else [_window(np.arange(frames, count), np.ones(frames, bool))]
    )


def _looks_far(step: int, steps: int) -> bool:
    """Returns whether dilated windows hold every second frame at a step."""
    return step < math.ceil(_DILATED_SHARE * steps)


def _every_second(count: int, frames: int) -> list[Window]:
    return [
        _window(parity + 2 * window.frames, window.weights > 0)
        for parity in (0, 1)
        for window in _chunks((count + 1 - parity) // 2, frames)
    ]


def _window(frames: NDArray[np.intp], own: NDArray[np.bool_]) -> Window:
    return Window(frames.astype(np.intp), own.astype(np.float32))


def _chunks(count: int, frames: int) -> list[Window]:
    windows, done = [], 0
    for start in [*range(0, count - frames, frames), count - frames]:
        numbers = np.arange(start, start + frames)
        windows.append(_window(numbers, numbers >= done))
        done = start + frames
    return windows


def _shifted(count: int, frames: int, offset: int, at_start: bool) -> Iterator[Window]:
    """Yields windows with cuts at `offset`, `offset` + T and so on, at most as many as there are chunks.

    Where the short ends of the block would take a window more than chunks, only one end has a window: the beginning if
    `at_start`. The other is not decided at this step. A window of both ends would be no dearer, but what is at one end
    then turns up at the other.
    """
    rest = (count - offset) % frames  # at the end of the block
    dear = 0 < rest <= frames - offset
    if at_start or not dear:
        numbers = np.arange(frames)
        yield _window(numbers, numbers < offset)
    for start in range(offset, count - frames + 1, frames):
        yield _window(np.arange(start, start + frames), np.ones(frames, bool))
    if rest and not (dear and at_start):
        numbers = np.arange(count - frames, count)
        yield _window(numbers, numbers >= count - rest)


def _averaged(count: int, frames: int) -> list[Window]:
    step = max(frames // 2, 1)
    numbers = [np.arange(start, start + frames) for start in [*range(0, count - frames, step), count - frames]]
    covering = np.bincount(np.concatenate(numbers), minlength=count)
    return [Window(n.astype(np.intp), (1 / covering[n]).astype(np.float32)) for n in numbers]
