"""The export plan of a SAMEO model: the image encoder and the mask decoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from amodal.runtime.bundle.manifest import Precision, TaskEntry
from amodal.runtime.errors import InputError

from ...graph.variants import VARIANTS, Variant
from ...graph.writer import Dtypes, Graph
from ...plan import Arrays, ComponentPlan, ExportPlan, Size
from .checkpoint import SameoCheckpoint
from .decoder_graph import write_mask_decoder
from .encoder_graph import write_image_encoder
from .network import Sameo

Check = Literal["full", "small", "none"]

BOXES = 16
"""Boxes in one run of the decoder: each takes 14 MB of activations at 1024x1024, in half precision."""

_SMALL = 128 * 256  # pixels up to which graphs are compared with torch at their own size
_SMALL_GRID = (4, 16)  # the columns of a graph for the CPU decide how it embeds patches
_PROMPT = np.array([[0.2, 0.3], [0.7, 0.8], [0.4, 0.5]], np.float32)  # corners of a box, and a point
# Attention with seeded weights magnifies rounding: of the recorded small checkpoint at its own size, the decoder in
# torch's float32 is 2e-5 from float64, and in half precision 6e-3.
_SLACK = 5.0
_SEED = 20260611


@dataclass(frozen=True)
class SameoSettings:
    """How to export a checkpoint; fields are as in `amodal.export.families.diffusion_vas.plan.ExportSettings`."""

    size: Size | None = None  # (H, W) of the encoder's input; None for the checkpoint's
    precision: Precision = "fp16"
    stored: Precision | None = None
    variant: str | None = None
    boxes: int = BOXES
    check: Check = "small"

    def __post_init__(self) -> None:
        for name, value, known in (
            ("precision", self.precision, ("fp16", "fp32")),
            ("stored", self.stored or self.precision, ("fp16", "fp32")),
            ("variant", self.variant or "cpu", tuple(VARIANTS)),
            ("check", self.check, ("full", "small", "none")),
        ):
            if value not in known:
                raise InputError(f"{name} {value!r} is unknown; expected one of {', '.join(known)}.", field=name)
        if self.boxes < 1:
            raise InputError(f"`boxes={self.boxes}`: expected 1 or more boxes in one run.", field="boxes")

    @property
    def dtypes(self) -> Dtypes:
        """The dtypes of the graphs."""
        return Dtypes.of(self.precision, self.stored)

    @property
    def graph_variant(self) -> Variant:
        """The variant of the graphs."""
        return VARIANTS[self.variant or ("engine" if self.precision == "fp16" else "cpu")]


def plan_sameo(checkpoint: SameoCheckpoint, settings: SameoSettings | None = None) -> ExportPlan:
    """Returns the plan of a bundle.

    Raises:
        InputError: the size does not fit.
    """
    settings = settings or SameoSettings()
    checkpoint = checkpoint.resized(settings.size)
    weights, variant, dtypes = checkpoint.weights, settings.graph_variant, settings.dtypes
    size = (checkpoint.config.height, checkpoint.config.width)
    check_size = _check_size(checkpoint, settings.check)
    reference = _Reference(checkpoint.resized(check_size).network(), checkpoint) if settings.check != "none" else None

    def encoder(size: Size) -> Graph:
        config = checkpoint.resized(size).config
        return write_image_encoder(weights, config, checkpoint.mean, checkpoint.std, variant, dtypes)

    def decoder(size: Size) -> Graph:
        return write_mask_decoder(weights, checkpoint.resized(size).config, variant, dtypes)

    components = tuple(
        ComponentPlan(
            key=kind,
            kind=kind,
            precision=settings.precision,
            source=checkpoint.source,
            write=write,
            size=size,
            check_size=check_size,
            reference=getattr(reference, kind, _unused),
            bfloat16=False,
            slack=_SLACK,
        )
        for kind, write in (("image_encoder", encoder), ("mask_decoder", decoder))
    )
    roles = {component.kind: component.key for component in components}
    tasks = {"predict": TaskEntry(components=roles, source=checkpoint.source, licence=checkpoint.licence)}
    stored = settings.stored or settings.precision
    config = _config(checkpoint, settings)
    return ExportPlan("sameo", config, tasks, components, variant, stored, settings.check != "none")


def _config(checkpoint: SameoCheckpoint, settings: SameoSettings) -> dict[str, Any]:
    """Returns the manifest's `config`."""
    network = checkpoint.config
    return {
        "frames": 1,
        "height": network.height,
        "width": network.width,
        "patch": network.patch,
        "embedding": network.embed,
        "slots": network.slots,
        "upscaling": 4,
        "mean": list(checkpoint.mean),
        "std": list(checkpoint.std),
        "boxes_at_once": settings.boxes,
        "trained_on": checkpoint.trained_on,
    }


def _check_size(checkpoint: SameoCheckpoint, check: Check) -> Size:
    config = checkpoint.config
    if check == "full" or config.height * config.width <= _SMALL:
        return config.height, config.width
    return _SMALL_GRID[0] * config.patch, _SMALL_GRID[1] * config.patch


def _unused(inputs: Arrays) -> tuple[Arrays, dict[str, Tensor]]:
    raise AssertionError("graphs are not compared")


class _Reference:
    """Runs the torch network on a graph's inputs, as `amodal.export.plan.Reference`."""

    def __init__(self, network: Sameo, checkpoint: SameoCheckpoint) -> None:
        self.network = network
        self.mean, self.std = (torch.tensor(each).reshape(1, 3, 1, 1) for each in (checkpoint.mean, checkpoint.std))

    @torch.no_grad()
    def image_encoder(self, inputs: Arrays) -> tuple[Arrays, dict[str, Tensor]]:
        """Encodes smooth pictures."""
        pixels = self._pictures(len(inputs["pixels"]))
        embedding = self._embedding(pixels)
        keys, values = self._shared(embedding)
        return {"pixels": pixels.numpy()}, {"embedding": embedding, "keys": keys, "values": values}

    @torch.no_grad()
    def mask_decoder(self, inputs: Arrays) -> tuple[Arrays, dict[str, Tensor]]:
        """Decodes a box and a point each, on the embedding of a smooth picture.

        Trained attention is sharp: on noise, and on prompts that make no sense, it magnifies rounding without bound.
        """
        config, (boxes, slots) = self.network.config, inputs["labels"].shape
        size = np.array([config.width, config.height], np.float32)
        points, labels = np.full((boxes, slots, 2), -1, np.float32), np.full((boxes, slots), -1, np.float32)
        for i in range(boxes):
            points[i, :3] = size * (_PROMPT + np.float32(0.07) * i)[:slots]
            labels[i, :3] = [2, 3, 1][:slots]
        embedding = self._embedding(self._pictures(1))
        keys, values = self._shared(embedding)
        prompts = (torch.from_numpy(each)[None] for each in (points, labels))
        logits, iou = self.network.forward_prompts(embedding, *prompts)
        image = {"embedding": embedding.numpy(), "keys": keys.numpy(), "values": values.numpy()}
        return image | {"prompts": points, "labels": labels}, {"logits": logits[0], "iou": iou[0]}

    def _pictures(self, count: int) -> Tensor:
        """Returns smooth random RGB in [0, 1]."""
        config = self.network.config
        coarse = torch.rand((count, 3, 8, 8), generator=torch.Generator().manual_seed(_SEED))
        return torch.nn.functional.interpolate(coarse, (config.height, config.width), mode="bilinear")

    def _embedding(self, pixels: Tensor) -> Tensor:
        embedding: Tensor = self.network.image_encoder((pixels - self.mean) / self.std)
        return embedding

    def _shared(self, embedding: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the keys and values of the decoder's first attention to the image, as the graphs lay them out."""
        layer: Any = self.network.mask_decoder.transformer.layers[0]
        across = layer.cross_attn_token_to_image
        image = embedding.flatten(2).transpose(1, 2)
        keys = across.k_proj(image + self.network.prompt_encoder.dense())
        keys, values = (x.reshape(*x.shape[:2], across.heads, -1).transpose(1, 2) for x in (keys, across.v_proj(image)))
        return keys.transpose(2, 3).contiguous(), values.contiguous()
