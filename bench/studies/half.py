"""What masks lose by half precision: `python -m amodal.bench.studies.half CHECKPOINT`.

ONNX Runtime's CPU provider computes half precision in float32 and rounds in few places, so it hides most of the loss.
Here the untouched torch modules run in half, including activations, norms and softmax, beside the same half-rounded
weights in float32, from the same noise, over scenes with known truth. Products are summed in float32 and rounded to
half, as a GPU's matrix units do. That also makes the study feasible on a CPU, where torch's own half convolutions take
minutes.
"""

from __future__ import annotations

import statistics
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import click
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from amodal.engines.compare import mask_iou
from amodal.runtime.pictures.images import prepare_depth, prepare_modal
from amodal.runtime.scenes import make_scene

from ..quality import ClipPrediction, ClipTruth, evaluate
from ..running.scene_runs import FIRST_SEED, SEED
from . import reported_errors

Masks = NDArray[np.bool_]
_PRODUCTS = frozenset({"linear", "mm", "addmm", "bmm", "baddbmm", "matmul", "convolution", "conv2d", "conv3d"})


class HalfPrecisionLoss(NamedTuple):
    """Half precision beside float32, over all clips.

    Attributes:
        iou: between the two masks of each clip, over the pixels of all its frames.
        latents: relative L2 difference of each clip's last latents.
        single, half: mIoU, and mIoU_occ (strict), in percent.
    """

    iou: list[float]
    latents: list[float]
    single: tuple[float, float]
    half: tuple[float, float]


def measure_loss(checkpoint: Path, scenes: int, steps: int, frames: int, size: tuple[int, int]) -> HalfPrecisionLoss:
    """Runs a checkpoint of the first stage over unseen scenes in both precisions.

    Raises:
        CheckpointError: the checkpoint cannot be read.
    """
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    from amodal.export.checkpoints.checkpoint import read_checkpoint

    from ..reference.pipeline import ReferencePipeline, amodal_masks, three_channels

    half, single = (ReferencePipeline.of(read_checkpoint(checkpoint), dtype=torch.float16) for _ in range(2))
    for module in (single.unet, single.vae, single.image_encoder):
        torch.nn.Module.to(module, torch.float32)  # the weights as half stores them
    single.dtype = torch.float32

    truths: list[ClipTruth] = []
    masks: dict[str, list[Masks]] = {"single": [], "half": []}
    latents: list[float] = []
    for seed in track(range(FIRST_SEED, FIRST_SEED + scenes), "scenes", console=Console(stderr=True), transient=True):
        scene = make_scene(seed, frames, size)
        modal, depth = prepare_modal(scene.modal, size), prepare_depth(scene.depth, size)
        images, conditions = three_channels(modal), three_channels(depth)
        last: dict[str, Any] = {}
        for name, pipeline in (("single", single), ("half", half)):
            generator = torch.Generator().manual_seed(SEED)
            # Attention as its two products and a softmax between them, each rounded, as in an engine's graph.
            with summed_in_single(), sdpa_kernel(SDPBackend.MATH):
                result = pipeline(images, conditions, generator=generator, steps=steps, noise_dtype=torch.float16)
            masks[name].append(amodal_masks(result.frames_u8, modal))
            last[name] = result.latents[-1].double()
        latents.append(float((last["half"] - last["single"]).norm() / last["single"].norm()))
        truths.append(ClipTruth(f"scene {seed}", scene.modal, scene.amodal, None, None, scene.boxes))

    iou = [mask_iou(a, b) for a, b in zip(masks["single"], masks["half"], strict=True)]
    return HalfPrecisionLoss(iou, latents, *(_scores(truths, masks[name]) for name in ("single", "half")))


def _scores(truths: list[ClipTruth], masks: list[Masks]) -> tuple[float, float]:
    """mIoU and mIoU_occ in percent."""
    pairs = [(truth, ClipPrediction([mask])) for truth, mask in zip(truths, masks, strict=True)]
    strict = evaluate(pairs, "strict").row("Top-1").strict
    assert strict is not None
    return 100 * strict.miou, 100 * (strict.miou_occ or 0)


def summed_in_single() -> AbstractContextManager[Any]:
    """Returns a context in which products of half tensors are summed in float32 and rounded once.

    Rounding every partial sum would depend on the order of summation, which differs between devices; all of them round
    the result.
    """
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode
    from torch.utils._pytree import tree_map

    def single(x: Any) -> Any:
        return x.float() if isinstance(x, torch.Tensor) and x.dtype == torch.float16 else x

    def half(x: Any) -> Any:
        return x.half() if isinstance(x, torch.Tensor) and x.dtype == torch.float32 else x

    class Single(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            halves = any(isinstance(a, torch.Tensor) and a.dtype == torch.float16 for a in args)
            if not halves or func.overloadpacket.__name__ not in _PRODUCTS:
                return func(*args, **kwargs or {})
            return tree_map(half, func(*tree_map(single, args), **kwargs or {}))

    return Single()  # type: ignore[no-untyped-call]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-n", "--scenes", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--steps", type=click.IntRange(min=1), default=25, show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: all.")
@reported_errors()
def main(checkpoint: Path, scenes: int, steps: int, threads: int | None) -> None:
    """Masks of a first-stage CHECKPOINT in half precision against float32, on clips of 8 frames of 64x128."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    loss = measure_loss(checkpoint, scenes, steps, 8, (64, 128))
    click.echo(
        f"mask IoU, half against float32, {scenes} clips: mean {statistics.mean(loss.iou):.4f}, least "
        f"{min(loss.iou):.4f}; median difference of the latents {statistics.median(loss.latents):.1e}"
    )
    for name, single, half in zip(("mIoU", "mIoU_occ"), loss.single, loss.half, strict=True):
        click.echo(f"{name} against the truth: float32 {single:.2f}, half {half:.2f} ({half - single:+.2f})")


if __name__ == "__main__":
    main()
