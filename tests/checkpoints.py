"""Diffusion-VAS checkpoints for tests: tiny random ones in the authors' format, and any read by stock code.

The authors' format is a diffusers pipeline folder (model_index.json, scheduler/, unet/, vae/, image_encoder/,
feature_extractor/) with safetensors. Its U-Net class has two input convolutions: `conv_in`, with the 8 channels its
config names, never runs; `conv_in2`, with 12, does. Needs torch, diffusers and transformers.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast

import diffusers
import torch
import transformers
from safetensors.torch import load_file, save_file

from amodal.bench.reference.pipeline import ReferencePipeline
from amodal.runtime.errors import CheckpointError, InputError

# diffusers is untyped, and transformers' decorators hide the signatures of its models.
_UNet: Any = diffusers.UNetSpatioTemporalConditionModel
_VAE: Any = diffusers.AutoencoderKLTemporalDecoder
_CLIP: Any = transformers.CLIPVisionModelWithProjection

_SCHEDULER: dict[str, Any] = {
    "_class_name": "EulerDiscreteScheduler",
    "_diffusers_version": "0.29.1",
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "final_sigmas_type": "zero",
    "interpolation_type": "linear",
    "num_train_timesteps": 1000,
    "prediction_type": "v_prediction",
    "rescale_betas_zero_snr": False,
    "sigma_max": 700.0,
    "sigma_min": 0.002,
    "steps_offset": 1,
    "timestep_spacing": "leading",
    "timestep_type": "continuous",
    "trained_betas": None,
    "use_karras_sigmas": True,
}
_FEATURE_EXTRACTOR: dict[str, Any] = {
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_convert_rgb": True,
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_processor_type": "CLIPImageProcessor",
    "image_std": [0.26862954, 0.26130258, 0.27577711],
    "resample": 3,
    "rescale_factor": 1 / 255,
    "size": {"shortest_edge": 224},
}


@dataclass(frozen=True)
class Shape:
    """Sizes of a made checkpoint's networks.

    Attributes:
        block_out_channels: U-Net widths, one per level (2 or more), multiples of 32 (GroupNorm has 32 groups).
        layers_per_block: ResNets per level of the U-Net.
        heads: attention heads per level.
        cross_attention_dim: also the size of the CLIP embedding.
        addition_time_embed_dim: even; fps, motion bucket and noise level get this many each.
        num_frames: only written to the config.
        vae_channels: 3 levels for a VAE factor of 4, 4 for 8; multiples of 32.
        vae_layers_per_block: ResNets per level of the VAE.
        clip_width: hidden size; the MLP has twice that.
        clip_layers, clip_heads: transformer layers of the image tower, and their attention heads.
        clip_act: its activation, "quick_gelu" or "gelu".

    Raises:
        InputError: a width is no multiple of 32, or the lists differ in length.
    """

    block_out_channels: tuple[int, ...] = (32, 64, 64, 64)
    layers_per_block: int = 1
    heads: tuple[int, ...] = (2, 4, 4, 4)
    cross_attention_dim: int = 32
    addition_time_embed_dim: int = 32
    num_frames: int = 25
    vae_channels: tuple[int, ...] = (32, 32, 32, 64)
    vae_layers_per_block: int = 1
    clip_width: int = 64
    clip_layers: int = 2
    clip_heads: int = 4
    clip_act: str = "quick_gelu"

    def __post_init__(self) -> None:
        levels = len(self.block_out_channels)
        widths = (*self.block_out_channels, *self.vae_channels)
        if any(width % 32 for width in widths) or len(self.heads) != levels or levels < 2:
            raise InputError(
                f"block_out_channels {self.block_out_channels} and vae_channels {self.vae_channels} must be multiples "
                f"of 32, with one number of heads (got {self.heads}) for each of 2 or more levels."
            )

    def unet_config(self, in_channels: int) -> dict[str, Any]:
        """config.json of the U-Net."""
        with_attention = len(self.block_out_channels) - 1
        return {
            "_class_name": "UNetSpatioTemporalConditionModel",
            "_diffusers_version": "0.29.1",
            "addition_time_embed_dim": self.addition_time_embed_dim,
            "block_out_channels": list(self.block_out_channels),
            "cross_attention_dim": self.cross_attention_dim,
            "down_block_types": ["CrossAttnDownBlockSpatioTemporal"] * with_attention + ["DownBlockSpatioTemporal"],
            "in_channels": in_channels,
            "layers_per_block": self.layers_per_block,
            "num_attention_heads": list(self.heads),
            "num_frames": self.num_frames,
            "out_channels": 4,
            "projection_class_embeddings_input_dim": 3 * self.addition_time_embed_dim,
            "sample_size": 16,
            "transformer_layers_per_block": 1,
            "up_block_types": ["UpBlockSpatioTemporal"] + ["CrossAttnUpBlockSpatioTemporal"] * with_attention,
        }

    def vae_config(self) -> dict[str, Any]:
        """config.json of the VAE."""
        return {
            "_class_name": "AutoencoderKLTemporalDecoder",
            "_diffusers_version": "0.29.1",
            "block_out_channels": list(self.vae_channels),
            "down_block_types": ["DownEncoderBlock2D"] * len(self.vae_channels),
            "force_upcast": True,
            "in_channels": 3,
            "latent_channels": 4,
            "layers_per_block": self.vae_layers_per_block,
            "out_channels": 3,
            "sample_size": 64,
            "scaling_factor": 0.18215,
        }

    def clip_config(self) -> dict[str, Any]:
        """config.json of the image encoder, but for its dtype."""
        return {
            "architectures": ["CLIPVisionModelWithProjection"],
            "attention_dropout": 0.0,
            "hidden_act": self.clip_act,
            "hidden_size": self.clip_width,
            "image_size": 224,
            "initializer_factor": 1.0,
            "initializer_range": 0.02,
            "intermediate_size": 2 * self.clip_width,
            "layer_norm_eps": 1e-05,
            "model_type": "clip_vision_model",
            "num_attention_heads": self.clip_heads,
            "num_channels": 3,
            "num_hidden_layers": self.clip_layers,
            "patch_size": 32,
            "projection_dim": self.cross_attention_dim,
            "transformers_version": "4.41.2",
        }


def make_checkpoint(
    folder: str | Path,
    *,
    seed: int = 0,
    stage: Literal["segment", "complete"] = "segment",
    authors_format: bool = True,
    variant: Literal["fp16"] | None = None,
    sharded: bool = False,
    **shape: Any,
) -> Path:
    """Writes a tiny random checkpoint of one stage.

    The VAE and the image encoder depend on `seed` and the shapes alone, the U-Net on `stage` too, so that the two
    stages of one seed share the first two byte for byte, as the authors' release does. Norms, biases and mixing factors
    are moved off their defaults, which would hide mistakes in them.

    Args:
        folder: made if it is not there; files of the same names are overwritten.
        seed: of every weight.
        stage: which stage's U-Net.
        authors_format: `conv_in` with 8 and `conv_in2` with 12 channels; otherwise a stock 12-channel U-Net.
        variant: "fp16" writes half-precision weights under that variant's file names.
        sharded: two safetensors files and an index per component instead of one.
        **shape: fields of `Shape`.

    Returns:
        The folder.

    Raises:
        InputError: see `Shape`.
    """
    sizes, root = Shape(**shape), Path(folder)
    unet_config, vae_config, clip_config = sizes.unet_config(12), sizes.vae_config(), sizes.clip_config()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3 * seed)
        vae = _random_weights(_VAE.from_config(vae_config))
        vae["decoder.time_conv_out.bias"] += _mask_bias(_VAE.from_config(vae_config), vae)
        clip = _random_weights(_CLIP(transformers.CLIPVisionConfig(**clip_config)))
        torch.manual_seed(3 * seed + (1 if stage == "segment" else 2))
        unet = _random_weights(_UNet.from_config(unet_config))
        if authors_format:
            unet_config["in_channels"] = 8
            for name in ("weight", "bias"):
                live = unet[f"conv_in.{name}"]
                unet[f"conv_in2.{name}"] = live
                unet[f"conv_in.{name}"] = torch.randn_like(live[:, :8] if name == "weight" else live)

    clip_config["torch_dtype"] = "float16" if variant else "float32"
    _write_component(root / "unet", "diffusion_pytorch_model", unet_config, unet, variant, sharded)
    _write_component(root / "vae", "diffusion_pytorch_model", vae_config, vae, variant, sharded)
    _write_component(root / "image_encoder", "model", clip_config, clip, variant, sharded)
    _write_json(root / "scheduler" / "scheduler_config.json", _SCHEDULER)
    _write_json(root / "feature_extractor" / "preprocessor_config.json", _FEATURE_EXTRACTOR)
    _write_json(root / "model_index.json", _index(authors_format))
    return root


def _index(authors_format: bool) -> dict[str, Any]:
    unet_library = "models.diffusion_vas.unet_diffusion_vas" if authors_format else "diffusers"
    return {
        "_class_name": "DiffusionVASPipeline" if authors_format else "StableVideoDiffusionPipeline",
        "_diffusers_version": "0.29.1",
        "feature_extractor": ["transformers", "CLIPImageProcessor"],
        "image_encoder": ["transformers", "CLIPVisionModelWithProjection"],
        "scheduler": ["diffusers", "EulerDiscreteScheduler"],
        "unet": [unet_library, "UNetSpatioTemporalConditionModel"],
        "vae": ["diffusers", "AutoencoderKLTemporalDecoder"],
    }


class Modules(NamedTuple):
    """A stage's networks as stock modules in eval mode, and two of its configs."""

    unet: Any
    vae: Any
    image_encoder: Any
    scheduler: dict[str, Any]
    feature_extractor: dict[str, Any]


def load_modules(path: str | Path, *, dtype: torch.dtype = torch.float32) -> Modules:
    """Loads a stage from the authors' on-disk format, or from a stock 12-channel diffusers folder.

    The U-Net becomes diffusers' stock class, with the authors' `conv_in2` in the place of `conv_in`. Weights
    without a variant are preferred, then fp16 ones.

    Raises:
        CheckpointError: a file is missing or unreadable, or the weights do not fit their config.
    """
    root = Path(path)
    scheduler = _read_json(root / "scheduler" / "scheduler_config.json")
    feature_extractor = _read_json(root / "feature_extractor" / "preprocessor_config.json")
    try:
        vae = _VAE.from_pretrained(root, subfolder="vae", variant=_variant(root / "vae"), torch_dtype=dtype)
        image_encoder = _CLIP.from_pretrained(
            root, subfolder="image_encoder", variant=_variant(root / "image_encoder"), dtype=dtype
        )
    except OSError as error:
        raise CheckpointError(f"{root} is not a whole Diffusion-VAS checkpoint: {error}") from error
    networks = (_load_unet(root / "unet"), vae, image_encoder)
    for network in networks:
        # nn.Module's own `to`: diffusers' prints a warning for every dtype.
        torch.nn.Module.to(network, dtype=dtype).eval().requires_grad_(False)
    return Modules(*networks, scheduler=scheduler, feature_extractor=feature_extractor)


def reference_pipeline(path: str | Path, *, dtype: torch.dtype = torch.float32) -> ReferencePipeline:
    """The reference pipeline of a checkpoint on disk, on the CPU, read by `load_modules`."""
    return ReferencePipeline(*load_modules(path, dtype=dtype))


def _random_weights(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    weights = {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}
    for name, tensor in weights.items():
        if name.endswith("mix_factor"):
            tensor.normal_()
        elif tensor.ndim == 1:
            tensor += 0.1 * torch.randn_like(tensor)
    return weights


@torch.no_grad()
def _mask_bias(vae: Any, weights: Mapping[str, torch.Tensor]) -> torch.Tensor:
    # Puts the authors' threshold for a mask, 200 of 255 per channel, in the middle of what the decoder draws.
    vae.load_state_dict(weights)
    pictures: torch.Tensor = vae.decode(torch.randn(4, 4, 8, 8) * 0.6 / 0.18215, num_frames=4).sample
    return 2 * 200 / 255 - 1 - pictures.mean(dim=1).median()


def _write_component(
    folder: Path,
    stem: str,
    config: Mapping[str, Any],
    weights: Mapping[str, torch.Tensor],
    variant: str | None,
    sharded: bool,
) -> None:
    _write_json(folder / "config.json", config)
    dtype = torch.float16 if variant else torch.float32
    weights = {name: weights[name].to(dtype).contiguous() for name in sorted(weights)}
    base = f"{stem}.{variant}" if variant else stem
    if not sharded:
        save_file(weights, folder / f"{base}.safetensors", metadata={"format": "pt"})
        return
    names = list(weights)
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    files = [f"{base}-{i:05d}-of-00002.safetensors" for i in (1, 2)]
    for file, half in zip(files, halves, strict=True):
        save_file({name: weights[name] for name in half}, folder / file, metadata={"format": "pt"})
    total = sum(tensor.numel() * tensor.element_size() for tensor in weights.values())
    weight_map = {name: file for file, half in zip(files, halves, strict=True) for name in half}
    suffix = f".{variant}" if variant else ""
    index = {"metadata": {"total_size": total}, "weight_map": weight_map}
    _write_json(folder / f"{stem}.safetensors.index{suffix}.json", index)


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); give the folder with model_index.json.") from error


def _variant(folder: Path) -> str | None:
    plain = any(".fp16" not in file.name for file in folder.glob("*.safetensors"))
    return None if plain else "fp16"


def _load_unet(folder: Path) -> torch.nn.Module:
    config = _read_json(folder / "config.json")
    variant = _variant(folder)
    weights: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        if (".fp16" in file.name) == (variant == "fp16"):
            weights |= load_file(file)
    for name in ("weight", "bias"):
        if f"conv_in2.{name}" in weights:
            weights[f"conv_in.{name}"] = weights.pop(f"conv_in2.{name}")
    if "conv_in.weight" not in weights:
        raise CheckpointError(f"{folder} has no *.safetensors with a UNet's conv_in; fetch the checkpoint again.")
    unet: torch.nn.Module = _UNet.from_config(config, in_channels=weights["conv_in.weight"].shape[1])
    try:
        unet.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(f"The weights in {folder} do not fit its config.json: {error}") from error
    return unet
