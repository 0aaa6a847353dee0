"""Runs the stages over clips of any length and number of objects, block by block."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...clips.depth_range import DepthRange
from ...clips.gate import Gate, needs_network
from ...clips.noise import FrameNoise
from ...clips.source import ClipSource, require_distinct
from ...clips.windows import Block, WindowStrategy, blend_weights, cut_blocks, windows_at
from ...execution.session import Session
from ...pictures import images
from ...pictures.propagation import propagate
from ...sampling.denoiser import guidance_ramp
from ...sampling.noise import NoiseStream
from .block_inputs import (
    Amodal,
    CompletePictures,
    Depth,
    Masks,
    SegmentPictures,
    by_object,
    padded_frames,
    pieces,
    read_modal,
    read_rgb,
)
from .block_settings import BlockRequest
from .config import Config, StageName, config_of
from .stage import Stage
from .windowed import DrawnBlock, Noise, NoiseByFrame, NoiseOfClip, Pictures, run_block

_REACH = 12  # frames before and after one, from which hidden pixels of a long clip are copied


@dataclass(frozen=True)
class Carry:
    """What a run needs to go on after a block, with the same results as one that never stopped.

    Attributes:
        block: number of the next block.
        frames: pictures of the frames that the next block overlaps, float32 [K, m, H, W, 3].
        drawn: where there are any, bool [K, m].
        judged: of the gate, uint8 [K, m]; zeros without.
        depth: the clip's range of depth; None in `complete`.
    """

    block: int
    frames: NDArray[np.float32]
    drawn: NDArray[np.bool_]
    judged: NDArray[np.uint8]
    depth: DepthRange | None = None


@dataclass(frozen=True)
class SegmentedBlock:
    """Frames `start` to `stop` of a clip, which no later block changes.

    Attributes:
        number, count: of the block, and how many there are.
        masks: the whole object, bool [n, H, W], at the bundle's size, by object.
        frames: the decoded pictures before the threshold, uint8 [n, H, W, 3]; zeros where nothing was drawn.
        drawn: bool [n], whether a network drew the frame; elsewhere the whole object is its visible part.
        judged: uint8 [n], the gate's judgements, see `amodal.runtime.clips.gate.JUDGEMENTS`; None without a gate.
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


@dataclass(frozen=True)
class _Runner:
    """A stage over the blocks of a clip."""

    session: Session
    name: StageName
    source: ClipSource
    request: BlockRequest

    @cached_property
    def stage(self) -> Stage:
        return Stage(self.session.components, self.name, self.request.settings)

    @cached_property
    def config(self) -> Config:
        return config_of(self.session.manifest)

    @cached_property
    def blocks(self) -> list[Block]:
        return cut_blocks(self.source.count, self.config.frames, self.request.windows, self.request.block_frames)

    @cached_property
    def scale(self) -> NDArray[np.float32]:
        """The guidance scale, from the first frame of the clip to the last."""
        return guidance_ramp(self.request.settings.guidance, max(self.source.count, self.config.frames))

    @property
    def at_once(self) -> int:
        """Objects that are denoised together."""
        on_gpu = self.session.backend.on_gpu
        return self.request.objects_at_once or (1 if on_gpu else len(self.source.objects))

    def noise(self, block: Block) -> Noise:
        if self.source.count <= self.config.frames and not isinstance(self.request.seed, FrameNoise):
            seed = self.request.seed
            return NoiseOfClip(self.stage, seed if isinstance(seed, NoiseStream) else NoiseStream(seed))
        count = max(block.stop - block.start, self.config.frames)
        return NoiseByFrame(self.stage, FrameNoise.of(self.request.seed), range(block.start, block.start + count))

    def run(self, number: int, parts: list[Pictures]) -> tuple[DrawnBlock, NoiseStream | FrameNoise]:
        """Draws a block for groups of objects, one after the other; also returns the noise of the next stage."""
        block, steps = self.blocks[number], self.stage.schedule.steps
        frames, total = max(block.stop - block.start, self.config.frames), len(self.blocks) * len(parts) * steps
        plan = partial(self._plan, frames)
        found = []
        with self.session.backend.active():
            for part, pictures in enumerate(parts):
                before = (number * len(parts) + part) * steps

                def after(step: int, sigma: float, latents: Any, before: int = before, part: int = part) -> None:
                    phase = f"block {number + 1} of {len(self.blocks)}, step {step + 1} of {steps}"
                    if len(parts) > 1:
                        phase += f", objects {part + 1} of {len(parts)}"
                    self.request.progress(self.name, phase, before + step + 1, total)

                scale = padded_frames(self.scale[block.start : block.stop], frames, 0)
                noise = self.noise(block)
                found.append(run_block(self.stage, pictures, noise, plan, scale, after))
        drawn = DrawnBlock(np.concatenate([f.frames for f in found]), np.concatenate([f.drawn for f in found]))
        count = block.stop - block.start
        return DrawnBlock(drawn.frames[:, :count], drawn.drawn[:, :count]), noise.following

    def _plan(self, frames: int, step: int) -> Any:
        strategy: WindowStrategy = "chunks" if self.request.windows == "blended" else self.request.windows
        return windows_at(strategy, frames, self.config.frames, step, self.stage.schedule.steps)

    def groups(self) -> list[slice]:
        """Returns the objects of each group."""
        return [slice(at, at + self.at_once) for at in range(0, len(self.source.objects), self.at_once)]


def segment_blocks(
    session: Session, source: ClipSource, request: BlockRequest, carry: Carry | None = None
) -> Iterator[SegmentedBlock]:
    """Finds whole-object masks of all objects, block by block.

    Args:
        carry: of the last block of a run that stopped; None to begin.

    Raises:
        InputError: settings that do not fit, or no depth and no network to compute it.
        NonFiniteError: latents or pictures became NaN or infinite.
    """
    require_distinct(source.objects)
    runner = _Runner(session, "segment", source, request)
    config, _ = runner.config, runner.stage  # which raises before depth is read
    depth = Depth(session, source, request.settings.depth_channels, carry.depth if carry else None)
    try:
        for number in range(carry.block if carry else 0, len(runner.blocks)):
            begin, block = time.perf_counter(), runner.blocks[number]
            modal, maps = read_modal(source, config, block.start, block.stop), depth.read(block.start, block.stop)
            judged = _judge(request.gate, modal > 0, maps)
            active = (modal > 0).any(axis=(2, 3)) & needs_network(judged)
            frames = max(block.stop - block.start, config.frames)
            padded = [padded_frames(x, frames, axis) for x, axis in ((modal, 1), (maps, 0), (active, 1))]
            parts: list[Pictures] = [
                SegmentPictures(padded[0][group], padded[1], padded[2][group]) for group in runner.groups()
            ]
            drawn, noise = runner.run(number, parts)
            final, carry = _join(carry, drawn, judged, block, number, depth.range)
            seconds = time.perf_counter() - begin
            yield _segmented(runner, number, modal, final, (seconds, noise, carry))
    finally:
        depth.close()


def _judge(gate: Gate | None, seen: NDArray[np.bool_], maps: NDArray[np.float32]) -> NDArray[np.uint8]:
    if gate is None:
        return np.zeros(seen.shape[:2], np.uint8)
    return np.stack([gate.judge(masks, maps) for masks in seen])


@dataclass(frozen=True)
class _Final:
    """The frames of a block that are final: pictures uint8 [K, m, H, W, 3], drawn bool [K, m], judged uint8 [K, m]."""

    frames: NDArray[np.uint8]
    drawn: NDArray[np.bool_]
    judged: NDArray[np.uint8]


def _join(
    carry: Carry | None, new: DrawnBlock, judged: NDArray[np.uint8], block: Block, number: int, depth: DepthRange | None
) -> tuple[_Final, Carry]:
    """Blends a block with what the one before left; returns the final frames, and what is left for the next."""
    frames, drawn, judged = new.frames.astype(np.float32), new.drawn.copy(), judged.copy()
    overlap = block.ramp - block.start if carry is not None else 0
    if carry is not None and overlap:
        at = slice(0, overlap)
        share = np.where(drawn[:, at], blend_weights(overlap), 0) if carry.drawn.any() else np.ones((1, overlap))
        share = np.where(carry.drawn, share, 1).astype(np.float32)[..., None, None, None]
        frames[:, at] = (1 - share) * carry.frames + share * frames[:, at]
        drawn[:, at] |= carry.drawn
        judged[:, at] = np.minimum(judged[:, at], carry.judged)
    stop = block.final - block.start
    final = _Final(np.rint(frames[:, :stop]).astype(np.uint8), drawn[:, :stop], judged[:, :stop])
    return final, Carry(number + 1, frames[:, stop:].copy(), drawn[:, stop:], judged[:, stop:], depth)


def _segmented(
    runner: _Runner, number: int, modal: NDArray[np.float32], final: _Final, rest: tuple[Any, Any, Carry]
) -> SegmentedBlock:
    block, source = runner.blocks[number], runner.source
    visible = modal[:, : block.final - block.start]
    masks = [
        np.where(drawn[:, None, None], images.threshold(frames, seen), seen > 0)
        for frames, drawn, seen in zip(final.frames, _needed(final), visible, strict=True)
    ]
    judged = None if runner.request.gate is None else dict(by_object(source, final.judged))
    return SegmentedBlock(
        number,
        len(runner.blocks),
        block.start,
        block.final,
        dict(by_object(source, masks)),
        dict(by_object(source, final.frames)),
        dict(by_object(source, _needed(final))),
        judged,
        *rest,
    )


def _needed(final: _Final) -> NDArray[np.bool_]:
    """Frames that were drawn and needed it: windows also draw frames beside those."""
    return final.drawn & needs_network(final.judged)


def complete_blocks(
    session: Session, source: ClipSource, amodal: Amodal, request: BlockRequest, carry: Carry | None = None
) -> Iterator[CompletedBlock]:
    """Draws the RGB of whole objects, block by block.

    Args:
        amodal: gives whole-object masks, as `segment_blocks` returned them.

    The other arguments and the errors are those of `segment_blocks`. With a gate, frames of which nothing is hidden are
    not drawn.
    """
    require_distinct(source.objects)
    runner = _Runner(session, "complete", source, request)
    config = runner.config
    propagates = config.propagate if request.propagate is None else request.propagate
    for number in range(carry.block if carry else 0, len(runner.blocks)):
        begin, block = time.perf_counter(), runner.blocks[number]
        modal = read_modal(source, config, block.start, block.stop) > 0
        rgb = read_rgb(source, config, block.start, block.stop)
        whole = modal | np.stack([_read_amodal(amodal, o, config, block) for o in source.objects])
        filled, known = _propagate(rgb, modal, whole) if propagates else ([rgb] * len(modal), modal)
        active = whole.any(axis=(2, 3))
        if request.gate is not None:
            active &= (whole & ~known).any(axis=(2, 3))
        frames = max(block.stop - block.start, config.frames)
        masks = np.where(known, np.float32(1), np.float32(-1))
        padded = [padded_frames(x, frames, 1) for x in (masks, whole, active)]
        rgbs = [padded_frames(x, frames, 0) for x in filled]
        parts: list[Pictures] = [
            CompletePictures(rgbs[group], *(x[group] for x in padded)) for group in runner.groups()
        ]
        drawn, noise = runner.run(number, parts)
        final, carry = _join(carry, drawn, np.zeros(active.shape, np.uint8), block, number, None)
        shown = final.frames.copy()
        for index, one in enumerate(shown):
            at = slice(0, len(one))
            paste = known[index, at] if propagates else modal[index, at] & ~final.drawn[index, :, None, None]
            one[~final.drawn[index]] = 255
            one[paste] = filled[index][at][paste]
        yield CompletedBlock(
            number,
            len(runner.blocks),
            block.start,
            block.final,
            dict(by_object(source, shown)),
            dict(by_object(source, final.drawn)),
            dict(by_object(source, known[:, : block.final - block.start])) if propagates else None,
            time.perf_counter() - begin,
            noise,
            carry,
        )


def _read_amodal(amodal: Amodal, object_id: Any, config: Config, block: Block) -> NDArray[np.bool_]:
    parts = [images.prepare_amodal(amodal(object_id, n), config.size) for n in pieces(block.start, block.stop)]
    return np.concatenate(parts)


def _propagate(
    rgb: NDArray[np.uint8], modal: NDArray[np.bool_], whole: NDArray[np.bool_]
) -> tuple[list[NDArray[np.uint8]], NDArray[np.bool_]]:
    found = [propagate(rgb, seen, all_of_it, _REACH) for seen, all_of_it in zip(modal, whole, strict=True)]
    return [one.rgb for one in found], np.stack([one.known for one in found])
