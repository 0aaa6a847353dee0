"""Keeps on disk what a run needs to go on after a block."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from amodal.runtime.clips.depth_range import DepthRange
from amodal.runtime.families.diffusion_vas.block_runner import Carry


def save_carry(work: Path, stage: str, carry: Carry) -> Path:
    """Writes a carry beside those before it; returns its file."""
    path = work / f"carry-{stage}-{carry.block:06d}.npz"
    depth = np.array([] if carry.depth is None else [carry.depth.low, carry.depth.high], np.float64)
    np.savez(path, block=carry.block, frames=carry.frames, drawn=carry.drawn, judged=carry.judged, depth=depth)
    return path


def load_carry(path: Path) -> Carry:
    """Reads what `save_carry` wrote."""
    with np.load(path, allow_pickle=False) as held:
        depth = DepthRange(*held["depth"].tolist()) if len(held["depth"]) else None
        return Carry(int(held["block"]), held["frames"], held["drawn"], held["judged"], depth)
