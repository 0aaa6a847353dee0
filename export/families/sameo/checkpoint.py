"""Reads EfficientSAM's official checkpoints, and SAMEO's tuned parts over them.

A checkpoint is `{"model": state}` with the keys of `Sameo`, as a .pt or in a .zip that contains one. SAMEO's own format
is `{"decoder": state of mask_decoder, "encoder": state of image_encoder}`; the encoder may be missing. What the shapes
of tensors do not show is read from a .json of the checkpoint's name beside it; without one, it is as in the official
files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from amodal.runtime.errors import CheckpointError, InputError

from ...graph.weights import Weight, Weights, random_weights, read_json
from .network import Sameo
from .pickles import load_tensors
from .recognition import other_kind
from .sizes import NetworkConfig

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_SIZE = 1024
_HEAD = 64  # channels of a head of the encoder
_PARTS = {"decoder": "mask_decoder", "encoder": "image_encoder"}
_RANDOM = {
    "ti": NetworkConfig(),
    "s": NetworkConfig(dim=384, heads=6),
    "tiny": NetworkConfig(64, 128, 8, 32, 2, 2, 32, 4, 64, (16, 8), 32, pretrained_grid=(8, 8)),
}


@dataclass(frozen=True)
class SameoCheckpoint:
    """A checkpoint's tensors, by the names of the state of `Sameo`, and what it says of them.

    Attributes:
        config: with the size that the encoder's input has by default.
        source: for messages and the manifest.
        mean, std: of RGB in [0, 1].
        trained_on: what it was trained on, if that is narrow.
    """

    config: NetworkConfig
    tensors: Mapping[str, Tensor]
    source: str
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    trained_on: str | None = None
    licence: str | None = None

    @property
    def weights(self) -> Weights:
        """The tensors as graphs read them."""
        return Weights({n: Weight(tuple(t.shape), lambda t=t: t) for n, t in self.tensors.items()}, self.source)  # type: ignore[misc]

    def resized(self, size: tuple[int, int] | None) -> SameoCheckpoint:
        """Returns the checkpoint for another size (H, W) of the encoder's input; None for its own.

        Raises:
            InputError: a side is not a multiple of the patch.
        """
        height, width = size or (self.config.height, self.config.width)
        patch = self.config.patch
        if min(height, width) < patch or height % patch or width % patch:
            low = "x".join(str(max(side // patch, 1) * patch) for side in (height, width))
            raise InputError(
                f"size {height}x{width} does not fit: this checkpoint takes multiples of {patch}; try {low}.",
                field="size",
            )
        return replace(self, config=replace(self.config, height=height, width=width))

    def network(self) -> Sameo:
        """Returns the network in torch (eval mode, float32), which shares the tensors."""
        with torch.device("meta"):
            network = Sameo(self.config)
        network.load_state_dict({name: tensor.float() for name, tensor in self.tensors.items()}, assign=True)
        return network.requires_grad_(False).eval()


def random_checkpoint(kind: str, seed: int = 0) -> SameoCheckpoint:
    """Returns seeded random weights: of EfficientSAM-Ti or -S, or of a toy, `ti`, `s` or `tiny`.

    Raises:
        InputError: the kind is not one of them.
    """
    if kind not in _RANDOM:
        raise InputError(
            f"there is no architecture {kind!r} of this family; expected one of {', '.join(_RANDOM)}.", field="random"
        )
    config = _RANDOM[kind]
    with torch.device("meta"):
        empty = Sameo(config)
    weights = random_weights(empty, seed)
    tensors = {name: weights.load(name) for name in weights}
    matrix = "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"
    tensors[matrix] *= math.sqrt(tensors[matrix].shape[1])  # frequencies have variance one
    return SameoCheckpoint(config, tensors, "random weights")


def read_sameo(path: str | Path, tuned: str | Path | None = None) -> SameoCheckpoint:
    """Reads a checkpoint.

    Args:
        path: EfficientSAM's .pt, or a .zip that contains one.
        tuned: SAMEO's parts, to take the place of the checkpoint's.

    Raises:
        CheckpointError: a file is missing, unreadable, more than tensors, or of another network; the first wrong tensor
            is named. The .json contradicts the tensors.
    """
    path = Path(path)
    state, source = _model_state(path), str(path)
    if tuned is not None:
        state, source = _with_tuned(state, Path(tuned)), f"{path} with {tuned}"
    facts_file = path.with_suffix(".json")
    facts = read_json(facts_file) if facts_file.is_file() else {}
    config = _config(state, facts, path, facts_file)
    _require_state(state, config, source)
    mean, std = (_three(facts.get(name, usual), name, facts_file) for name, usual in (("mean", MEAN), ("std", STD)))
    texts = {name: facts.get(name) for name in ("trained_on", "licence")}
    for name, text in texts.items():
        if text is not None and not isinstance(text, str):
            raise CheckpointError(f"{facts_file}: {name} is {text!r}; expected a text.")
    return SameoCheckpoint(config, state, source, mean, std, texts["trained_on"], texts["licence"])


def _model_state(path: Path) -> dict[str, Tensor]:
    content = load_tensors(path)
    if "decoder" in content and "model" not in content:
        raise CheckpointError(
            f"{path} holds SAMEO's tuned parts alone; give it as --decoder, and as --checkpoint the EfficientSAM "
            "checkpoint that it was tuned from (efficient_sam_vits.pt).",
            field="checkpoint",
        )
    state = content.get("model", content)
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path}: `model` is no state dict; expected names and tensors.", field="checkpoint")
    if kind := other_kind(state):
        raise CheckpointError(
            f"{path} is a checkpoint of {kind}, which is another network; expected EfficientSAM's "
            "(efficient_sam_vitt.pt or efficient_sam_vits.pt).",
            field="checkpoint",
        )
    return _tensors(state, path)


def _tensors(state: Mapping[str, Any], path: Path) -> dict[str, Tensor]:
    for name, value in state.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            raise CheckpointError(f"{path}: {name} is no tensor of floating point numbers; expected a state dict.")
    return dict(state)


def _with_tuned(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Returns a state with SAMEO's parts in the place of its own."""
    content = load_tensors(path)
    parts = [name for name in _PARTS if name in content]
    if "decoder" not in parts:
        raise CheckpointError(
            f"{path} is no tuned SAMEO: expected the entries decoder and, if it was tuned too, encoder; it has "
            f"{', '.join(sorted(map(str, content))[:3])}.",
            field="decoder",
        )
    for part in parts:
        if not isinstance(content[part], Mapping):
            raise CheckpointError(f"{path}: {part} is no state dict; expected names and tensors.", field="decoder")
        prefix = f"{_PARTS[part]}."
        named = {prefix + name: tensor for name, tensor in _tensors(content[part], path).items()}
        state = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)} | named
    return state


def _config(state: Mapping[str, Tensor], facts: Mapping[str, Any], path: Path, facts_file: Path) -> NetworkConfig:
    """Returns the sizes of the network: what shapes tell, which the json may only repeat, and what they do not."""
    shape = partial(_shape, state, path)
    dim, _, patch, _ = shape("image_encoder.patch_embed.proj.weight", 4)
    embed = shape("image_encoder.neck.0.weight", 4)[0]
    upscaling = [shape(f"mask_decoder.final_output_upscaling_layers.{i}.0.weight", 4)[1] for i in range(2)]
    blocks = {name.split(".")[2] for name in state if name.startswith("image_encoder.blocks.")}
    told: dict[str, Any] = {
        "patch_size": patch,
        "dim": dim,
        "depth": len(blocks),
        "embed": embed,
        "decoder_mlp": shape("mask_decoder.transformer.layers.0.mlp.layers.0.0.weight", 2)[0],
        "upscaling": upscaling,
        "iou_hidden": shape("mask_decoder.iou_prediction_head.layers.0.0.weight", 2)[0],
    }
    for name, value in told.items():
        if facts.get(name, value) != value:
            raise CheckpointError(f"{facts_file} says {name} {facts[name]!r}, but {path} has {value!r}; correct it.")
    rows = shape("image_encoder.pos_embed", 3)[1] - 1
    side = math.isqrt(max(rows, 0))
    grid = _pair(facts.get("position_grid", side), "position_grid", facts_file)
    if grid[0] * grid[1] != rows:
        raise CheckpointError(
            f"{path}: image_encoder.pos_embed has {rows} places, which is no grid of {grid[0]}x{grid[1]}; write its "
            f"rows and columns as position_grid into {facts_file.name} beside it."
        )
    height, width = _pair(facts.get("img_size", _SIZE), "img_size", facts_file)
    heads = _count(facts.get("heads", max(dim // _HEAD, 1)), "heads", facts_file)
    decoder_heads = _count(facts.get("decoder_heads", 8), "decoder_heads", facts_file)
    if dim % heads or embed % (2 * decoder_heads) or embed % 2:
        raise CheckpointError(
            f"{path}: {dim} channels do not fit {heads} heads, or {embed} do not fit 2 x {decoder_heads} in the "
            f"decoder; write heads and decoder_heads into {facts_file.name} beside it."
        )
    if height % patch or width % patch:
        raise CheckpointError(f"{facts_file}: img_size {height}x{width} is no multiple of the patch, {patch}.")
    return NetworkConfig(
        height=height,
        width=width,
        patch=patch,
        dim=dim,
        depth=len(blocks),
        heads=heads,
        embed=embed,
        decoder_heads=decoder_heads,
        decoder_mlp=told["decoder_mlp"],
        upscaling=(upscaling[0], upscaling[1]),
        iou_hidden=told["iou_hidden"],
        slots=_count(facts.get("points", 6), "points", facts_file),
        pretrained_grid=grid,
    )


def _shape(state: Mapping[str, Tensor], path: Path, name: str, axes: int) -> tuple[int, ...]:
    tensor = state.get(name)
    if tensor is None:
        raise CheckpointError(
            f"{path} is no EfficientSAM checkpoint: there is no tensor {name}; expected the state of the official "
            "efficient_sam_vitt.pt or efficient_sam_vits.pt.",
            field="checkpoint",
        )
    if tensor.ndim != axes:
        raise CheckpointError(f"{path}: tensor {name} has shape {list(tensor.shape)}; expected {axes} axes.")
    return tuple(tensor.shape)


def _require_state(state: Mapping[str, Tensor], config: NetworkConfig, source: str) -> None:
    """Raises CheckpointError, with the first wrong tensor, unless a state is exactly that of the network."""
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in Sameo(config).state_dict().items()}
    for name, shape in expected.items():
        if name not in state:
            raise CheckpointError(f"{source} is incomplete: there is no tensor {name}; download it again.")
        if tuple(state[name].shape) != shape:
            raise CheckpointError(
                f"{source}: tensor {name} has shape {list(state[name].shape)}; expected {list(shape)}."
            )
    unknown = next((name for name in sorted(state) if name not in expected), None)
    if unknown is not None:
        raise CheckpointError(f"{source} is of another network: EfficientSAM has no tensor {unknown}.")


def _count(value: Any, name: str, file: Path) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"{file}: {name} is {value!r}; expected a number from 1 on.")
    return value


def _pair(value: Any, name: str, file: Path) -> tuple[int, int]:
    if isinstance(value, list) and len(value) == 2:
        return _count(value[0], name, file), _count(value[1], name, file)
    side = _count(value, name, file)
    return side, side


def _three(value: Any, name: str, file: Path) -> tuple[float, ...]:
    usable = isinstance(value, list | tuple) and len(value) == 3 and all(isinstance(v, int | float) for v in value)
    if not usable or (name == "std" and min(value) <= 0):
        raise CheckpointError(f"{file}: {name} is {value!r}; expected three numbers, of red, green and blue in [0, 1].")
    return tuple(float(v) for v in value)
