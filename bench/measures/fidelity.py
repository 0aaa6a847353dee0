"""A bundle on a backend compared with a float32 run: latents after each step, decoded frames, and masks."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import get_args

import numpy as np

from amodal.engines.compare import mask_iou, relative_l2
from amodal.engines.upcast import TwinBackend
from amodal.runtime.backends import DEFAULT, create, on_gpu
from amodal.runtime.errors import InputError
from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.config import StageName
from amodal.runtime.model import Model
from amodal.runtime.progress import Progress, silent

from ..reference import same_clip
from ..reference.same_clip import Outputs, StageOutput
from ..running.clips import Execution
from ..running.machine import executed_of
from ..running.process import in_new_process
from ..running.sources import Checkpoints
from ..schema import Against, Fidelity, StageFidelity, Work


def measure_fidelity(
    bundle: str | Path,
    work: Work,
    execution: Execution,
    *,
    against: Against = "twin",
    checkpoints: Checkpoints | None = None,
    progress: Progress = silent,
) -> Fidelity:
    """Runs the same clip in float32 and on a backend, from the same noise.

    Args:
        against: `twin` for the bundle's own graphs and stored weights with all arithmetic in float32, on ONNX Runtime
            on the CPU; `diffusers` for the reference pipeline with the checkpoint's weights, on a GPU if the bundle
            runs there and torch supports it.
        checkpoints: of stages, for `diffusers`; not needed for those that the manifest names.

    Raises:
        InputError: the bundle does not have a stage, or a checkpoint is not available.
        MissingDependencyError: onnx (for the twin of a bundle in half precision) or torch is not installed.
        NonFiniteError: latents became NaN or infinite.
        AmodalError: the bundle cannot be run with this `execution`; see `amodal.load`.
    """
    opened = Bundle(bundle)
    work = same_clip.comparable_work(opened, work)
    if against not in get_args(Against):
        raise InputError(f"`against` is {against}; expected twin or diffusers.", field="against")
    progress("in float32", "", 0, 2)
    if against == "twin":
        expected, reference = _run_twin(opened, work, execution)
    else:
        # In a process of its own, so that torch's memory on the GPU is free when the backend runs.
        expected, reference = in_new_process(_run_diffusers, str(bundle), work, checkpoints, execution)
    progress(execution.backend, "", 1, 2)
    with same_clip.load_model(bundle, work, execution) as model:
        outputs = same_clip.run_model(model, same_clip.inputs_of(work), work)
        executed = executed_of(model)
    stages = [stage_fidelity(stage, outputs[stage], expected[stage]) for stage in same_clip.stages_of(work)]
    return Fidelity(work=work, executed=executed, reference=reference, stages=stages, against=against)


def stage_fidelity(stage: StageName, output: StageOutput, expected: StageOutput) -> StageFidelity:
    """Compares a stage's output with that of the float32 run."""
    difference = np.abs(output.frames.astype(np.int16) - expected.frames)
    masked = output.masks is not None and expected.masks is not None
    return StageFidelity(
        stage=stage,
        sigmas=expected.sigmas,
        latents=[relative_l2(a, b) for a, b in zip(output.latents, expected.latents, strict=True)],
        masks_iou=mask_iou(output.masks, expected.masks) if masked else None,  # type: ignore[arg-type]
        frames_mean=float(difference.mean()),
        frames_max=int(difference.max()),
    )


def equal(stage: StageFidelity) -> bool:
    """Returns whether latents and frames are equal bit for bit."""
    return not any(stage.latents) and stage.frames_max == 0


def _run_twin(bundle: Bundle, work: Work, execution: Execution) -> tuple[Outputs, str]:
    # The same number of threads for both on the CPU, because it decides the order of sums.
    described = create(DEFAULT, device="cpu", threads=execution.threads).describe()
    with Model(bundle, TwinBackend(int(described["threads"])), "sequential") as model:
        outputs = same_clip.run_model(model, same_clip.inputs_of(work), work)
    return outputs, f"its graphs and stored weights, all in float32, by onnxruntime {described['version']} on the CPU"


def _run_diffusers(
    bundle: str, work: Work, checkpoints: Checkpoints | None, execution: Execution
) -> tuple[Outputs, str]:
    opened, device = Bundle(bundle), "cpu"
    # `load_reference` raises if torch is missing.
    if on_gpu(execution.backend, execution.device) and find_spec("torch") is not None:
        import torch

        device = (execution.device or "cuda") if torch.cuda.is_available() else device
    pipelines = same_clip.load_reference(opened, work, checkpoints, device=device, threads=execution.threads)
    import torch

    # By default torch computes float32 convolutions on a GPU in TF32, which has the mantissa of half precision.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    outputs = same_clip.run_reference(pipelines, opened.manifest, same_clip.inputs_of(work), work)
    where = "the CPU" if device == "cpu" else device
    versions = f"diffusers {metadata.version('diffusers')}, torch {torch.__version__}"
    return outputs, f"the reference pipeline with the checkpoint's weights in float32, by {versions} on {where}"
