"""The `config` of a Diffusion-VAS bundle's manifest: the clip's shape and the constants of the checkpoints."""

from __future__ import annotations

from typing import Literal, get_args

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

from ...bundle.manifest import Manifest
from ...pictures.depth import DepthChannels

NAME = "diffusion-vas"

ContextLayout = Literal["reference", "aligned", "sequence"]
StageName = Literal["segment", "complete"]
STAGES: tuple[StageName, ...] = get_args(StageName)

ROLES = ("image_encoder", "vae_encoder", "unet_conditioner", "unet", "vae_decoder")
"""The components of both stages; `segment` may also have `depth`."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class SchedulerEntry(_Record):
    """EDM noise levels (Karras et al. 2022, table 1, with rho = 7)."""

    sigma_min: PositiveFloat
    sigma_max: PositiveFloat
    rho: PositiveFloat = 7.0


class ImageEncoderEntry(_Record):
    """Input of the image encoder: side in pixels, mean and deviation of values in [0, 1]; width of its embeddings."""

    side: PositiveInt
    mean: tuple[float, float, float]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    width: PositiveInt


class DepthEntry(_Record):
    """The depth component.

    Attributes:
        height, width: its input size.
        model: the model's name.
        channels: the order of the channels it is given by default; bundles older than this field have the demo's.
        kind: what its output is: relative, nearer is larger, or metric distances, which the runtime inverts.
    """

    height: PositiveInt
    width: PositiveInt
    model: str
    channels: DepthChannels = "demo"
    kind: Literal["relative", "metric"] = "relative"


Range = tuple[float, float]


class Domain(_Record):
    """What the networks were trained on, where that is narrow; `domain` measures clips and defines the measures.

    Attributes:
        about: in words, in the plural.
        grain, relief, nearer, motion, area: the least and the most of each measure in the training clips.
    """

    about: str
    grain: Range
    relief: Range
    nearer: Range
    motion: Range
    area: Range


class Config(_Record):
    """The `config` of a Diffusion-VAS bundle's manifest.

    Attributes:
        frames, height, width: the clip's static shape.
        latent_channels, vae_factor: latents are [frames, latent_channels, height / vae_factor, width / vae_factor].
        size_multiple: number that divides height and width, the VAE's factor times the U-Net's; None in bundles older
            than this field.
        decode_chunk: frames that the VAE decodes at once; it changes the result, because the decoder is temporal.
        noise_dtype: dtype in which the latents' noise is drawn (a half-precision reference draws it in float16).
        noise_augmentation, motion_bucket: the conditioning constants of the checkpoint's demo.
        propagate: whether `complete` copies hidden pixels from other frames by default; the authors' code does not.
        domain: the clips that the networks know; None if they were trained on many kinds.
    """

    frames: PositiveInt
    height: PositiveInt
    width: PositiveInt
    latent_channels: PositiveInt
    vae_factor: PositiveInt
    size_multiple: PositiveInt | None = None
    decode_chunk: PositiveInt
    scaling_factor: PositiveFloat
    context_layout: ContextLayout
    noise_dtype: Literal["float32", "float16"]
    noise_augmentation: float
    motion_bucket: float
    propagate: bool = False
    scheduler: SchedulerEntry
    image_encoder: ImageEncoderEntry
    depth: DepthEntry | None
    domain: Domain | None = None

    @property
    def latent_size(self) -> tuple[int, int]:
        """(h, w) of the latents."""
        return self.height // self.vae_factor, self.width // self.vae_factor

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the frames."""
        return self.height, self.width

    @property
    def multiple(self) -> int:
        """`size_multiple`; if it is None, that of the released U-Net (factor 8)."""
        return self.size_multiple or 8 * self.vae_factor


def config_of(manifest: Manifest) -> Config:
    """Returns a manifest's `config`; raises `pydantic.ValidationError` if it is not that of Diffusion-VAS."""
    return Config.model_validate(manifest.config)


def check(manifest: Manifest) -> Config:
    """Validates a manifest's `config`, tasks and components; returns the `config`.

    Raises:
        ValueError: something is missing or out of range (pydantic's `ValidationError` is one).
    """
    config = config_of(manifest)
    for task, entry in manifest.tasks.items():
        if task not in STAGES:
            raise ValueError(f"task {task!r} is unknown; expected {' or '.join(STAGES)}")
        for role in (*ROLES, "depth") if task == "segment" and config.depth is not None else ROLES:
            key = entry.components.get(role)
            if key is None or manifest.components[key].kind != role:
                raise ValueError(f"{task} has no component {role} ({key!r} is not one)")
    return config
