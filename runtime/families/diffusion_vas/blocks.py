"""Runs the stages over clips of any length and number of objects, block by block."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...clips.gate import Gate, needs_network
from ...clips.noise import FrameNoise
from ...clips.source import ClipSource, require_distinct
from ...execution.session import Session
from ...pictures import images
from ...pictures.propagation import SourceFrames
from ...sampling.noise import NoiseStream
from .block_inputs import (
    Amodal,
    CompletePictures,
    Depth,
    Kept,
    Masks,
    SegmentPictures,
    by_object,
    padded_frames,
    read_modal,
    read_rgb,
)
from .block_runner import Carry, Runner, carry_of
from .block_settings import BlockRequest

_SEEN = 128  # the least grey level of a visible pixel


@dataclass(frozen=True)
class SegmentedBlock:
    """Frames `start` to `stop` of a clip, which no later block changes.

    Attributes:
        number, count: of the block, and how many there are.
        masks: the whole object, bool [n, H, W], at the bundle's size, by object.
        frames: the decoded pictures before the threshold, uint8 [n, H, W, 3]; zeros where nothing was drawn.
        drawn: bool [n], whether a network drew the frame; elsewhere the whole object is its visible part.
        judged: uint8 [n], the gate's judgements, see `amodal.runtime.clips.gate.JUDGEMENTS`; None without a gate.
        depth: as the networks see it, float32 [n, H, W] in [-1, 1], nearer is larger.
        noise: after this stage; the seed of `complete_blocks` that continues it.
        carry: to go on with the next block.
    """

    number: int
    count: int
    start: int
    stop: int
    masks: Masks
    frames: dict[Any, NDArray[np.uint8]]
    drawn: Masks
    judged: dict[Any, NDArray[np.uint8]] | None
    depth: NDArray[np.float32]
    seconds: float
    noise: NoiseStream | FrameNoise
    carry: Carry


@dataclass(frozen=True)
class CompletedBlock:
    """Frames `start` to `stop` of a clip; as `SegmentedBlock`.

    Attributes:
        frames: RGB of the whole object, uint8 [n, H, W, 3], by object; where nothing is hidden, its visible part on
            white.
        known: bool [n, H, W], pixels that are visible or copied; None without propagation.
    """

    number: int
    count: int
    start: int
    stop: int
    frames: dict[Any, NDArray[np.uint8]]
    drawn: Masks
    known: Masks | None
    seconds: float
    noise: NoiseStream | FrameNoise
    carry: Carry


def segment_blocks(
    session: Session,
    source: ClipSource,
    request: BlockRequest,
    carry: Carry | None = None,
    depth_file: Path | None = None,
) -> Iterator[SegmentedBlock]:
    """Finds whole-object masks of all objects, block by block.

    Guidance rises from the first frame of the clip to the last.

    Args:
        carry: of the last block of a run that stopped; None to begin.
        depth_file: keeps depth that is computed, so that a run that goes on does not compute it again; None for a
            temporary file.

    Raises:
        InputError: settings that do not fit, or no depth and no network to compute it.
        MemoryBudgetError: the run would take more GPU memory than allowed.
        NonFiniteError: latents or pictures became NaN or infinite.
    """
    require_distinct(source.objects)
    runner = Runner(session, "segment", source, request)
    _ = runner.stage  # raises before depth is read
    depth = Depth(session, source, request.settings.depth_channels, carry.depth if carry else None, depth_file)
    try:
        kept = Kept(partial(read_modal, source, runner.config), axis=1)
        for number in range(carry.block if carry else 0, len(runner.blocks)):
            block = _segment_block(runner, number, kept, depth, carry)
            carry = block.carry
            yield block
    finally:
        depth.close()


def _segment_block(runner: Runner, number: int, kept: Kept, depth: Depth, carry: Carry | None) -> SegmentedBlock:
    begin, block, source = time.perf_counter(), runner.blocks[number], runner.source
    levels, maps = kept(block.start, block.stop), depth.read(block.start, block.stop)
    seen = levels >= _SEEN
    judged = _judge(runner.request.gate, seen, maps)
    active = seen.any(axis=(2, 3)) & needs_network(judged)
    frames, final = runner.padded(block), block.final - block.start
    padded_maps, finals, pending, noise = padded_frames(maps, frames, 0), [], [], runner.noise
    for index, group in enumerate(runner.groups):
        one = [padded_frames(x[group], frames, 1) for x in (levels, active)]
        drawn, noise = runner.draw(number, index, SegmentPictures(one[0], padded_maps, one[1]))
        found, left = runner.join(number, group, drawn, judged[group], carry)
        finals.append(found)
        pending.append(left)
    pictures = [one for found in finals for one in found.frames]
    needed = [one for found in finals for one in found.needed]
    masks = [
        np.where(one[:, None, None], images.threshold(drawn, there), there)
        for drawn, one, there in zip(pictures, needed, seen[:, :final], strict=True)
    ]
    verdicts = [one for found in finals for one in found.judged]
    return SegmentedBlock(
        number,
        len(runner.blocks),
        block.start,
        block.final,
        by_object(source, masks),
        by_object(source, pictures),
        by_object(source, needed),
        None if runner.request.gate is None else by_object(source, verdicts),
        maps[:final],
        time.perf_counter() - begin,
        noise,
        carry_of(number, pending, depth.range),
    )


def _judge(gate: Gate | None, seen: NDArray[np.bool_], maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    if gate is None:
        return np.zeros(seen.shape[:2], np.uint8)
    return np.stack([gate.judge(masks, maps) for masks in seen])


def complete_blocks(
    session: Session, source: ClipSource, amodal: Amodal, request: BlockRequest, carry: Carry | None = None
) -> Iterator[CompletedBlock]:
    """Draws the RGB of whole objects, block by block.

    With propagation, hidden pixels are copied from frames before and after the block too, see
    `amodal.runtime.pictures.propagation.SourceFrames`.

    Args:
        amodal: gives whole-object masks, as `segment_blocks` returned them.

    The other arguments and the errors are those of `segment_blocks`. With a gate, frames of which nothing is hidden are
    not drawn.
    """
    require_distinct(source.objects)
    runner = Runner(session, "complete", source, request)
    _ = runner.stage
    seen = _Seen(runner, amodal)
    for number in range(carry.block if carry else 0, len(runner.blocks)):
        block = _complete_block(runner, number, seen, carry)
        carry = block.carry
        yield block


class _Seen:
    """What `complete` sees of a clip: frames uint8 [n, H, W, 3], visible and whole masks bool [K, n, H, W]."""

    def __init__(self, runner: Runner, amodal: Amodal) -> None:
        source, config, wish = runner.source, runner.config, runner.request.propagate
        self.propagates = config.propagate if wish is None else wish
        self._sources = [SourceFrames(source.count) for _ in source.objects] if self.propagates else []

        def whole(numbers: range) -> NDArray[np.bool_]:
            return np.stack([images.prepare_amodal(amodal(o, numbers), config.size) for o in source.objects])

        self._rgb = Kept(partial(read_rgb, source, config))
        self._modal = Kept(lambda numbers: read_modal(source, config, numbers) >= _SEEN, axis=1)
        self._whole = Kept(whole, axis=1)

    def read(self, start: int, stop: int) -> None:
        """Reads a stretch and, for propagation, the frames around it that were not read before."""
        wanted = self._sources[0].missing(range(start, stop)) if self.propagates else range(0)
        first, last = (min(start, wanted.start), max(stop, wanted.stop)) if wanted else (start, stop)
        rgb, modal, whole = (kept(first, last) for kept in (self._rgb, self._modal, self._whole))
        for index, sources in enumerate(self._sources if wanted else []):
            at = slice(wanted.start - first, wanted.stop - first)
            sources.add(wanted.start, rgb[at], modal[index, at], whole[index, at])
        here = slice(start - first, stop - first)
        self.start, self.rgb, self.modal = start, rgb[here], modal[:, here]
        self.whole = whole[:, here] | self.modal

    def fill(self, index: int) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Returns the frames with what is copied of an object, and what is then known of it: bool [n, H, W]."""
        if not self.propagates:
            return self.rgb, self.modal[index]
        filled = self._sources[index].fill(self.start, self.rgb, self.modal[index], self.whole[index])
        return filled.rgb, filled.known


def _complete_block(runner: Runner, number: int, seen: _Seen, carry: Carry | None) -> CompletedBlock:
    begin, block, source = time.perf_counter(), runner.blocks[number], runner.source
    seen.read(block.start, block.stop)
    frames, final = runner.padded(block), block.final - block.start
    shown, drawn, known, pending, noise = [], [], [], [], runner.noise
    for index, group in enumerate(runner.groups):
        objects = range(len(source.objects))[group]
        filled = [seen.fill(one) for one in objects]
        there, whole = np.stack([one for _, one in filled]), seen.whole[group]
        active = whole.any(axis=(2, 3))
        if runner.request.gate is not None:
            active &= (whole & ~there).any(axis=(2, 3))
        padded = [padded_frames(x, frames, 1) for x in (there, whole, active)]
        pictures = CompletePictures([padded_frames(rgb, frames, 0) for rgb, _ in filled], *padded)
        new, noise = runner.draw(number, index, pictures)
        found, left = runner.join(number, group, new, np.zeros(active.shape, np.uint8), carry)
        pending.append(left)
        for at, (rgb, copied) in enumerate(filled):
            visible, of_it = seen.modal[objects[at], :final], found.drawn[at]
            paste = copied[:final] if seen.propagates else visible & ~of_it[:, None, None]
            shown.append(_paste(found.frames[at], of_it, rgb[:final], paste))
            drawn.append(of_it)
            known.append(copied[:final])
    return CompletedBlock(
        number,
        len(runner.blocks),
        block.start,
        block.final,
        by_object(source, shown),
        by_object(source, drawn),
        by_object(source, known) if seen.propagates else None,
        time.perf_counter() - begin,
        noise,
        carry_of(number, pending),
    )


def _paste(
    frames: NDArray[np.uint8], drawn: NDArray[np.bool_], rgb: NDArray[np.uint8], known: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Puts known pixels into drawn frames, and into white ones where nothing was drawn."""
    shown = np.where(drawn[:, None, None, None], frames, np.uint8(255))
    shown[known] = rgb[known]
    return shown
