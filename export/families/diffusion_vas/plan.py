"""What an export will write: the graphs of both stages, and which of them are shared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from amodal.runtime.bundle.manifest import ContextLayout, Precision, StageName
from amodal.runtime.errors import InputError

from ...checkpoints.checkpoint import Network, StageCheckpoint
from ...depth_anything.graph import write_depth
from ...depth_anything.network import DepthNetwork
from ...fusing import VARIANT
from ...graph.layers import VARIANTS, Variant
from ...graph.writer import Dtypes, Graph
from .clip import write_image_encoder
from .unet import write_conditioner, write_unet
from .unet_plan import Plan
from .vae import write_decoder, write_encoder

Check = Literal["full", "small", "none"]
Size = tuple[int, int]

_SMALL = 64 * 128  # pixels up to which graphs are compared with torch at their own size
# Norms over groups of one or two values blow rounding up, without bound: toys at sizes like 64x64 then differ between
# two runs of torch, too. From four values on none did by more than the usual.
_GROUP = 4


@dataclass(frozen=True)
class ExportSettings:
    """What to export a checkpoint for.

    Attributes:
        size: (H, W) of the clip; divisible by what the VAE and the U-Net halve.
        frames: T.
        precision: `fp16` for half-precision weights and arithmetic (where the reference has them), or `fp32`.
        stored: dtype of the weights in the files; None for `precision`. `fp16` under `fp32` halves the bundle and
            computes as exactly as before with the rounded weights.
        context: context layout.
        decode_chunk: frames that the VAE decodes at once.
        variant: name in `VARIANTS`; None for `engine` with fp16, which engines are built from, and `cpu` with fp32.
        propagate: whether `complete` carries over what other frames show, unless told otherwise.
        check: compare each graph with torch: at its own size (`full`), at a small one where that is large (`small`;
            see `check_size_of`), or not at all (`none`).
    """

    size: Size = (256, 512)
    frames: int = 25
    precision: Precision = "fp16"
    stored: Precision | None = None
    context: ContextLayout = "reference"
    decode_chunk: int = 8
    variant: str | None = None
    propagate: bool = False
    check: Check = "small"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("precision", self.precision, ("fp16", "fp32")),
            ("stored", self.stored or self.precision, ("fp16", "fp32")),
            ("context", self.context, ("reference", "aligned", "sequence")),
            ("variant", self.variant or "cpu", tuple(VARIANTS)),
            ("check", self.check, ("full", "small", "none")),
        ):
            if value not in known:
                raise InputError(f"--{name} {value} is unknown; expected one of {', '.join(known)}.")
        if self.frames < 1 or self.decode_chunk < 1:
            raise InputError(
                f"--frames {self.frames} and --decode-chunk {self.decode_chunk}: expected 1 or more of both."
            )

    @property
    def half(self) -> bool:
        """Whether arithmetic is in half precision, where the reference has it so."""
        return self.precision == "fp16"

    @property
    def dtypes(self) -> Dtypes:
        """The dtypes to write."""
        return Dtypes.of(self.precision, self.stored)

    @property
    def graph_variant(self) -> Variant:
        """The variant to write."""
        return VARIANTS[self.variant or ("engine" if self.half else "cpu")]

    @property
    def fused(self) -> bool:
        """Whether graphs get twins for the kernels of `amodal.runtime.backends.onnxruntime.kernels`."""
        return self.graph_variant.name == VARIANT


@dataclass(frozen=True)
class Job:
    """One graph to write.

    Attributes:
        key: its key in the manifest's components.
        kind: its component name in the vocabulary.
        precision: of its arithmetic.
        network: the checkpoint's network, or the depth network.
        write: makes the graph for frames of a size.
        check_size: frame size at which it is compared with torch.
        plan: the U-Net's structure, for `unet` and `unet_conditioner`.
    """

    key: str
    kind: str
    precision: Precision
    network: Any
    write: Callable[[Size], Graph]
    check_size: Size
    plan: Plan | None = None


def check_size_of(size: Size, checkpoint: StageCheckpoint, check: Check) -> Size:
    """The size at which graphs are compared: their own, or one small and not square.

    The latter where their own is large, or so small that the comparison would be of rounding alone.
    """
    multiple, factor = multiple_of(checkpoint), vae_factor(checkpoint.vae)
    plan = Plan.of(checkpoint.unet.config)

    def well_conditioned(size: Size) -> bool:
        return plan.group_values((size[0] // factor, size[1] // factor)) >= _GROUP

    small = size[0] * size[1] <= max(_SMALL, 2 * multiple * multiple)
    if check == "full" or (small and well_conditioned(size)):
        return size
    return next(at for n in itertools.count(1) if well_conditioned(at := (n * multiple, 2 * n * multiple)))


def require_divisible(size: Size, multiple: int) -> None:
    """Raises InputError, with the nearest sizes that fit, if a size is not divisible by `multiple`."""
    if all(n > 0 and n % multiple == 0 for n in size):
        return
    nearest = ["x".join(str(max(f(n / multiple), 1) * multiple) for n in size) for f in (math.floor, math.ceil)]
    are = f"nearest are {nearest[0]} and {nearest[1]}" if nearest[0] != nearest[1] else f"nearest is {nearest[0]}"
    raise InputError(
        f"--size {size[0]}x{size[1]} does not fit: this checkpoint's VAE and U-Net need multiples of {multiple}; "
        f"the {are}."
    )


def multiple_of(checkpoint: StageCheckpoint) -> int:
    """What height and width must be divisible by."""
    return vae_factor(checkpoint.vae) * Plan.of(checkpoint.unet.config).downscale


def vae_factor(vae: Network) -> int:
    """Pixels per latent, along each side."""
    return int(2 ** (len(vae.config["block_out_channels"]) - 1))


def jobs_of_stage(stage: StageName, checkpoint: StageCheckpoint, settings: ExportSettings) -> list[Job]:
    """The five graphs of a stage, in the order in which they run."""
    variant, dtypes, frames = settings.graph_variant, settings.dtypes, settings.frames
    factor, plan = vae_factor(checkpoint.vae), Plan.of(checkpoint.unet.config)
    check = check_size_of(settings.size, checkpoint, settings.check)
    clip, vae, unet = checkpoint.image_encoder, checkpoint.vae, checkpoint.unet

    def latent(size: Size) -> Size:
        return size[0] // factor, size[1] // factor

    def job(
        kind: str,
        network: Network,
        write: Callable[[Size], Graph],
        precision: Precision,
        at: Plan | None = None,
    ) -> Job:
        return Job(f"{stage}_{kind}", kind, precision, network, write, check, at)

    layout, precision = settings.context, settings.precision
    return [
        job(
            "image_encoder",
            clip,
            lambda _: write_image_encoder(clip.weights, clip.config, variant, dtypes=dtypes),
            precision,
        ),
        job(
            "vae_encoder",
            vae,
            lambda size: write_encoder(vae.weights, vae.config, size, variant, dtypes=dtypes),
            "fp32",
        ),
        job(
            "unet_conditioner",
            unet,
            lambda _: write_conditioner(unet.weights, plan, frames, layout, dtypes=dtypes),
            "fp32",
            plan,
        ),
        job(
            "unet",
            unet,
            lambda size: write_unet(unet.weights, plan, frames, latent(size), layout, variant, dtypes=dtypes),
            precision,
            plan,
        ),
        job(
            "vae_decoder",
            vae,
            lambda size: write_decoder(vae.weights, vae.config, latent(size), variant, dtypes=dtypes),
            precision,
        ),
    ]


def depth_job(network: DepthNetwork, input_size: Size, settings: ExportSettings) -> Job:
    """The depth graph; its sizes are those of the network's own input, not of the frames."""
    small = (4 * 14, 6 * 14)
    check = input_size if settings.check == "full" or input_size[0] * input_size[1] <= _SMALL else small
    return Job(
        "depth",
        "depth",
        settings.precision,
        network,
        lambda size: write_depth(network, size, settings.graph_variant, dtypes=settings.dtypes),
        check,
    )
