"""The U-Net's structure as its config gives it: which blocks there are, in which order, and how wide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from amodal.runtime.errors import CheckpointError
from amodal.runtime.families.diffusion_vas.config import ContextLayout

from ...graph.layers import GROUPS

_CROSS = {"CrossAttnDownBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"}
_KNOWN = _CROSS | {"DownBlockSpatioTemporal", "UpBlockSpatioTemporal"}


@dataclass(frozen=True)
class ResBlock:
    """A spatio-temporal residual block: its name, output channels and the epsilon of its norms."""

    name: str
    channels: int
    eps: float


@dataclass(frozen=True)
class Transformer:
    """Where a transformer stands."""

    name: str
    channels: int
    heads: int
    layers: int


@dataclass(frozen=True)
class Level:
    """One down or up block: its layers, and whether a resampling convolution follows."""

    name: str
    layers: tuple[tuple[ResBlock, Transformer | None], ...]
    resample: bool


@dataclass(frozen=True)
class UNetStructure:
    """The U-Net's structure as its config gives it (diffusers' `UNetSpatioTemporalConditionModel`).

    The order of `res_blocks` and `transformers` is the order in which the conditioner packs what it computes.
    """

    config: dict[str, Any]
    down: tuple[Level, ...]
    mid: tuple[ResBlock, Transformer, ResBlock]
    up: tuple[Level, ...]

    @classmethod
    def of(cls, config: dict[str, Any]) -> UNetStructure:
        """Lays out the blocks.

        Raises:
            CheckpointError: the config asks for a block this family does not have, or for heads that do not divide a
                width.
        """
        for kind in (*config["down_block_types"], *config["up_block_types"]):
            if kind not in _KNOWN:
                raise CheckpointError(
                    f"the U-Net's config asks for a {kind}; expected one of {', '.join(sorted(_KNOWN))}."
                )
        count, last = len(config["block_out_channels"]), config["block_out_channels"][-1]
        down = tuple(
            _level(config, f"down_blocks.{i}", kind, i, resample=i < count - 1)
            for i, kind in enumerate(config["down_block_types"])
        )
        up = tuple(
            _level(config, f"up_blocks.{i}", kind, count - 1 - i, resample=i < count - 1)
            for i, kind in enumerate(config["up_block_types"])
        )
        mid = (
            ResBlock("mid_block.resnets.0", last, 1e-5),
            _transformer(config, "mid_block.attentions.0", -1),
            ResBlock("mid_block.resnets.1", last, 1e-5),
        )
        return cls(config, down, mid, up)

    @property
    def res_blocks(self) -> list[ResBlock]:
        """Every residual block, in the order of evaluation."""
        down = [r for level in self.down for r, _ in level.layers]
        up = [r for level in self.up for r, _ in level.layers]
        return [*down, self.mid[0], self.mid[2], *up]

    @property
    def transformers(self) -> list[Transformer]:
        """Every transformer, in the order of evaluation."""
        down = [t for level in self.down for _, t in level.layers if t]
        up = [t for level in self.up for _, t in level.layers if t]
        return [*down, self.mid[1], *up]

    @property
    def layers(self) -> list[tuple[Transformer, str, str]]:
        """Every transformer layer: the transformer, its spatial and its temporal block's name."""
        return [
            (t, f"{t.name}.transformer_blocks.{i}", f"{t.name}.temporal_transformer_blocks.{i}")
            for t in self.transformers
            for i in range(t.layers)
        ]

    @property
    def time_width(self) -> int:
        """Width P of the time table: two rows of each residual block's channels."""
        return sum(2 * r.channels for r in self.res_blocks)

    @property
    def context_width(self) -> int:
        """Width C' of the packed spatial, and of the packed temporal, context constants."""
        return sum(t.channels for t, _, _ in self.layers)

    @property
    def downscale(self) -> int:
        """What the latent's height and width must be divisible by."""
        return int(2 ** sum(level.resample for level in self.down))

    def group_values(self, size: tuple[int, int]) -> int:
        """The fewest values that a group of a norm holds in one frame, for latents of (h, w)."""
        widths, pixels = self.config["block_out_channels"], size[0] * size[1]
        return int(min(width // GROUPS * (pixels >> 2 * i) for i, width in enumerate(widths)))

    def context_shapes(self, layout: ContextLayout, frames: int) -> dict[str, tuple[int | str, ...]]:
        """Names and shapes of the two context tensors that go from the conditioner to the U-Net."""
        if layout == "sequence":
            shape = ("rows", frames, 2 * self.context_width)
            return {"keys": shape, "values": shape}
        return {"spatial": ("rows", frames, self.context_width), "temporal": ("rows", self.context_width)}


def _at(config: dict[str, Any], key: str, i: int) -> int:
    """A config value of level i; one number stands for all levels."""
    value = config[key]
    return int(value if isinstance(value, int) else value[i])


def _transformer(config: dict[str, Any], name: str, i: int) -> Transformer:
    width, heads = config["block_out_channels"][i], _at(config, "num_attention_heads", i)
    if width % heads:
        raise CheckpointError(
            f"the U-Net's config asks for {heads} attention heads over {width} channels, which they do not divide; "
            "weights and config.json do not belong together."
        )
    return Transformer(name, width, heads, _at(config, "transformer_layers_per_block", i))


def _level(config: dict[str, Any], name: str, kind: str, i: int, *, resample: bool) -> Level:
    # diffusers builds two of its blocks, this one and the middle, with another epsilon than the rest.
    eps = 1e-5 if kind == "DownBlockSpatioTemporal" else 1e-6
    layers = _at(config, "layers_per_block", i) + kind.endswith("UpBlockSpatioTemporal")
    return Level(
        name,
        tuple(
            (
                ResBlock(f"{name}.resnets.{j}", config["block_out_channels"][i], eps),
                _transformer(config, f"{name}.attentions.{j}", i) if kind in _CROSS else None,
            )
            for j in range(layers)
        ),
        resample,
    )
