"""A bundle on a backend beside a run in float32: latents after each step, decoded frames, and masks."""

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
from amodal.runtime.families.diffusion_vas.shape import RunShape
from amodal.runtime.model import Model, load
from amodal.runtime.progress import Progress, silent

from ..reference.same_clip import (
    StageOutput,
    arrays_of,
    given_work,
    load_reference,
    run_model,
    run_reference,
    stages_of,
)
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
        against: `twin`, the bundle's own graphs with the weights that are stored, all arithmetic in float32, by ONNX
            Runtime on the CPU; or `diffusers`, the reference pipeline with the checkpoint's weights, on a GPU if
            that is where the bundle runs and torch has it.
        checkpoints: of stages, for `diffusers`; those that the manifest names are found without.

    Raises:
        InputError: a stage that the bundle does not have, or a checkpoint that is not at hand.
        MissingDependencyError: onnx (half precision beside its twin) or torch is not installed.
        NonFiniteError: latents became NaN or infinite.
        AmodalError: the bundle cannot be run like this; see `amodal.load`.
    """
    opened = Bundle(bundle)
    work = given_work(opened, work)
    if against not in get_args(Against):
        raise InputError(f"`against` is {against}; expected twin or diffusers.", field="against")
    progress("in float32", "", 0, 2)
    if against == "twin":
        expected, reference = _by_twin(opened, work, execution)
    else:
        # Torch and what it holds on a GPU are gone when the backend runs.
        expected, reference = in_new_process(_by_diffusers, str(bundle), work, checkpoints, execution)
    progress(execution.backend, "", 1, 2)
    shape = RunShape(tuple(work.stages), False, work.guidance > 1, work.steps, 1)
    with load(bundle, shape=shape, **execution.options()) as model:
        drawn = run_model(model, arrays_of(work), work)
        executed = executed_of(model)
    stages = [stage_fidelity(stage, drawn[stage], expected[stage]) for stage in stages_of(work)]
    return Fidelity(work=work, executed=executed, reference=reference, stages=stages, against=against)


def stage_fidelity(stage: StageName, drawn: StageOutput, expected: StageOutput) -> StageFidelity:
    """What one stage drew, beside what float32 drew."""
    apart = np.abs(drawn.frames.astype(np.int16) - expected.frames)
    both = drawn.masks is not None and expected.masks is not None
    return StageFidelity(
        stage=stage,
        sigmas=expected.sigmas,
        latents=[relative_l2(a, b) for a, b in zip(drawn.latents, expected.latents, strict=True)],
        masks_iou=mask_iou(drawn.masks, expected.masks) if both else None,  # type: ignore[arg-type]
        frames_mean=float(apart.mean()),
        frames_max=int(apart.max()),
    )


def equal(stage: StageFidelity) -> bool:
    """Whether latents and frames are the same bit for bit."""
    return not any(stage.latents) and stage.frames_max == 0


def _by_twin(bundle: Bundle, work: Work, execution: Execution) -> tuple[dict[StageName, StageOutput], str]:
    # The same number of threads for both where both are on the CPU, since sums are split by it.
    described = create(DEFAULT, device="cpu", threads=execution.threads).describe()
    with Model(bundle, TwinBackend(int(described["threads"])), "sequential") as model:
        drawn = run_model(model, arrays_of(work), work)
    return drawn, f"its graphs and stored weights, all in float32, by onnxruntime {described['version']} on the CPU"


def _by_diffusers(
    bundle: str, work: Work, checkpoints: Checkpoints | None, execution: Execution
) -> tuple[dict[StageName, StageOutput], str]:
    """In a process of its own."""
    device = "cpu"
    opened = Bundle(bundle)
    if on_gpu(execution.backend, execution.device) and _torch_has_gpu():
        device = execution.device or "cuda"
    pipelines = load_reference(opened, work, checkpoints, device=device, threads=execution.threads)
    import torch

    # By itself torch computes float32 convolutions on a GPU with the mantissa of half.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    drawn = run_reference(pipelines, opened.manifest, arrays_of(work), work)
    where = "the CPU" if device == "cpu" else device
    versions = f"diffusers {metadata.version('diffusers')}, torch {torch.__version__}"
    return drawn, f"the reference pipeline with the checkpoint's weights in float32, by {versions} on {where}"


def _torch_has_gpu() -> bool:
    if find_spec("torch") is None:
        return False  # whoever loads the pipeline says so
    import torch

    return bool(torch.cuda.is_available())
