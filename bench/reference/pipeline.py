"""The slow, obvious reference: Diffusion-VAS on torch, diffusers and transformers, eager.

Written from the papers and from notes on the authors' code (github.com/Kaihua-Chen/diffusion-vas). The runtime is
tested against it and shares no code with it. The networks are the unchanged modules of diffusers and transformers;
everything around them is written out step by step. Needs `pip install 'amodal[export]'`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, cast, get_args

import numpy as np
import torch
from diffusers.pipelines.stable_video_diffusion import pipeline_stable_video_diffusion as svd
from numpy.typing import NDArray

from amodal.export.families.diffusion_vas.reference import UnrepeatedContext
from amodal.runtime.errors import InputError

if TYPE_CHECKING:
    from amodal.export.checkpoints.checkpoint import StageCheckpoint

ContextLayout: TypeAlias = Literal["reference", "aligned", "sequence"]
Churn: TypeAlias = tuple[float, float, float, float]
"""(s_churn, s_tmin, s_tmax, s_noise), as in EDM (Karras et al. 2022), Algorithm 2."""
Denoiser: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Images: TypeAlias = NDArray[np.float32] | torch.Tensor

# diffusers is untyped.
_resize_with_antialiasing = cast(Callable[[torch.Tensor, tuple[int, int]], torch.Tensor], svd._resize_with_antialiasing)


@dataclass(frozen=True)
class PipelineOptions:
    """Options of a stage.

    Attributes:
        steps: sampler steps.
        guidance: scale at the first and at the last frame, linear in between; off if neither exceeds 1.
        fps: frames per second; the U-Net takes one less.
        context: layout of the embeddings that each row attends to, see `context_rows`.
        decode_chunk: frames per call of the temporal VAE decoder; the last chunk may be shorter.
        noise_aug: standard deviation of the noise added to both conditions before the VAE.
        motion_bucket: SVD's motion bucket id.
        churn: EDM's stochastic sampler, see `euler`; None for the authors' setting.
        noise_dtype: dtype in which the first latents are drawn; None for the pipeline's own. The same seed gives
            other numbers in another dtype.

    Raises:
        InputError: an option is out of range.
    """

    steps: int = 25
    guidance: tuple[float, float] = (1.5, 1.5)
    fps: int = 8
    context: ContextLayout = "reference"
    decode_chunk: int = 8
    noise_aug: float = 0.02
    motion_bucket: int = 127
    churn: Churn | None = None
    noise_dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        if self.steps < 1 or self.decode_chunk < 1:
            raise InputError(f"steps ({self.steps}) and decode_chunk ({self.decode_chunk}) must be at least 1.")
        if self.context not in get_args(ContextLayout):
            raise InputError(f"context is {self.context!r}; use 'reference', 'aligned' or 'sequence'.")

    @property
    def guided(self) -> bool:
        """Whether the U-Net also runs unconditionally."""
        return max(self.guidance) > 1


@dataclass(frozen=True)
class Result:
    """Output of one stage.

    Attributes:
        frames_u8: uint8 RGB [T,H,W,3].
        decoded: float32 [T,3,H,W] from the VAE, about [-1, 1], before clamping.
        latents: after every sampler step, [T,4,h,w] in the pipeline's dtype, on its device.
    """

    frames_u8: NDArray[np.uint8]
    decoded: NDArray[np.float32]
    latents: tuple[torch.Tensor, ...]


def karras_sigmas(steps: int, *, sigma_min: float = 0.002, sigma_max: float = 700.0) -> torch.Tensor:
    """Returns noise levels, float32 [steps + 1], falling from `sigma_max` to `sigma_min` and a final 0.

    EDM eq. 5 with rho = 7, computed in float64 and rounded to float32, as in diffusers' EulerDiscreteScheduler.
    """
    ramp = np.linspace(0, 1, steps)
    low, high = sigma_min ** (1 / 7), sigma_max ** (1 / 7)
    sigmas = (high + ramp * (low - high)) ** 7
    return torch.from_numpy(np.append(sigmas, 0.0).astype(np.float32))


def euler(
    denoise: Denoiser,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    *,
    churn: Churn | None = None,
    generator: torch.Generator | None = None,
    callback: Callable[[int, float, torch.Tensor], None] | None = None,
) -> torch.Tensor:
    """EDM Algorithm 2 without its second-order step.

    Args:
        denoise: D(x; sigma), from float32 x and a 0-dim float32 sigma to a float32 estimate of the clean x.
        x: latents at `sigmas[0]`, any shape; each step is rounded to its dtype.
        sigmas: float32 [steps + 1], see `karras_sigmas`.
        churn: None for the plain ODE, as the authors run it.
        generator: on the CPU; used only at steps whose gamma is positive.
        callback: called with (0-based step, sigma before churn, latents after the step).
    """
    s_churn, s_tmin, s_tmax, s_noise = churn or (0.0, 0.0, 0.0, 1.0)
    steps = len(sigmas) - 1
    dtype = x.dtype
    for i in range(steps):
        sigma = sigmas[i]
        # Raise the noise level, so that errors of earlier steps are forgotten.
        gamma = min(s_churn / steps, math.sqrt(2) - 1) if s_tmin <= float(sigma) <= s_tmax else 0.0
        sigma_hat = sigma * (1 + gamma)
        x_hat = x.float()
        if gamma > 0:
            eps = torch.randn(x.shape, generator=generator, dtype=dtype).to(x.device)
            x_hat = x_hat + (sigma_hat**2 - sigma**2) ** 0.5 * s_noise * eps.float()
        # One Euler step from sigma_hat to the next sigma.
        d = (x_hat - denoise(x_hat, sigma_hat)) / sigma_hat
        x = (x_hat + d * (sigmas[i + 1] - sigma_hat)).to(dtype)
        if callback is not None:
            callback(i, float(sigma), x)
    return x


def context_rows(embeds: torch.Tensor, layout: ContextLayout, *, guided: bool) -> torch.Tensor:
    """Arranges CLIP embeddings [T,D] as the context [B*T,S,D] of the U-Net's rows.

    B is 2 (unconditional frames, then conditional ones) if `guided`, else 1; S is T for `sequence`, else 1.
    The authors' code pairs each embedding with its zero negative before joining the frames, so `reference`
    is [0, e0, 0, e1, ...] although the U-Net's rows are [uncond f0, f1, ..., cond f0, f1, ...].
    """
    rows = embeds[None].expand(len(embeds), -1, -1) if layout == "sequence" else embeds[:, None]
    if not guided:
        return rows
    if layout == "reference":
        return torch.stack([torch.zeros_like(rows), rows], dim=1).flatten(0, 1)
    return torch.cat([torch.zeros_like(rows), rows])


def rescale_unsigned(images: torch.Tensor) -> torch.Tensor:
    """Preprocesses images [T,3,H,W] frame by frame as diffusers does.

    A frame without negative values is assumed to be in [0, 1] and is mapped once more by 2x - 1.
    """
    return torch.stack([frame if frame.min() < 0 else 2.0 * frame - 1.0 for frame in images])


class ReferencePipeline:
    """One stage of Diffusion-VAS, eager.

    On a GPU, torch runs fp32 convolutions in TF32 unless `torch.backends.cudnn.allow_tf32 = False`.

    Args:
        unet, vae, image_encoder: stock modules in eval mode.
        scheduler, feature_extractor: their configs.
    """

    def __init__(
        self, unet: Any, vae: Any, image_encoder: Any, scheduler: dict[str, Any], feature_extractor: dict[str, Any]
    ) -> None:
        self.unet, self.vae, self.image_encoder = unet, vae, image_encoder
        self.sigma_min, self.sigma_max = float(scheduler["sigma_min"]), float(scheduler["sigma_max"])
        self.clip_mean, self.clip_std = feature_extractor["image_mean"], feature_extractor["image_std"]
        self.dtype = cast(torch.dtype, self.unet.dtype)
        self.device = cast(torch.device, self.unet.device)
        self.vae_factor = 2 ** (len(self.vae.config.block_out_channels) - 1)

    @classmethod
    def of(
        cls, checkpoint: StageCheckpoint, *, dtype: torch.dtype = torch.float32, device: str | torch.device = "cpu"
    ) -> ReferencePipeline:
        """Loads a stage's networks from its checkpoint. Raises CheckpointError if weights cannot be read."""
        unet, vae, image_encoder = (part.load() for part in (checkpoint.unet, checkpoint.vae, checkpoint.image_encoder))
        for network in (unet, vae, image_encoder):
            # nn.Module's own `to`: diffusers' prints a warning for every dtype.
            torch.nn.Module.to(network, device=device, dtype=dtype)
        normalisation = {"image_mean": checkpoint.image_mean, "image_std": checkpoint.image_std}
        return cls(unet, vae, image_encoder, checkpoint.scheduler, normalisation)

    @torch.no_grad()
    def __call__(self, images: Images, rgb_images: Images, *, generator: torch.Generator, **options: Any) -> Result:
        """Runs the stage.

        Args:
            images: [T,3,H,W] in [-1, 1]; modal masks (segment) or visible RGB (complete). CLIP embeds these.
            rgb_images: [T,3,H,W] in [-1, 1]; depth (segment) or amodal masks (complete).
            generator: on the CPU; n1, n2, latents, then churn are drawn from it. Stage 2 may continue its stream.
            **options: fields of `PipelineOptions`.

        Raises:
            InputError: shapes differ or are not multiples of the VAE's factor, or an option is out of range.
        """
        chosen = PipelineOptions(**options)
        images, rgb_images = torch.as_tensor(images), torch.as_tensor(rgb_images)
        self._check(images, rgb_images, generator)
        images, rgb_images = images.to(self.device, torch.float32), rgb_images.to(self.device, torch.float32)
        rows = context_rows(self.embed(images), chosen.context, guided=chosen.guided)
        cond = self._condition(images, rgb_images, generator, chosen)
        sigmas = karras_sigmas(chosen.steps, sigma_min=self.sigma_min, sigma_max=self.sigma_max)
        latents = self._first_latents(images, sigmas, generator, chosen)
        denoise = self._denoiser(rows, cond, chosen)
        trace: list[torch.Tensor] = []

        def keep(step: int, sigma: float, x: torch.Tensor) -> None:
            trace.append(x[0])

        latents = euler(denoise, latents, sigmas, churn=chosen.churn, generator=generator, callback=keep)
        decoded = self.decode(latents[0], chosen.decode_chunk).cpu().numpy()
        pictures = np.clip(decoded / 2 + 0.5, 0, 1).transpose(0, 2, 3, 1)
        return Result((pictures * 255).round().astype(np.uint8), decoded, tuple(trace))

    def _condition(
        self, images: torch.Tensor, rgb_images: torch.Tensor, generator: torch.Generator, options: PipelineOptions
    ) -> torch.Tensor:
        """Rescales, noises and encodes both conditions, [B,T,8,h,w]; if guided, the first half is zeros."""
        noise_shape = (len(images), 1, *images.shape[1:])
        n1 = torch.randn(noise_shape, generator=generator).to(self.device)
        n2 = torch.randn(noise_shape, generator=generator).to(self.device)
        cond1 = self.encode(rescale_unsigned(images) + options.noise_aug * n1[:, 0])
        cond2 = self.encode(rescale_unsigned(rgb_images) + options.noise_aug * n2[:, 0])
        cond = torch.cat([cond1, cond2], dim=1)[None]
        return torch.cat([torch.zeros_like(cond), cond]) if options.guided else cond

    def _first_latents(
        self, images: torch.Tensor, sigmas: torch.Tensor, generator: torch.Generator, options: PipelineOptions
    ) -> torch.Tensor:
        """Draws the noise at the first sigma, [1,T,4,h,w]."""
        frames, _, height, width = images.shape
        shape = (1, frames, 4, height // self.vae_factor, width // self.vae_factor)
        latents = torch.randn(shape, generator=generator, dtype=options.noise_dtype or self.dtype)
        return latents.to(self.device, self.dtype) * (sigmas[0] ** 2 + 1) ** 0.5

    def _denoiser(self, rows: torch.Tensor, cond: torch.Tensor, options: PipelineOptions) -> Denoiser:
        """Returns D(x; sigma) of a clip: EDM's preconditioning around the U-Net with guidance."""
        frames = cond.shape[1]
        ids = [options.fps - 1, options.motion_bucket, options.noise_aug]
        time_ids = torch.tensor([ids] * len(cond)).to(self.device, self.dtype)
        scale = torch.linspace(*options.guidance, frames).to(self.device, self.dtype).view(1, frames, 1, 1, 1)

        def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            # EDM's preconditioning for v-prediction, as SVD was trained: t = ln(sigma) / 4.
            x_in = (x / (sigma**2 + 1) ** 0.5).to(self.dtype)
            x_in = torch.cat([torch.cat([x_in] * len(cond)), cond], dim=2)
            v = self.unet(x_in, 0.25 * sigma.log(), UnrepeatedContext(rows), time_ids, return_dict=False)[0]
            if options.guided:
                v_uncond, v_cond = v.chunk(2)
                v = v_uncond + scale * (v_cond - v_uncond)
            denoised: torch.Tensor = v * (-sigma / (sigma**2 + 1) ** 0.5) + x / (sigma**2 + 1)
            return denoised

        return denoise

    @torch.no_grad()
    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Computes CLIP embeddings [T,D] of frames [T,3,H,W] in [-1, 1], resized as in diffusers' SVD pipeline."""
        resized = (_resize_with_antialiasing(images, (224, 224)) + 1.0) / 2.0
        mean = torch.tensor(self.clip_mean, device=images.device).view(3, 1, 1)
        std = torch.tensor(self.clip_std, device=images.device).view(3, 1, 1)
        embeds: torch.Tensor = self.image_encoder(((resized - mean) / std).to(self.dtype)).image_embeds
        return embeds

    @torch.no_grad()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the mode of the VAE's posterior [T,4,h,w], unscaled; in float32 if the VAE's config demands it."""
        if self.dtype == torch.float16 and self.vae.config.force_upcast:
            torch.nn.Module.to(self.vae, torch.float32)
        mode = self.vae.encode(images.to(self.vae.dtype)).latent_dist.mode()
        torch.nn.Module.to(self.vae, self.dtype)
        return cast(torch.Tensor, mode.to(self.dtype))

    @torch.no_grad()
    def decode(self, latents: torch.Tensor, chunk: int = 8) -> torch.Tensor:
        """Decodes latents [T,4,h,w] to frames, float32 [T,3,H,W], `chunk` frames at a time, without padding."""
        latents = 1 / self.vae.config.scaling_factor * latents
        pieces = [self.vae.decode(part, num_frames=len(part)).sample for part in torch.split(latents, chunk)]
        return torch.cat(pieces).float()

    def _check(self, images: torch.Tensor, rgb_images: torch.Tensor, generator: torch.Generator) -> None:
        shape = tuple(images.shape)
        if images.ndim != 4 or shape[1] != 3 or shape[0] < 1 or tuple(rgb_images.shape) != shape:
            raise InputError(f"images {shape} and rgb_images {tuple(rgb_images.shape)} must both be [T,3,H,W].")
        if not (images.is_floating_point() and rgb_images.is_floating_point()):
            raise InputError("images and rgb_images must be floating point in [-1, 1].")
        if shape[2] % self.vae_factor or shape[3] % self.vae_factor:
            raise InputError(f"Height and width {shape[2:]} must be multiples of {self.vae_factor}.")
        if generator.device.type != "cpu":
            raise InputError(f"The generator must be on the cpu, not on {generator.device}.")


def amodal_masks(frames_u8: NDArray[np.uint8], modal: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Returns the amodal masks [T,H,W] in stage 1's pictures [T,H,W,3]: channel sum > 600, or modal [T,H,W] > 0."""
    bright: NDArray[np.bool_] = frames_u8.sum(axis=-1, dtype=np.int64) > 600
    return bright | (modal > 0)


def modal_rgb(rgb: NDArray[np.float32], modal: NDArray[np.float32]) -> NDArray[np.float32]:
    """Replaces RGB [T,3,H,W] in [-1, 1] by white (1.0) except where modal [T,H,W] > 0."""
    return np.where(modal[:, None] > 0, rgb, np.float32(1))


def three_channels(planes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Repeats planes [T,H,W] as RGB [T,3,H,W]."""
    return np.repeat(planes[:, None], 3, axis=1)
