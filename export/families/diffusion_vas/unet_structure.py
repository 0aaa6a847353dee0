"""The blocks of the U-Net: which there are, in which order, and how wide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from amodal.runtime.errors import CheckpointError
from amodal.runtime.families.diffusion_vas.config import ContextLayout

from ...graph.layers import GROUPS

_CROSS = {"CrossAttnDownBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"}
_KNOWN = _CROSS | {"DownBlockSpatioTemporal", "UpBlockSpatioTemporal"}


class ResBlock(NamedTuple):
    """A spatio-temporal residual block: its name, output channels and the epsilon of its norms."""

    name: str
    channels: int
    eps: float


class Transformer(NamedTuple):
    """A spatio-temporal transformer: its name, width, heads, and layers of each kind."""

    name: str
    channels: int
    heads: int
    layers: int


class Level(NamedTuple):
    """A down, middle or up block: its layers, and whether a resampling convolution follows."""

    name: str
    layers: list[tuple[ResBlock, Transformer | None]]
    resample: bool


@dataclass(frozen=True)
class UNetStructure:
    """The blocks of diffusers' `UNetSpatioTemporalConditionModel`.

    The conditioner packs its outputs in the order of `res_blocks` and `transformers`, which is that of evaluation.
    """

    config: dict[str, Any]
    down: list[Level]
    mid: Level
    up: list[Level]

    @classmethod
    def of(cls, config: dict[str, Any]) -> UNetStructure:
        """Reads the blocks from the U-Net's config.

        Raises:
            CheckpointError: the config names an unknown block, or a number of heads that does not divide a width.
        """
        for kind in (*config["down_block_types"], *config["up_block_types"]):
            if kind not in _KNOWN:
                raise CheckpointError(
                    f"the U-Net's config asks for a {kind}; expected one of {', '.join(sorted(_KNOWN))}."
                )
        count, last = len(config["block_out_channels"]), config["block_out_channels"][-1]
        down = [
            _level(config, f"down_blocks.{i}", k, i, i < count - 1) for i, k in enumerate(config["down_block_types"])
        ]
        up = [
            _level(config, f"up_blocks.{i}", kind, count - 1 - i, i < count - 1)
            for i, kind in enumerate(config["up_block_types"])
        ]
        before, after = (ResBlock(f"mid_block.resnets.{i}", last, 1e-5) for i in (0, 1))
        transformer = _transformer(config, "mid_block.attentions.0", -1)
        mid = Level("mid_block", [(before, transformer), (after, None)], resample=False)
        return cls(config, down, mid, up)

    @property
    def res_blocks(self) -> list[ResBlock]:
        """All residual blocks."""
        return [block for level in (*self.down, self.mid, *self.up) for block, _ in level.layers]

    @property
    def transformers(self) -> list[Transformer]:
        """All transformers."""
        return [t for level in (*self.down, self.mid, *self.up) for _, t in level.layers if t]

    @property
    def layers(self) -> list[tuple[Transformer, str, str]]:
        """All transformer layers: the transformer, and the names of the spatial and the temporal block."""
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
        """The number that divides the height and width of latents."""
        return int(2 ** sum(level.resample for level in self.down))

    def group_values(self, size: tuple[int, int]) -> int:
        """Returns the fewest values in a group of a norm in one frame, for latents of `size` (h, w)."""
        widths, pixels = self.config["block_out_channels"], size[0] * size[1]
        return int(min(width // GROUPS * (pixels >> 2 * i) for i, width in enumerate(widths)))

    def context_shapes(self, layout: ContextLayout, frames: int) -> dict[str, tuple[int | str, ...]]:
        """Returns names and shapes of the two context tensors that the conditioner computes for the U-Net."""
        if layout == "sequence":
            shape = ("rows", frames, 2 * self.context_width)
            return {"keys": shape, "values": shape}
        return {"spatial": ("rows", frames, self.context_width), "temporal": ("rows", self.context_width)}


def _at(config: dict[str, Any], key: str, i: int) -> int:
    """Returns a config value of level i, where one number stands for all levels."""
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


def _level(config: dict[str, Any], name: str, kind: str, i: int, resample: bool) -> Level:
    # diffusers builds this block and the middle one with another epsilon than the rest.
    eps = 1e-5 if kind == "DownBlockSpatioTemporal" else 1e-6
    layers = _at(config, "layers_per_block", i) + kind.endswith("UpBlockSpatioTemporal")
    blocks = [ResBlock(f"{name}.resnets.{j}", config["block_out_channels"][i], eps) for j in range(layers)]
    transformers = [
        _transformer(config, f"{name}.attentions.{j}", i) if kind in _CROSS else None for j in range(layers)
    ]
    return Level(name, list(zip(blocks, transformers, strict=True)), resample)
