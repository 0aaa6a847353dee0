"""Runs a stage over the blocks of a clip: its objects in groups, and blocks blended where they overlap."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...clips.depth_range import DepthRange
from ...clips.gate import needs_network
from ...clips.noise import FrameNoise
from ...clips.source import ClipSource
from ...clips.windows import Block, Window, WindowStrategy, blend_weights, cut_blocks, windows_at
from ...execution.session import Session
from ...sampling.denoiser import guidance_ramp
from ...sampling.noise import NoiseStream
from .block_encoding import Pictures
from .block_inputs import padded_frames
from .block_noise import Noise, NoiseByFrame, NoiseOfClip
from .block_settings import OBJECTS_AT_ONCE, BlockRequest, fit_objects
from .config import Config, StageName, config_of
from .shape import RunShape, run_shape
from .stage import Stage
from .windowed import DrawnBlock, run_block


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
class Final:
    """The frames of a block that are final, of K objects.

    Attributes:
        frames: decoded pictures, uint8 [K, n, H, W, 3].
        drawn: where there are any, bool [K, n].
        judged: of the gate, uint8 [K, n].
    """

    frames: NDArray[np.uint8]
    drawn: NDArray[np.bool_]
    judged: NDArray[np.uint8]

    @property
    def needed(self) -> NDArray[np.bool_]:
        """Frames that were drawn and needed it: windows also draw frames beside those."""
        return self.drawn & needs_network(self.judged)


@dataclass(frozen=True)
class Runner:
    """A stage over the blocks of a clip.

    Raises:
        MemoryBudgetError: not even one object fits into the memory allowed.
    """

    session: Session
    name: StageName
    source: ClipSource
    request: BlockRequest

    @cached_property
    def config(self) -> Config:
        """The bundle's config."""
        return config_of(self.session.manifest)

    @cached_property
    def blocks(self) -> list[Block]:
        """The clip's blocks."""
        return cut_blocks(self.source.count, self.config.frames, self.request.windows, self.request.block_frames)

    @cached_property
    def stage(self) -> Stage:
        """The stage, with CFG rows as memory allows."""
        return Stage(self.session.components, self.name, replace(self.request.settings, cfg_rows=self._fitted.cfg_rows))

    @property
    def at_once(self) -> int:
        """Objects that are denoised together."""
        return self._fitted.objects

    @cached_property
    def _fitted(self) -> RunShape:
        """The run with the most objects that fit into memory together, and how CFG rows are called then."""
        wish = self.request.objects_at_once
        shape = run_shape(
            (self.name,),
            self.request.settings,
            depth=self.name == "segment" and not self.source.has_depth,
            objects=min(wish or OBJECTS_AT_ONCE, len(self.source.objects)),
            block=self.padded(self.blocks[0]),
        )
        return fit_objects(self.session, shape, settled=wish is not None)

    @cached_property
    def groups(self) -> list[slice]:
        """The objects of each group."""
        return [slice(at, at + self.at_once) for at in range(0, len(self.source.objects), self.at_once)]

    @cached_property
    def noise(self) -> NoiseStream | FrameNoise:
        """The noise of this stage."""
        seed = self.request.seed
        if self.source.count <= self.config.frames and not isinstance(seed, FrameNoise):
            return seed if isinstance(seed, NoiseStream) else NoiseStream(seed)
        return FrameNoise.of(seed)

    def padded(self, block: Block) -> int:
        """Returns the frames that are run for a block, at least a window's."""
        return max(block.stop - block.start, self.config.frames)

    def draw(self, number: int, group: int, pictures: Pictures) -> tuple[DrawnBlock, NoiseStream | FrameNoise]:
        """Draws a block for a group of objects; also returns the noise of the next stage."""
        block, steps = self.blocks[number], self.stage.schedule.steps
        before, total = (number * len(self.groups) + group) * steps, len(self.blocks) * len(self.groups) * steps

        def after(step: int, sigma: float, latents: Any) -> None:
            phase = f"block {number + 1} of {len(self.blocks)}, step {step + 1} of {steps}"
            if len(self.groups) > 1:
                phase += f", objects {group + 1} of {len(self.groups)}"
            self.request.progress(self.name, phase, before + step + 1, total)

        noise, frames = self._noise_of(block), self.padded(block)
        scale = padded_frames(self._scale[block.start : block.stop], frames, 0)
        with self.session.backend.active():
            drawn = run_block(self.stage, pictures, noise, partial(self._plan, frames), scale, after)
        count = block.stop - block.start
        return DrawnBlock(drawn.frames[:, :count], drawn.drawn[:, :count]), noise.following

    def join(
        self, number: int, group: slice, new: DrawnBlock, judged: NDArray[np.uint8], carry: Carry | None
    ) -> tuple[Final, Pending]:
        """Blends a group's block with what the one before left; returns what is final, and what is left for the next.

        Args:
            judged: uint8 [K, n]; zeros without a gate.
            carry: of all objects.
        """
        block = self.blocks[number]
        overlap, stop = 0 if carry is None else block.ramp - block.start, block.final - block.start
        frames, drawn, judged = new.frames, new.drawn.copy(), judged.copy()
        pending = frames[:, stop:].astype(np.float32)
        if carry is not None and overlap:
            at, before = slice(0, overlap), carry.drawn[group]
            share = np.where(drawn[:, at], blend_weights(overlap), 0) if before.any() else np.ones((1, overlap))
            share = np.where(before, share, 1).astype(np.float32)[..., None, None, None]
            blended = (1 - share) * carry.frames[group] + share * frames[:, at]
            frames[:, : min(stop, overlap)] = np.rint(blended[:, :stop])
            pending[:, : max(overlap - stop, 0)] = blended[:, stop:]
            drawn[:, at] |= before
            judged[:, at] = np.minimum(judged[:, at], carry.judged[group])
        final = Final(frames[:, :stop], drawn[:, :stop], judged[:, :stop])
        return final, (pending, drawn[:, stop:], judged[:, stop:])

    @cached_property
    def _scale(self) -> NDArray[np.float32]:
        """The guidance scale, from the first frame of the clip to the last."""
        return guidance_ramp(self.request.settings.guidance, max(self.source.count, self.config.frames))

    def _noise_of(self, block: Block) -> Noise:
        if isinstance(self.noise, NoiseStream):
            return NoiseOfClip(self.stage, self.noise)
        return NoiseByFrame(self.stage, self.noise, range(block.start, block.start + self.padded(block)))

    def _plan(self, frames: int, step: int) -> list[Window]:
        strategy: WindowStrategy = "chunks" if self.request.windows == "blended" else self.request.windows
        return windows_at(strategy, frames, self.config.frames, step, self.stage.schedule.steps)


Pending = tuple[NDArray[np.float32], NDArray[np.bool_], NDArray[np.uint8]]
"""Pictures, drawn and judged of the frames that are not final; see `Carry`."""


def carry_of(number: int, pending: Iterable[Pending], depth: DepthRange | None = None) -> Carry:
    """Joins what the groups of objects left after a block."""
    frames, drawn, judged = zip(*pending, strict=True)
    return Carry(number + 1, np.concatenate(frames), np.concatenate(drawn), np.concatenate(judged), depth)
