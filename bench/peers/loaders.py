"""What peers load in their processes: the runtime on one of its backends; diffusers, eager or compiled."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.config import StageName
from amodal.runtime.families.diffusion_vas.shape import RunShape
from amodal.runtime.model import load

from ..reference.same_clip import StageOutput, arrays_of, load_reference, run_model, run_reference, stages_of
from ..running.clips import Execution
from ..running.machine import executed_of
from ..running.memory import device_counters
from ..running.sources import Checkpoints
from ..schema import Work
from .process import LoadedPeer

if TYPE_CHECKING:
    from ..reference.same_clip import Pipelines


def load_ours(bundle: str, work: Work, execution: Execution) -> LoadedPeer:
    """The runtime; components are loaded by the first clip, and stay."""
    shape = RunShape(tuple(work.stages), False, work.guidance > 1, work.steps, 1)
    model = load(bundle, shape=shape, **execution.options())
    arrays, executed = arrays_of(work), executed_of(model)
    said = [f"{executed.backend} {executed.version}", *(f"{name} {value}" for name, value in executed.options.items())]
    entries = [model.bundle.component(key) for stage in stages_of(work) for key in _keys(model.bundle, stage)]
    rounded = executed.options.get("arithmetic") == "bfloat16"
    half = rounded or any("fp16" in (entry.precision, entry.stored) for entry in entries)
    arithmetic = "half precision" if any(entry.precision == "fp16" for entry in entries) else "float32"
    if rounded:
        arithmetic = "rounded to it but for what needs float32"
    elif half and arithmetic == "float32":
        arithmetic += ", weights stored in half"
    on_gpu = model.backend.engines is not None or executed.device.startswith("cuda")
    return LoadedPeer(
        f"{', '.join(said)}; {arithmetic}, components {executed.memory}",
        half or on_gpu,  # a GPU computes float32 convolutions in TF32, which has the mantissa of half
        lambda trace: run_model(model, arrays, work, trace=trace),
        device_counters(execution) if on_gpu else {},
    )


def load_diffusers(
    bundle: str,
    work: Work,
    checkpoints: Checkpoints | None,
    device: str,
    threads: int | None,
    compiled: bool,
    cache: Path,
    rounded: bool = False,
) -> LoadedPeer:
    """The reference pipeline: on a GPU in half precision, as the authors run it, and on a CPU in float32.

    Args:
        compiled: by `torch.compile`, see `compile_networks`.
        cache: an empty folder for what is compiled; with the user's own, the first clip would not compile anything.
        rounded: on a CPU, in torch's mixture of bfloat16 and float32 (`autocast`).
    """
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
    opened, arrays, on_gpu = Bundle(bundle), arrays_of(work), device.startswith("cuda")
    pipelines = load_reference(opened, work, checkpoints, device=device, half=on_gpu, threads=threads)
    import torch

    how = f"{compile_networks(pipelines)} compiled by torch.compile" if compiled else "eager"
    versions = f"diffusers {metadata.version('diffusers')} on torch {torch.__version__}"
    arithmetic = "autocast to bfloat16" if rounded else "float32"
    where = f"half precision on {device}" if on_gpu else f"{arithmetic} on the CPU, {torch.get_num_threads()} threads"

    def clip(trace: bool) -> dict[StageName, StageOutput]:
        with torch.autocast("cpu", torch.bfloat16, enabled=rounded):
            found = run_reference(pipelines, opened.manifest, arrays, work)
        if on_gpu:
            torch.cuda.synchronize(device)
        return found if trace else {stage: drawn._replace(sigmas=[], latents=[]) for stage, drawn in found.items()}

    return LoadedPeer(
        f"{versions}; {where}; {how}; networks of each stage loaded apart",
        on_gpu or rounded,
        clip,
        device_counters(Execution(backend="torch", device=device)) if on_gpu else {},
        (lambda: int(torch.cuda.max_memory_allocated(device))) if on_gpu else None,
    )


def compile_networks(pipelines: Pipelines) -> str:
    """Has the U-Net and both halves of the VAE of each stage compiled when they first run; says which these are.

    For static shapes: left to itself, torch makes slower code for any shape as soon as a second one comes, which the
    last, shorter chunk of the decoder is. CLIP stays eager: it runs once per clip, and the loop is what takes time.
    """
    for pipeline in pipelines.values():
        parts: tuple[Any, ...] = (pipeline.unet, pipeline.vae.encoder, pipeline.vae.decoder)
        for part in parts:
            part.compile(dynamic=False)
    return "U-Net, VAE encoder and VAE decoder"


def _keys(bundle: Bundle, stage: StageName) -> list[str]:
    return list(bundle.manifest.tasks[stage].components.values())
