"""Peers for the tests, importable by the processes that they run in: one that works, and each way of not working."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

import numpy as np

from amodal.bench.peers.process import LoadedPeer
from amodal.bench.reference.same_clip import StageOutput
from amodal.runtime.errors import MissingDependencyError


def drawn(shift: float = 0.0, nan: bool = False) -> dict[Any, StageOutput]:
    """Both stages of a clip that does not change, or one that is a little or wholly another."""
    rng = np.random.default_rng(0)
    latents = rng.standard_normal((2, 4, 8, 8)).astype(np.float32) * np.float32(1 + shift)
    if nan:
        latents[0, 0, 0, 0] = np.nan
    frames = rng.integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    masks = np.arange(2 * 16 * 16).reshape(2, 16, 16) % 3 == 0
    return {
        "segment": StageOutput([1.0], [latents], frames, masks),
        "complete": StageOutput([1.0], [latents], frames, None),
    }


def load(
    shift: float = 0.0,
    half: bool = False,
    nan: bool = False,
    dies: int | None = None,
    fails: int | None = None,
    other: int | None = None,
) -> LoadedPeer:
    """A peer that, at the clip of that number, dies, fails, or draws another picture."""
    print("a library talks")
    turn = iter(range(1000))

    def clip(trace: bool) -> dict[Any, StageOutput]:
        now = next(turn)
        if now == dies:
            os.write(2, b"about to fall\n")
            os.kill(os.getpid(), signal.SIGSEGV)
        if now == fails:
            raise RuntimeError("CUDA out of memory\nand more of it")
        found = drawn(shift, nan)
        if now == other:
            found["complete"] = found["complete"]._replace(frames=255 - found["complete"].frames)
        return found if trace else {stage: d._replace(sigmas=[], latents=[]) for stage, d in found.items()}

    allocated: Callable[[], int] = lambda: 12345  # noqa: E731
    return LoadedPeer(f"stand-in, shift {shift:g}", half, clip, {}, allocated)


def load_nothing() -> LoadedPeer:
    """A peer whose library is not there."""
    raise MissingDependencyError("this needs torch.")


def load_killed() -> LoadedPeer:
    """A peer that takes too much memory."""
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError
