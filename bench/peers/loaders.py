"""Functions that load a peer in its process: the runtime on one of its backends; diffusers, eager or compiled."""

from __future__ import annotations

import os
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from amodal.runtime.families import Bundle

from ..reference.same_clip import Outputs, inputs_of, load_model, load_reference, run_model, run_reference, stages_of
from ..running.clips import Execution
from ..running.machine import executed_of
from ..running.memory import device_counters
from ..running.sources import Checkpoints
from ..schema import Work
from ..wording import describe_executed
from .process import LoadedPeer

if TYPE_CHECKING:
    from ..reference.same_clip import Pipelines


def load_runtime(bundle: str, work: Work, execution: Execution) -> LoadedPeer:
    """Loads the runtime; the first clip loads the components, which stay loaded."""
    model = load_model(bundle, work, execution)
    inputs, executed, tasks = inputs_of(work), executed_of(model), model.manifest.tasks
    keys = [key for stage in stages_of(work) for key in tasks[stage].components.values()]
    entries = [model.bundle.component(key) for key in keys]
    bfloat16 = executed.options.get("arithmetic") == "bfloat16"
    half = bfloat16 or any("fp16" in (entry.precision, entry.stored) for entry in entries)
    if bfloat16:
        arithmetic = "bfloat16 except where float32 is needed"
    elif any(entry.precision == "fp16" for entry in entries):
        arithmetic = "half precision"
    else:
        arithmetic = "float32, weights stored in half" if half else "float32"
    on_gpu = model.backend.engines is not None or executed.device.startswith("cuda")
    return LoadedPeer(
        f"{describe_executed(executed)}; {arithmetic}",
        half or on_gpu,  # a GPU computes float32 convolutions in TF32, which has the mantissa of half precision
        lambda trace: run_model(model, inputs, work, trace=trace),
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
    bfloat16: bool = False,
) -> LoadedPeer:
    """Loads the reference pipeline: in half precision on a GPU, as the authors run it, and in float32 on a CPU.

    Args:
        compiled: with `torch.compile`, see `compile_networks`.
        cache: an empty folder for compiled code; with the user's own, the first clip might not compile anything.
        bfloat16: on a CPU, run in torch's mixture of bfloat16 and float32 (`autocast`).
    """
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
    opened, inputs, on_gpu = Bundle(bundle), inputs_of(work), device.startswith("cuda")
    pipelines = load_reference(opened, work, checkpoints, device=device, half=on_gpu, threads=threads)
    import torch

    how = f"{compile_networks(pipelines)} compiled by torch.compile" if compiled else "eager"
    versions = f"diffusers {metadata.version('diffusers')} on torch {torch.__version__}"
    arithmetic = "autocast to bfloat16" if bfloat16 else "float32"
    where = f"half precision on {device}" if on_gpu else f"{arithmetic} on the CPU, {torch.get_num_threads()} threads"

    def clip(trace: bool) -> Outputs:
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            outputs = run_reference(pipelines, opened.manifest, inputs, work)
        if on_gpu:
            torch.cuda.synchronize(device)
        return outputs if trace else {s: output._replace(sigmas=[], latents=[]) for s, output in outputs.items()}

    return LoadedPeer(
        f"{versions}; {where}; {how}; networks of each stage loaded separately",
        on_gpu or bfloat16,
        clip,
        device_counters(Execution(backend="torch", device=device)) if on_gpu else {},
        (lambda: int(torch.cuda.max_memory_allocated(device))) if on_gpu else None,
    )


def compile_networks(pipelines: Pipelines) -> str:
    """Marks the U-Net and both halves of the VAE of each stage for compilation at their first run; returns their names.

    The shapes are static: by default, torch generates slower code for any shape as soon as a second one occurs, which
    the shorter last chunk of the decoder is. CLIP stays eager, because it runs only once per clip.
    """
    for pipeline in pipelines.values():
        for part in (pipeline.unet, pipeline.vae.encoder, pipeline.vae.decoder):
            part.compile(dynamic=False)
    return "U-Net, VAE encoder and VAE decoder"
