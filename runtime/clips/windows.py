"""Cuts a long clip into blocks, and a block into the windows of T frames that the networks take.

A sampler denoises all frames of a block together. At every step, windows of T frames cover the block:

    chunks   0 to T, T to 2 T and so on; independent of each other
    shifted  at even steps as chunks, at odd ones the cuts lie T / 2 later, so that neighbours agree on what is hidden
    joint    windows overlap by T / 2, and what they give is averaged at every step
    dilated  in the first steps every second frame is in a window, so that it looks twice as far; then shifted; the cuts
             move in both
    blended  blocks of a single window that overlap by T / 2; their pictures are blended

A last window that would stick out is moved back, never padded. Joint windows are MultiDiffusion (Bar-Tal et al., ICML
2023) in time; shifted and dilated ones cost no more calls than chunks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError

WindowStrategy = Literal["shifted", "blended", "joint", "dilated", "chunks"]
BLOCK_FRAMES = 128
"""Frames of a block, about: bounds memory, and what is lost when a run is killed."""
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
    """Returns the windows that cover a block of `count` frames at a step of `steps`; one if it has at most T frames."""
    if count <= frames:
        return [_window(np.arange(count), np.ones(count, bool))]
    if strategy == "joint":
        return _averaged(count, frames)
    if strategy == "dilated" and step < math.ceil(_DILATED_SHARE * steps):
        return _dilated(count, frames, frames // 2 if step % 2 else 0)
    if strategy in ("shifted", "dilated") and step % 2:
        return list(_shifted(count, frames))
    return _chunks(count, frames)


def _window(frames: NDArray[np.intp], own: NDArray[np.bool_]) -> Window:
    return Window(frames.astype(np.intp), own.astype(np.float32))


def _chunks(count: int, frames: int) -> list[Window]:
    windows, done = [], 0
    for start in [*range(0, count - frames, frames), count - frames]:
        numbers = np.arange(start, start + frames)
        windows.append(_window(numbers, numbers >= done))
        done = start + frames
    return windows


def _shifted(count: int, frames: int) -> Iterator[Window]:
    """Yields windows with cuts at T / 2, 3 T / 2 and so on, as many as there are chunks.

    The short ends of the block share a window where both fit into one: first the end, then the beginning.
    """
    half = frames // 2
    starts = range(half, count - frames + 1, frames)
    rest = (count - half) % frames  # at the end of the block
    if 0 < rest <= frames - half:
        tail, head = np.arange(count - (frames - half), count), np.arange(half)
        yield _window(np.concatenate([tail, head]), np.concatenate([tail >= count - rest, head >= 0]))
    else:
        numbers = np.arange(frames)
        yield _window(numbers, numbers < half)
    for start in starts:
        yield _window(np.arange(start, start + frames), np.ones(frames, bool))
    if rest > frames - half:
        numbers = np.arange(count - frames, count)
        yield _window(numbers, numbers >= count - rest)


def _dilated(count: int, frames: int, offset: int) -> list[Window]:
    """Returns windows of every second frame, as many as there are chunks.

    They are cut from a ring, even frames forwards and odd ones backwards, of which neighbours are at most two frames
    apart. It has no ends, so cuts can lie anywhere; a window around one of its two turns has every frame.
    """
    ring = np.roll(np.concatenate([np.arange(0, count, 2), np.arange(1, count, 2)[::-1]]), -offset)
    windows = []
    for window in _chunks(count, frames):
        order = np.argsort(ring[window.frames])
        windows.append(Window(ring[window.frames][order], window.weights[order]))
    return windows


def _averaged(count: int, frames: int) -> list[Window]:
    step = max(frames // 2, 1)
    numbers = [np.arange(start, start + frames) for start in [*range(0, count - frames, step), count - frames]]
    covering = np.bincount(np.concatenate(numbers), minlength=count)
    return [Window(n.astype(np.intp), (1 / covering[n]).astype(np.float32)) for n in numbers]
