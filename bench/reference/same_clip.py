"""One clip, given to the runtime and to the reference pipeline in the same form, and what each draws of it.

Arrays are prepared (of the bundle's size, in [-1, 1]), so that only pipelines are timed. Both stages draw their noise
from one stream, as in the authors' demo. Stage `complete` is given the true masks: were it given those of `segment`, a
pixel at the threshold there would move everything here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.bundle.manifest import Manifest
from amodal.runtime.cores import usable_cores
from amodal.runtime.errors import BackendUnavailableError, InputError, MissingDependencyError
from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.config import StageName, config_of
from amodal.runtime.families.diffusion_vas.results import Completion, Segmentation
from amodal.runtime.model import Model
from amodal.runtime.pictures.images import prepare_depth, prepare_modal, prepare_rgb
from amodal.runtime.sampling.schedule import Churn
from amodal.runtime.scenes import make_scene

from ..families.diffusion_vas import SCENE
from ..running.sources import Checkpoints, checkpoints_of
from ..schema import Work

if TYPE_CHECKING:
    from .pipeline import ReferencePipeline

    Pipelines = Mapping[StageName, ReferencePipeline]

INSTALL = 'pip install "amodal[bench,export]"'


class Arrays(NamedTuple):
    """What a clip is made from: float32 in [-1, 1], masks and depth [T, H, W], RGB [T, 3, H, W]; bool [T, H, W]."""

    modal: NDArray[np.float32]
    depth: NDArray[np.float32]
    rgb: NDArray[np.float32]
    amodal: NDArray[np.bool_]


class StageOutput(NamedTuple):
    """What a stage drew.

    Attributes:
        sigmas, latents: after each step, its noise level and float32 [T, 4, h, w]; none unless they were asked for.
        frames: uint8 [T, H, W, 3].
        masks: bool [T, H, W]; None of `complete`.
    """

    sigmas: list[float]
    latents: list[NDArray[np.float32]]
    frames: NDArray[np.uint8]
    masks: NDArray[np.bool_] | None


def given_work(bundle: Bundle, work: Work) -> Work:
    """The same work with depth given and of one sample, which is what is compared.

    Raises:
        InputError: the bundle has none of the stages.
    """
    if not work.stages:
        raise InputError(
            f"bundle {bundle.path} does not have the stage that was asked for; see `amodal inspect {bundle.path}`."
        )
    return work.model_copy(update={"depth": False, "samples": 1})


def arrays_of(work: Work) -> Arrays:
    """The scene that all benchmarks run, prepared."""
    scene, size = make_scene(SCENE, work.frames, work.size), work.size
    return Arrays(
        prepare_modal(scene.modal, size),
        prepare_depth(scene.depth, size),
        prepare_rgb(scene.frames, size),
        scene.amodal,
    )


def stages_of(work: Work) -> list[StageName]:
    """Its stages, in the order in which they run."""
    return [stage for stage in get_args(StageName) if stage in work.stages]


def run_model(model: Model, arrays: Arrays, work: Work, *, trace: bool = True) -> dict[StageName, StageOutput]:
    """A clip by the runtime.

    Args:
        trace: keep latents. On a GPU a callback makes every step wait for the host: not for what is timed.

    Raises:
        NonFiniteError: latents became NaN or infinite.
    """
    settings: dict[str, Any] = {
        "steps": work.steps,
        "guidance": (work.guidance, work.guidance),
        "churn": Churn(work.churn),
    }
    seed: Any = work.seed
    found: dict[StageName, StageOutput] = {}
    for stage in stages_of(work):
        sigmas: list[float] = []
        latents: list[NDArray[np.float32]] = []

        def keep(step: int, sigma: float, x: Any, sigmas: Any = sigmas, latents: Any = latents) -> None:
            sigmas.append(sigma)
            latents.append(np.array(model.backend.to_host(x), np.float32))

        callback = keep if trace else None
        drawn: Segmentation | Completion
        if stage == "segment":
            drawn = model.segment(arrays.modal, depth=arrays.depth, seed=seed, callback=callback, **settings)
        else:
            drawn = model.complete(
                arrays.rgb, arrays.modal, arrays.amodal, seed=seed, propagate=False, callback=callback, **settings
            )
        masks = drawn.masks if isinstance(drawn, Segmentation) else None
        found[stage], seed = StageOutput(sigmas, latents, drawn.frames, masks), drawn.noise
    return found


def load_reference(
    bundle: Bundle,
    work: Work,
    checkpoints: Checkpoints | None,
    *,
    device: str = "cpu",
    half: bool = False,
    threads: int | None = None,
) -> Pipelines:
    """The reference pipeline of each stage of `work`, each with networks of its own, as in the authors' demo.

    Args:
        checkpoints: see `checkpoints_of`.
        half: float16, as the authors run it on a GPU, instead of float32.
        threads: CPU threads; None for all cores.

    Raises:
        MissingDependencyError: torch, diffusers or transformers is not installed.
        BackendUnavailableError: torch has no such device.
        InputError, CheckpointError: a checkpoint is not at hand, or cannot be read.
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


def run_reference(pipelines: Pipelines, manifest: Manifest, arrays: Arrays, work: Work) -> dict[StageName, StageOutput]:
    """A clip by the reference pipeline, with what the bundle's manifest says of noise and context."""
    import torch

    from .pipeline import amodal_masks, karras_sigmas, modal_rgb, three_channels

    config, churn = config_of(manifest), Churn(work.churn)
    generator = torch.Generator("cpu").manual_seed(work.seed)
    signed = np.where(arrays.amodal, np.float32(1), np.float32(-1))
    found: dict[StageName, StageOutput] = {}
    for stage in stages_of(work):
        pipeline = pipelines[stage]
        if stage == "segment":
            images, conditions = three_channels(arrays.modal), three_channels(arrays.depth)
        else:
            images, conditions = modal_rgb(arrays.rgb, arrays.modal), three_channels(signed)
        result = pipeline(
            images,
            conditions,
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
        found[stage] = StageOutput(
            sigmas[:-1].tolist(),
            [latents.float().cpu().numpy() for latents in result.latents],
            result.frames_u8,
            amodal_masks(result.frames_u8, arrays.modal) if stage == "segment" else None,
        )
    return found
