"""The same clip for the runtime and for the reference pipeline, and the outputs of both.

Inputs are prepared (of the bundle's size, in [-1, 1]), so that only the pipelines are timed. Both stages draw their
noise from one stream, as in the authors' demo. Stage `complete` takes the true masks: with those of `segment`, one
pixel at the threshold would change its whole output.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.bundle.manifest import Manifest
from amodal.runtime.cores import usable_cores
from amodal.runtime.errors import BackendUnavailableError, MissingDependencyError
from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.config import StageName, config_of
from amodal.runtime.families.diffusion_vas.results import Completion, Segmentation
from amodal.runtime.loading import load
from amodal.runtime.model import Model
from amodal.runtime.pictures.images import prepare_depth, prepare_modal, prepare_rgb
from amodal.runtime.sampling.schedule import Churn

from ..families.diffusion_vas import SCENE, run_of, sampler_keywords, scene_of
from ..running.clips import Execution, require_stages
from ..running.sources import Checkpoints, checkpoints_of
from ..schema import Work

if TYPE_CHECKING:
    from .pipeline import ReferencePipeline

    Pipelines = Mapping[StageName, ReferencePipeline]

INSTALL = 'pip install "amodal[bench,export]"'


class ClipInputs(NamedTuple):
    """A clip: float32 in [-1, 1], masks and depth [T, H, W], RGB [T, 3, H, W]; true masks bool [T, H, W]."""

    modal: NDArray[np.float32]
    depth: NDArray[np.float32]
    rgb: NDArray[np.float32]
    amodal: NDArray[np.bool_]


class StageOutput(NamedTuple):
    """Output of a stage.

    Attributes:
        sigmas, latents: noise level and float32 [T, 4, h, w] of each step; empty without a trace.
        frames: uint8 [T, H, W, 3].
        masks: bool [T, H, W]; None for `complete`.
    """

    sigmas: list[float]
    latents: list[NDArray[np.float32]]
    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_] | None


Outputs: TypeAlias = dict[StageName, StageOutput]


def comparable_work(bundle: Bundle, work: Work) -> Work:
    """Returns the work with given depth and one sample. Raises InputError if the bundle does not have the stage."""
    require_stages(work, bundle.path)
    return work.model_copy(update={"depth": False, "samples": 1})


def inputs_of(work: Work) -> ClipInputs:
    """Prepares the scene that all benchmarks run."""
    scene, size = scene_of(SCENE, work.frames, work.size), work.size
    return ClipInputs(
        prepare_modal(scene.modal, size),
        prepare_depth(scene.depth, size),
        prepare_rgb(scene.frames, size),
        scene.amodal,
    )


def stages_of(work: Work) -> list[StageName]:
    """Returns the stages in the order in which they run."""
    return [stage for stage in get_args(StageName) if stage in work.stages]


def load_model(bundle: str | Path, work: Work, execution: Execution) -> Model:
    """Loads a bundle for `run_model`, with memory planned for the work."""
    return load(bundle, shape=run_of(work).open_variant(), **execution.options())


def run_model(model: Model, inputs: ClipInputs, work: Work, *, trace: bool = True) -> Outputs:
    """Runs a clip with the runtime.

    Args:
        trace: keep the latents. On a GPU this makes every step wait for the host, so do not time it.

    Raises:
        NonFiniteError: latents became NaN or infinite.
    """
    settings = sampler_keywords(work.steps, work.guidance, work.churn)
    seed: Any = work.seed
    outputs: Outputs = {}
    for stage in stages_of(work):
        sigmas: list[float] = []
        latents: list[NDArray[np.float32]] = []

        def keep(step: int, sigma: float, x: Any, sigmas: Any = sigmas, latents: Any = latents) -> None:
            sigmas.append(sigma)
            latents.append(np.array(model.backend.to_host(x), np.float32))

        options = {**settings, "seed": seed, "callback": keep if trace else None}
        result: Segmentation | Completion
        if stage == "segment":
            result = model.segment(inputs.modal, depth=inputs.depth, **options)
        else:
            result = model.complete(inputs.rgb, inputs.modal, inputs.amodal, propagate=False, **options)
        masks = result.masks if isinstance(result, Segmentation) else None
        outputs[stage], seed = StageOutput(sigmas, latents, result.frames, masks), result.noise
    return outputs


def load_reference(
    bundle: Bundle,
    work: Work,
    checkpoints: Checkpoints | None,
    *,
    device: str = "cpu",
    half: bool = False,
    threads: int | None = None,
) -> Pipelines:
    """Loads the reference pipeline of each stage of `work`; each has its own networks, as in the authors' demo.

    Args:
        checkpoints: see `checkpoints_of`.
        half: use float16 as the authors do on a GPU, instead of float32.
        threads: CPU threads; None for all cores.

    Raises:
        MissingDependencyError: torch, diffusers or transformers is not installed.
        BackendUnavailableError: torch does not have the device.
        InputError, CheckpointError: a checkpoint is not available, or cannot be read.
    """
    try:
        opened = checkpoints_of(bundle, checkpoints, stages_of(work))
        import torch

        from .pipeline import ReferencePipeline
    except MissingDependencyError:
        raise
    except ImportError as error:
        raise MissingDependencyError(f"the reference pipeline cannot be imported ({error}); `{INSTALL}`.") from error
    torch.set_num_threads(threads or usable_cores())
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise BackendUnavailableError(
            f'torch {torch.__version__} finds no GPU for `device="{device}"`; install torch with CUDA, or compare on '
            'the CPU with `device="cpu"`.'
        )
    dtype = torch.float16 if half else torch.float32
    return {stage: ReferencePipeline.of(checkpoint, dtype=dtype, device=device) for stage, checkpoint in opened.items()}


def run_reference(pipelines: Pipelines, manifest: Manifest, inputs: ClipInputs, work: Work) -> Outputs:
    """Runs a clip with the reference pipeline, with the noise and context that the manifest specifies."""
    import torch

    from .pipeline import amodal_masks, karras_sigmas, modal_rgb, three_channels

    config, churn = config_of(manifest), Churn(work.churn)
    generator = torch.Generator("cpu").manual_seed(work.seed)
    signed = np.where(inputs.amodal, np.float32(1), np.float32(-1))
    conditions = {
        "segment": (three_channels(inputs.modal), three_channels(inputs.depth)),
        "complete": (modal_rgb(inputs.rgb, inputs.modal), three_channels(signed)),
    }
    outputs: Outputs = {}
    for stage in stages_of(work):
        pipeline = pipelines[stage]
        result = pipeline(
            *conditions[stage],
            generator=generator,
            steps=work.steps,
            guidance=(work.guidance, work.guidance),
            context=config.context_layout,
            decode_chunk=config.decode_chunk,
            noise_aug=config.noise_augmentation,
            motion_bucket=int(config.motion_bucket),
            churn=(churn.s_churn, churn.s_tmin, churn.s_tmax, churn.s_noise) if work.churn else None,
            noise_dtype=getattr(torch, config.noise_dtype),
        )
        sigmas = karras_sigmas(work.steps, sigma_min=pipeline.sigma_min, sigma_max=pipeline.sigma_max)
        outputs[stage] = StageOutput(
            sigmas[:-1].tolist(),
            [latents.float().cpu().numpy() for latents in result.latents],
            result.frames_u8,
            amodal_masks(result.frames_u8, inputs.modal) if stage == "segment" else None,
        )
    return outputs
