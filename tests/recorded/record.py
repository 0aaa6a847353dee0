"""Records the case that `tests/test_parity.py` compares with: `python -m tests.recorded.record`.

`case.npz` is what the reference pipeline (`amodal.bench.reference`, on torch and diffusers; nothing of the runtime)
drew from a drawn scene with seeded weights, both stages from one generator, as in the authors' demo. It has to be
recorded again only if the case itself changes.

    modal, depth   uint8 [9,32,64]      0 to 255 is -1 to 1
    rgb            uint8 [9,3,32,64]    the same
    masks          bool [9,32,64]       amodal masks of `segment`, handed to `complete`
    steps          int [9]              the sampler's steps whose latents are kept, 0-based
    STAGE_latents  float32 [9,9,4,4,8]  after those steps
    STAGE_frames   uint8 [9,32,64,3]    decoded pictures
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

CASE = Path(__file__).with_name("case.npz")
STAGES = ("segment", "complete")
SIZE, FRAMES, SEED = (32, 64), 9, 23
"""One frame more than the VAE decodes at once: its last chunk is not padded."""
STEPS = (0, 1, 2, 4, 8, 12, 16, 20, 24)
_SCENE, _WEIGHTS = 8, 0
_SHAPE: dict[str, Any] = {"block_out_channels": (32, 64), "heads": (2, 4), "vae_channels": (32, 32, 32, 32)}


def checkpoints() -> dict[str, Any]:
    """The checkpoint of each stage, both with the same VAE and image encoder, as in the authors' release.

    Every tensor has a seed of its own and is drawn by torch's CPU generator. The U-Nets have two levels, so that the
    deeper one still has eight pixels: a norm over groups of two values would amplify rounding, in torch as well.
    """
    from amodal.export.checkpoints.checkpoint import read_checkpoint

    from ..checkpoints import make_checkpoint

    found = {}
    for stage in STAGES:
        with TemporaryDirectory() as folder:
            read = read_checkpoint(make_checkpoint(folder, stage=stage, **_SHAPE))  # type: ignore[arg-type]
        own = {"unet": 1 + STAGES.index(stage), "vae": 0, "image_encoder": 0}
        seeded = {name: _seeded(getattr(read, name), _WEIGHTS + seed) for name, seed in own.items()}
        found[stage] = replace(read, **seeded)
    return found


def _seeded(network: Any, seed: int) -> Any:
    from amodal.export.graph.weights import random_weights

    class Shapes(torch.nn.Module):
        def state_dict(self) -> dict[str, torch.Tensor]:  # type: ignore[override]
            return {name: torch.empty(weight.shape, device="meta") for name, weight in network.weights.items()}

    return replace(network, weights=random_weights(Shapes(), seed, "seeded weights"))


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
        found[f"{stage}_frames"] = drawn[stage].frames_u8
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
