"""The manifest of a bundle: what is inside, and what the runtime must know to run it."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PositiveFloat, PositiveInt, model_validator

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
FAMILY = "diffusion-vas"

STAGE_KINDS = ("image_encoder", "vae_encoder", "unet_conditioner", "unet", "vae_decoder")

ContextLayout = Literal["reference", "aligned", "sequence"]
StageName = Literal["segment", "complete"]
Precision = Literal["fp32", "fp16"]


def _inside(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise ValueError(f"{path!r} does not stay inside the bundle")
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileEntry(_Record):
    """One file of a bundle, with the SHA-256 of its content."""

    path: RelativePath
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class TensorEntry(_Record):
    """One input or output of a graph; axes given as text are free."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class ComponentEntry(_Record):
    """One network as a graph.

    Attributes:
        kind: the component's name in the vocabulary (`unet`, `vae_encoder`, ...).
        precision: arithmetic of the graph; inputs and outputs are float32 always.
        stored: dtype of the weights in the file.
        variant: how the graph is written where several forms compute the same.
        difference: relative L2 difference to the torch module on random input, measured at export; None if skipped.
        source: the weights' origin.
    """

    kind: str
    files: tuple[FileEntry, ...] = Field(min_length=1)
    precision: Precision
    stored: Precision
    variant: dict[str, str]
    parameters: int = Field(ge=0)
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    difference: float | None = None
    source: str

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(f.bytes for f in self.files)


class SchedulerEntry(_Record):
    """EDM noise levels (Karras et al. 2022, table 1, with rho = 7)."""

    sigma_min: PositiveFloat
    sigma_max: PositiveFloat
    rho: PositiveFloat = 7.0


class ImageEncoderEntry(_Record):
    """What the image encoder expects: side in pixels, mean and deviation of values in [0, 1]."""

    side: PositiveInt
    mean: tuple[float, float, float]
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat]
    width: PositiveInt


class DepthEntry(_Record):
    """What the depth component expects: (h, w) of its input and the model's name."""

    height: PositiveInt
    width: PositiveInt
    model: str


class StageEntry(_Record):
    """One stage: vocabulary name -> key in the bundle's components, so that stages can share."""

    components: dict[str, str]
    source: str
    licence: str | None = None


class Manifest(_Record):
    """Everything about a bundle but its weights.

    Attributes:
        frames, height, width: the clip's static shape.
        latent_channels, vae_factor: latents are [frames, latent_channels, height / vae_factor, width / vae_factor].
        decode_chunk: frames the VAE decoder takes at once; part of the result, since the decoder is temporal.
        noise_dtype: dtype in which the latents' noise is drawn (a half-precision reference draws it in float16).
        noise_augmentation, motion_bucket: the conditioning constants of the checkpoint's demo.
        propagate: whether `complete` carries hidden pixels over from other frames unless told otherwise; the authors'
            code does not.
    """

    schema_version: int
    family: Literal["diffusion-vas"]
    amodal_version: str
    created: str
    frames: PositiveInt
    height: PositiveInt
    width: PositiveInt
    latent_channels: PositiveInt
    vae_factor: PositiveInt
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
    stages: dict[StageName, StageEntry]
    components: dict[str, ComponentEntry]

    @model_validator(mode="after")
    def _complete(self) -> Manifest:
        wanted: list[tuple[str, str, str | None]] = [
            (stage, kind, e.components.get(kind)) for stage, e in self.stages.items() for kind in STAGE_KINDS
        ]
        if self.depth is not None:
            wanted.append(("depth", "depth", "depth"))
        for user, kind, key in wanted:
            entry = self.components.get(key or "")
            if entry is None or entry.kind != kind:
                raise ValueError(f"{user} has no component {kind} ({key!r} is none)")
        return self

    @property
    def latent_size(self) -> tuple[int, int]:
        """(h, w) of the latents."""
        return self.height // self.vae_factor, self.width // self.vae_factor

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the frames."""
        return self.height, self.width

    def as_json(self) -> dict[str, Any]:
        """Plain form."""
        return self.model_dump(mode="json")
