"""All of PACO: made at random, or from a Stable Diffusion checkpoint on disk as its training would start."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from torch import nn

from amodal.runtime.errors import CheckpointError, InputError

from ...checkpoints.files import weight_files
from ...graph.weights import one_line, random_weights, read_json
from .generator import Generator
from .parallel_vae import ParallelVae, Query

_UNET: dict[str, Any] = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
}
_TEXT: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
}
_TINY_UNET: dict[str, Any] = {
    "sample_size": 8,
    "cross_attention_dim": 32,
    "attention_head_dim": 2,
    "block_out_channels": (16, 32),
    "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 8,
}
_TINY_VAE: dict[str, Any] = {
    "block_out_channels": (16, 32),
    "down_block_types": ("DownEncoderBlock2D",) * 2,
    "up_block_types": ("UpDecoderBlock2D",) * 2,
    "norm_num_groups": 8,
}
_TINY_TEXT: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
_SIZES = {"paco": (_UNET, _VAE, _TEXT), "tiny": (_TINY_UNET, _TINY_VAE, _TINY_TEXT)}

_PARTS = (("unet", "diffusion_pytorch_model"), ("vae", "diffusion_pytorch_model"), ("text_encoder", "model"))
_ERRORS = (OSError, ValueError, RuntimeError, LookupError, TypeError)


class Paco(nn.Module):
    """The networks.

    Attributes:
        text_encoder: transformers' `CLIPTextModel`; its last hidden state is the prompt.
        vae: encodes objects and decodes one.
        generator: draws the full-view map.
    """

    def __init__(self, text_encoder: Any, vae: Any, unet: Any, query: Query = "literal") -> None:
        super().__init__()
        self.text_encoder: Any = text_encoder
        self.vae = ParallelVae(vae, query)
        self.generator = Generator(unet)


def empty_network(kind: str, query: Query = "literal") -> Paco:
    """Returns the networks without weights, on torch's meta device.

    Args:
        kind: `paco` for the sizes of Stable Diffusion 1.5, or `tiny`.
        query: see `ParallelVae`.

    Raises:
        InputError: the kind is not one of them.
    """
    if kind not in _SIZES:
        raise InputError(
            f"there is no architecture {kind!r} of this family; expected one of {', '.join(_SIZES)}.", field="random"
        )
    unet, vae, text = _SIZES[kind]
    library: Any = diffusers  # untyped
    with torch.device("meta"):
        encoder = transformers.CLIPTextModel(transformers.CLIPTextConfig(**text))
        return Paco(
            encoder, library.AutoencoderKL(**vae, latent_channels=4), library.UNet2DConditionModel(**unet), query
        )


def random_network(kind: str, seed: int = 0, query: Query = "literal") -> Paco:
    """Returns networks with seeded random weights, zero convolutions too, in eval mode; see `empty_network`."""
    network = empty_network(kind, query)
    weights = random_weights(network, seed)
    network.load_state_dict({name: weights.load(name) for name in weights}, assign=True)
    part: Any
    for part in network.modules():
        if "position_ids" in part._buffers:  # no weight, so that it is still on meta
            part.position_ids = torch.arange(len(part._buffers["position_ids"][0]))[None]
    return network.requires_grad_(False).eval()


def from_stable_diffusion(path: str | Path, query: Query = "literal") -> Paco:
    """Returns networks as training starts with them: Stable Diffusion's weights, the clone a copy, its exits zero.

    Args:
        path: folder of a checkpoint of Stable Diffusion 1.x or 2.x for text alone, in diffusers' layout, safetensors.
        query: see `ParallelVae`. Its convolutions are random, from torch's generator.

    Raises:
        CheckpointError: files are missing, unreadable or pickles, or the checkpoint is of another kind, which is named.
    """
    root = Path(path)
    _require_text_to_image(root)
    for folder, stem in _PARTS:
        if not (root / folder).is_dir():
            raise CheckpointError(f"{root} has no folder {folder}; download the whole checkpoint.")
        weight_files(root / folder, stem, None)
    unet, vae, text_encoder = (
        _loaded(root / folder, make)
        for (folder, _), make in zip(
            _PARTS, (diffusers.UNet2DConditionModel, diffusers.AutoencoderKL, transformers.CLIPTextModel), strict=True
        )
    )
    return Paco(text_encoder, vae, unet, query).eval()


def _loaded(folder: Path, make: Any) -> Any:
    """Loads a network in float32, and makes sure that none of its tensors was left at random."""
    options: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "output_loading_info": True}
    if issubclass(make, diffusers.ModelMixin):
        options |= {"torch_dtype": torch.float32, "low_cpu_mem_usage": False}
    else:
        options |= {"dtype": torch.float32}
    try:
        model, info = make.from_pretrained(folder, **options)
    except _ERRORS as error:
        raise CheckpointError(f"{folder} cannot be read ({one_line(error)}); download the checkpoint again.") from error
    if missing := sorted(map(str, info["missing_keys"])):
        raise CheckpointError(f"{folder} is incomplete: there is no tensor {missing[0]}; download it again.")
    unknown = sorted(str(name) for name in info["unexpected_keys"] if not str(name).endswith("position_ids"))
    if unknown:
        raise CheckpointError(
            f"{folder}: config.json has no place for the tensor {unknown[0]}; weights and config.json do not belong "
            "together."
        )
    return model


def _require_text_to_image(root: Path) -> None:
    """Raises CheckpointError, with the kind, unless a folder is a Stable Diffusion 1.x or 2.x for text alone."""
    index = read_json(root / "model_index.json")
    name = str(index.get("_class_name"))
    kind = None
    if "XL" in name or "text_encoder_2" in index:
        kind = "Stable Diffusion XL"
    if "StableDiffusion3" in name or "transformer" in index:
        kind = "Stable Diffusion 3, or another one with a transformer"
    if kind is None and "unet" not in index:
        kind = name if index.get("_class_name") else "of no kind that its model_index.json names"
    config = read_json(root / "unet" / "config.json") if kind is None else {}
    channels = config.get("in_channels", 4)
    if kind is None and config.get("addition_embed_type") is not None:
        kind = "Stable Diffusion XL"
    if kind is None and (channels == 9 or "Inpaint" in name):
        kind = "Stable Diffusion for inpainting"
    if kind is None and channels != 4:
        kind = f"a Stable Diffusion that takes {channels} channels"
    if kind is None and config.get("_class_name", "UNet2DConditionModel") != "UNet2DConditionModel":
        kind = str(config["_class_name"])
    if kind is not None:
        raise CheckpointError(
            f"{root} is {kind}; expected Stable Diffusion 1.x or 2.x for text alone, such as 1.5 or 2.1.",
            field="stable_diffusion",
        )
