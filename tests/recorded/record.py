"""Records the case that `tests/test_parity.py` compares with: `python -m tests.recorded.record`.

`case.npz` is what the reference pipeline (`amodal.bench.reference`, on torch and diffusers; nothing of the runtime)
drew from a drawn scene with seeded weights, both stages from one generator, as in the authors' demo. It has to be
recorded again only if the case itself changes.

    modal, depth   uint8 [9,64,64]      0 to 255 is -1 to 1
    rgb            uint8 [9,3,64,64]    the same
    masks          bool [9,64,64]       amodal masks of `segment`, handed to `complete`
    steps          int [5]              the sampler's steps whose latents are kept, 0-based
    STAGE_latents  float32 [5,9,4,8,8]  after those steps
    STAGE_frames   uint8 [5,64,64,3]    decoded pictures of every second frame
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

CASE = Path(__file__).with_name("case.npz")
STAGES = ("segment", "complete")
SIZE, FRAMES, SEED = (64, 64), 9, 23
"""One frame more than the VAE decodes at once: its last chunk is not padded."""
STEPS = (0, 4, 12, 18, 24)
_SCENE, _WEIGHTS, _FAINT = 8, 0, 0.1


def checkpoints() -> dict[str, Any]:
    """The checkpoint of each stage. Every tensor has a seed of its own and is drawn by torch's CPU generator.

    The U-Nets see their latents faintly: as the weights are drawn, 25 steps make a difference of 1e-7, the rounding of
    float32, into one of 3e-4.
    """
    from amodal.export.checkpoints.checkpoint import random_checkpoint

    found: dict[str, Any] = {stage: random_checkpoint("tiny", stage, _WEIGHTS) for stage in STAGES}  # type: ignore[arg-type]
    for checkpoint in found.values():
        weights = checkpoint.unet.weights
        first = weights["conv_in.weight"]
        weights["conv_in.weight"] = first._replace(load=partial(_faint, first.load))
    return found


def _faint(load: Callable[[], Any]) -> Any:
    weight = load()
    weight[:, :4] *= _FAINT  # the other eight channels are the two conditions
    return weight


def signed(values: Any) -> Any:
    """Bytes as float32 in [-1, 1]."""
    return values.astype(np.float32) / np.float32(127.5) - np.float32(1)


def draw(modal: Any, depth: Any, rgb: Any, masks: Any = None) -> dict[str, Any]:
    """What the reference pipeline draws: the arrays of `case.npz` beside the inputs.

    Args:
        modal, depth, rgb: as in `case.npz`.
        masks: handed to `complete`; None for those of `segment`.
    """
    from amodal.bench.reference.pipeline import ReferencePipeline

    from ..demo import run_both_stages

    pipelines = [ReferencePipeline.of(checkpoint) for checkpoint in checkpoints().values()]
    drawn = run_both_stages(*pipelines, signed(modal), signed(depth), signed(rgb), SEED, amodal=masks)
    found: dict[str, Any] = {"masks": drawn["amodal"], "steps": np.array(STEPS)}
    for stage in STAGES:
        found[f"{stage}_latents"] = np.stack([drawn[stage].latents[step].numpy() for step in STEPS])
        found[f"{stage}_frames"] = drawn[stage].frames_u8[::2]
    return found


def inputs() -> dict[str, Any]:
    """A drawn scene as `modal`, `depth` and `rgb` of `case.npz`."""
    from amodal.runtime.scenes import make_scene

    scene = make_scene(_SCENE, FRAMES, SIZE)
    low, high = scene.depth.min(), scene.depth.max()
    return {
        "modal": np.where(scene.modal, 255, 0).astype(np.uint8),
        "depth": np.round(255 * (scene.depth - low) / (high - low)).astype(np.uint8),
        "rgb": np.ascontiguousarray(scene.frames.transpose(0, 3, 1, 2)),
    }


if __name__ == "__main__":
    given = inputs()
    np.savez_compressed(CASE, **given, **draw(**given))
    print(f"wrote {CASE}, {CASE.stat().st_size / 1000:.0f} kB")
