"""The export plan of a Diffusion-VAS model: the five graphs of each stage, and the depth network's."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch

from amodal.runtime.bundle.manifest import Precision, TaskEntry
from amodal.runtime.errors import InputError
from amodal.runtime.families.diffusion_vas.config import ContextLayout, Domain, StageName
from amodal.runtime.pictures.depth import DepthChannels, depth_input_size

from ...checkpoints.checkpoint import Network, StageCheckpoint
from ...depth_anything.graph import write_depth
from ...depth_anything.network import DepthNetwork
from ...graph.variants import VARIANTS, Variant
from ...graph.writer import Dtypes, Graph
from ...plan import ComponentPlan, ExportPlan, Size
from .clip import write_image_encoder
from .reference import StageReference
from .unet import write_conditioner, write_unet
from .unet_structure import UNetStructure
from .vae import write_decoder, write_encoder

NOISE_AUGMENTATION = 0.02  # the authors' demo
MOTION_BUCKET = 127.0

Check = Literal["full", "small", "none"]

_SMALL = 64 * 128  # pixels up to which graphs are compared with torch at their own size
_SMALL_DEPTH = (4 * 14, 6 * 14)
# Norms over groups of one or two values amplify rounding without bound: toys at sizes like 64x64 then differ even
# between two runs of torch. From four values on, differences were as usual.
_GROUP = 4
_FLOAT32 = ("vae_encoder", "unet_conditioner")  # overflows in half precision; runs once per clip


@dataclass(frozen=True)
class ExportSettings:
    """How to export checkpoints."""

    size: Size = (256, 512)  # (H, W) of the clip; see `size_multiple` in the manifest
    frames: int = 25  # T, the most frames in a clip
    precision: Precision = "fp16"  # of the weights, and of the arithmetic where the reference uses half precision
    # Dtype of the weights in the files; None for `precision`. `fp16` under `fp32` halves the bundle, and computes in
    # float32 with the rounded weights.
    stored: Precision | None = None
    context: ContextLayout = "reference"
    decode_chunk: int = 8  # frames that the VAE decodes at once
    variant: str | None = None  # in `VARIANTS`; None for `engine` (to build engines from) with fp16, `cpu` with fp32
    depth_channels: DepthChannels = "demo"  # their order for the depth network by default
    propagate: bool = False  # whether `complete` copies hidden pixels from other frames by default
    domain: Domain | None = None  # what the checkpoints were trained on, if that is narrow
    check: Check = "small"  # compare graphs with torch: at their own size, at a small one if that is large, or not

    def __post_init__(self) -> None:
        for name, value, known in (
            ("precision", self.precision, ("fp16", "fp32")),
            ("stored", self.stored or self.precision, ("fp16", "fp32")),
            ("context", self.context, ("reference", "aligned", "sequence")),
            ("depth_channels", self.depth_channels, get_args(DepthChannels)),
            ("variant", self.variant or "cpu", tuple(VARIANTS)),
            ("check", self.check, ("full", "small", "none")),
        ):
            if value not in known:
                raise InputError(f"{name} {value!r} is unknown; expected one of {', '.join(known)}.", field=name)
        if self.frames < 1 or self.decode_chunk < 1:
            raise InputError(
                f"`frames={self.frames}` and `decode_chunk={self.decode_chunk}`: expected 1 or more of both."
            )

    @property
    def dtypes(self) -> Dtypes:
        """The dtypes of the graphs."""
        return Dtypes.of(self.precision, self.stored)

    @property
    def graph_variant(self) -> Variant:
        """The variant of the graphs."""
        return VARIANTS[self.variant or ("engine" if self.precision == "fp16" else "cpu")]


def plan_export(
    stages: Mapping[StageName, StageCheckpoint],
    depth: DepthNetwork | None = None,
    settings: ExportSettings | None = None,
) -> ExportPlan:
    """Returns the plan of a bundle.

    Args:
        depth: a depth network, or None for a bundle whose user provides depth.

    Raises:
        InputError: the size does not fit, or the stages do not fit each other.
        CheckpointError: a checkpoint's config is not usable.
    """
    settings = settings or ExportSettings()
    if not stages:
        raise InputError("nothing to export: give a checkpoint for `segment`, for `complete`, or for both.")
    # Stages may differ in how often their U-Nets halve the latents; the size has to fit all of them.
    multiple = math.lcm(*map(_size_multiple, stages.values()))
    _require_divisible(settings.size, multiple)
    components: list[ComponentPlan] = []
    tasks: dict[str, TaskEntry] = {}
    for stage, checkpoint in stages.items():
        planned = stage_components(stage, checkpoint, settings)
        components += planned
        roles = {c.kind: c.key for c in planned} | ({"depth": "depth"} if depth and stage == "segment" else {})
        tasks[stage] = TaskEntry(components=roles, source=checkpoint.source, licence=checkpoint.licence)
    config = _config(stages, settings) | {"size_multiple": multiple}
    if depth is not None:
        components.append(_depth_component(depth, settings))
        height, width = components[-1].size
        model = f"Depth Anything V2 {depth.variant.name}{' metric' if depth.kind == 'metric' else ''}"
        facts = {"model": model, "channels": settings.depth_channels, "kind": depth.kind}
        config["depth"] = {"height": height, "width": width, **facts}
    stored, compare = settings.stored or settings.precision, settings.check != "none"
    return ExportPlan("diffusion-vas", config, tasks, tuple(components), settings.graph_variant, stored, compare)


def _config(stages: Mapping[StageName, StageCheckpoint], settings: ExportSettings) -> dict[str, Any]:
    """Returns the manifest's `config`, without depth and `size_multiple`."""
    return {
        "frames": settings.frames,
        "height": settings.size[0],
        "width": settings.size[1],
        "decode_chunk": settings.decode_chunk,
        "context_layout": settings.context,
        "noise_dtype": "float16" if settings.precision == "fp16" else "float32",
        "noise_augmentation": NOISE_AUGMENTATION,
        "motion_bucket": MOTION_BUCKET,
        "propagate": settings.propagate,
        "depth": None,
        "domain": None if settings.domain is None else settings.domain.model_dump(mode="json"),
        **_common_config(stages),
    }


def _common_config(stages: Mapping[StageName, StageCheckpoint]) -> dict[str, Any]:
    """Returns the part of the manifest's `config` that stages must have in common."""

    def facts(checkpoint: StageCheckpoint) -> dict[str, Any]:
        vae, clip = checkpoint.vae.config, checkpoint.image_encoder.config
        pixels = {"side": clip["image_size"], "mean": checkpoint.image_mean, "std": checkpoint.image_std}
        return {
            "noise schedule": checkpoint.scheduler,
            "VAE factor": _vae_factor(checkpoint.vae),
            "VAE scaling factor": vae["scaling_factor"],
            "latent channels": vae["latent_channels"],
            "image encoder's input and width": pixels | {"width": clip["projection_dim"]},
        }

    (name, first), *others = stages.items()
    common = facts(first)
    for other, checkpoint in others:
        for fact, theirs in facts(checkpoint).items():
            if theirs != common[fact]:
                raise InputError(
                    f"the stages do not fit together: the {fact} is {common[fact]} in {name} ({first.source}) and "
                    f"{theirs} in {other} ({checkpoint.source}); export them into two bundles."
                )
    scheduler, *values = common.values()
    sigmas = {key: scheduler[key] for key in ("sigma_min", "sigma_max")}
    names = ("vae_factor", "scaling_factor", "latent_channels", "image_encoder")
    return {"scheduler": sigmas} | dict(zip(names, values, strict=True))


def stage_components(stage: StageName, checkpoint: StageCheckpoint, settings: ExportSettings) -> list[ComponentPlan]:
    """Plans the five graphs of a stage, in the order in which they run."""
    variant, dtypes, frames, layout = settings.graph_variant, settings.dtypes, settings.frames, settings.context
    factor, structure = _vae_factor(checkpoint.vae), UNetStructure.of(checkpoint.unet.config)
    clip, vae, unet = checkpoint.image_encoder, checkpoint.vae, checkpoint.unet
    reference = StageReference(checkpoint, structure, layout == "sequence")
    check_size = _check_size_of(settings.size, checkpoint, settings.check)

    def latent(size: Size) -> Size:
        return size[0] // factor, size[1] // factor

    graphs: dict[str, tuple[Network, Callable[[Size], Graph]]] = {
        "image_encoder": (clip, lambda _: write_image_encoder(clip.weights, clip.config, variant, dtypes=dtypes)),
        "vae_encoder": (vae, lambda size: write_encoder(vae.weights, vae.config, size, variant, dtypes=dtypes)),
        "unet_conditioner": (unet, lambda _: write_conditioner(unet.weights, structure, frames, layout, dtypes=dtypes)),
        "unet": (
            unet,
            lambda size: write_unet(unet.weights, structure, frames, latent(size), layout, variant, dtypes=dtypes),
        ),
        "vae_decoder": (vae, lambda size: write_decoder(vae.weights, vae.config, latent(size), variant, dtypes=dtypes)),
    }
    return [
        ComponentPlan(
            key=f"{stage}_{kind}",
            kind=kind,
            precision="fp32" if kind in _FLOAT32 else settings.precision,
            source=network.source,
            write=write,
            size=settings.size,
            check_size=check_size,
            reference=getattr(reference, kind),
            fingerprint=None if network is unet else partial(getattr, network, "fingerprint"),
            repeated=kind == "unet",
            least_precision="fp32" if kind in _FLOAT32 else "fp16",
            bfloat16=kind != "unet_conditioner",
        )
        for kind, (network, write) in graphs.items()
    ]


def _depth_component(network: DepthNetwork, settings: ExportSettings) -> ComponentPlan:
    """Plans the depth graph, whose sizes are those of the network's own input, not of the frames."""
    size = depth_input_size(*settings.size)
    return ComponentPlan(
        key="depth",
        kind="depth",
        precision=settings.precision,
        source=network.source,
        write=lambda size: write_depth(network, size, settings.graph_variant, dtypes=settings.dtypes),
        size=size,
        check_size=size if settings.check == "full" or size[0] * size[1] <= _SMALL else _SMALL_DEPTH,
        bfloat16=False,
        reference=lambda inputs: (inputs, {"depth": network(torch.from_numpy(inputs["pixels"]))}),
    )


def _vae_factor(vae: Network) -> int:
    """Returns the pixels per latent, along each side."""
    return int(2 ** (len(vae.config["block_out_channels"]) - 1))


def _size_multiple(checkpoint: StageCheckpoint) -> int:
    """Returns the number that divides height and width: the VAE's factor times the U-Net's."""
    return _vae_factor(checkpoint.vae) * UNetStructure.of(checkpoint.unet.config).downscale


def _require_divisible(size: Size, multiple: int) -> None:
    """Raises InputError, with the nearest sizes that fit, unless a size is divisible by `multiple`."""
    if all(n > 0 and n % multiple == 0 for n in size):
        return
    nearest = ["x".join(str(max(f(n / multiple), 1) * multiple) for n in size) for f in (math.floor, math.ceil)]
    are = f"nearest are {nearest[0]} and {nearest[1]}" if nearest[0] != nearest[1] else f"nearest is {nearest[0]}"
    raise InputError(
        f"size {size[0]}x{size[1]} does not fit: this checkpoint's VAE and U-Net need multiples of {multiple}; "
        f"the {are}.",
        field="size",
    )


def _check_size_of(size: Size, checkpoint: StageCheckpoint, check: Check) -> Size:
    """Returns the size at which graphs are compared with torch: their own, or a small one that is not square.

    A small one, unless `check` is `full`, if their own is large, or so small that only rounding would be compared.
    """
    multiple, factor = _size_multiple(checkpoint), _vae_factor(checkpoint.vae)
    structure = UNetStructure.of(checkpoint.unet.config)

    def well_conditioned(size: Size) -> bool:
        return structure.group_values((size[0] // factor, size[1] // factor)) >= _GROUP

    small = size[0] * size[1] <= max(_SMALL, 2 * multiple * multiple)
    if check == "full" or (small and well_conditioned(size)):
        return size
    return next(at for n in itertools.count(1) if well_conditioned(at := (n * multiple, 2 * n * multiple)))
