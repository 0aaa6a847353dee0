"""Diffusion-VAS checkpoints: one stage from disk or from the Hugging Face hub, or random at the same sizes.

A checkpoint is a diffusers pipeline folder: model_index.json, scheduler/, unet/, vae/, image_encoder/,
feature_extractor/. The authors' U-Net class has two input convolutions, `conv_in` with the 8 channels that
config.json names, which never runs, and `conv_in2` with 12, which does; here that one is called `conv_in`.
Tensors are loaded when a graph needs them.
"""

from __future__ import annotations

import hashlib
import math
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError

from amodal.runtime.errors import CheckpointError

from ..graph.weights import Weights, one_line, random_weights, read_json, read_safetensors
from .files import locate, read_licence, weight_files

Kind = Literal["unet", "vae", "image_encoder"]

# diffusers is untyped, and transformers' decorators hide the signatures of its models.
_CLASSES: dict[Kind, Any] = {
    "unet": diffusers.UNetSpatioTemporalConditionModel,
    "vae": diffusers.AutoencoderKLTemporalDecoder,
    "image_encoder": transformers.CLIPVisionModelWithProjection,
}
_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "image_encoder": "model"}

# Names on disk or in a module -> canonical names, which are those of the stock modules' files today.
_RENAMES: dict[Kind, tuple[tuple[str, str], ...]] = {
    "unet": ((r"^conv_in2\.", "conv_in."),),
    "vae": (  # diffusers' first attention blocks
        (r"\.query\.(?=\w+$)", ".to_q."),
        (r"\.key\.(?=\w+$)", ".to_k."),
        (r"\.value\.(?=\w+$)", ".to_v."),
        (r"\.proj_attn\.(?=\w+$)", ".to_out.0."),
    ),
    # transformers' modules have this prefix or not, depending on the release; files have it once.
    "image_encoder": (
        (r"^(?:vision_model\.)*(?=(?:embeddings|encoder|pre_layrnorm|post_layernorm)\.)", "vision_model."),
    ),
}

# Exceptions of the classes for an unusable config.
_CONFIG_ERRORS = (
    *(ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError),
    StrictDataclassError,
)

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# The only schedule of the sampler: key, expected value, diffusers' default.
_SCHEDULER: tuple[tuple[str, Any, Any], ...] = (
    ("_class_name", "EulerDiscreteScheduler", None),
    ("prediction_type", "v_prediction", "epsilon"),
    ("timestep_type", "continuous", "discrete"),
    ("use_karras_sigmas", True, False),
    ("final_sigmas_type", "zero", "zero"),
)
_SIGMAS = {"sigma_min": 0.002, "sigma_max": 700.0}

_KEYS: dict[Kind, tuple[str, ...]] = {
    "unet": (
        *("in_channels", "block_out_channels", "num_attention_heads", "layers_per_block", "cross_attention_dim"),
        *("addition_time_embed_dim", "projection_class_embeddings_input_dim"),
    ),
    "vae": ("block_out_channels", "down_block_types", "layers_per_block"),
    "image_encoder": (
        *("hidden_size", "intermediate_size", "projection_dim", "num_hidden_layers", "num_attention_heads"),
        *("num_channels", "image_size", "patch_size", "hidden_act", "layer_norm_eps"),
    ),
}
# The sizes of the authors' release, which are those of Stable Video Diffusion, and of a toy.
_SIZES: dict[str, dict[Kind, tuple[Any, ...]]] = {
    "diffusion-vas": {
        "unet": (12, (320, 640, 1280, 1280), (5, 10, 20, 20), 2, 1024, 256, 768),
        "vae": ((128, 256, 512, 512), ("DownEncoderBlock2D",) * 4, 2),
        "image_encoder": (1280, 5120, 1024, 32, 16, 3, 224, 14, "gelu", 1e-5),
    },
    "tiny": {
        "unet": (12, (32, 64, 64, 64), (2, 4, 4, 4), 1, 32, 32, 96),
        "vae": ((32, 32, 32, 64), ("DownEncoderBlock2D",) * 4, 1),
        "image_encoder": (64, 128, 32, 2, 4, 3, 224, 32, "quick_gelu", 1e-5),
    },
}


@dataclass(frozen=True)
class Network:
    """One network of a checkpoint.

    Attributes:
        config: the module's config, with defaults.
        weights: exactly the module's tensors, not loaded, by their names in stock files; shapes are checked.
        source: its folder, or hub id and revision with the folder's name.
    """

    config: dict[str, Any]
    weights: Weights
    source: str
    kind: Kind

    def build(self) -> torch.nn.Module:
        """Builds the untouched diffusers or transformers module on the meta device."""
        return _build(self.kind, self.config, self.source)

    def weights_for(self, module: torch.nn.Module) -> Weights:
        """Returns the weights by the module's own names, which differ from the files' in some transformers releases."""
        names = {name: self.weights[_canonical(self.kind, name)] for name in module.state_dict()}
        return Weights(names, self.weights.source)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over config and weights, all of which it reads."""
        config = repr(sorted(self.config.items()))
        return hashlib.sha256((config + self.weights.fingerprint()).encode()).hexdigest()

    def load(self) -> torch.nn.Module:
        """Builds the module with its weights as float32, in eval mode."""
        module = self.build()
        weights = self.weights_for(module)
        module.load_state_dict({name: weights.load(name) for name in weights}, assign=True)
        return module.eval().requires_grad_(False)


@dataclass(frozen=True)
class StageCheckpoint:
    """The networks and settings of one stage.

    Attributes:
        source: the folder, or hub id and revision.
        licence: of the weights, if the checkpoint names one.
        scheduler: `sigma_min` and `sigma_max` (> 0), `num_train_timesteps`, and the constant `prediction_type`,
            `timestep_type`, `use_karras_sigmas`, `final_sigmas_type`.
        image_mean, image_std: normalisation of the image encoder's pixels, per channel, for pixels in [0, 1].
    """

    source: str
    licence: str | None
    unet: Network
    vae: Network
    image_encoder: Network
    scheduler: dict[str, Any]
    image_mean: tuple[float, float, float]
    image_std: tuple[float, float, float]


def read_checkpoint(
    path_or_id: str | Path, *, variant: str | None = None, revision: str | None = None
) -> StageCheckpoint:
    """Opens the checkpoint of one stage, in the authors' format or with a stock 12-channel U-Net.

    Args:
        path_or_id: a folder, or a Hugging Face id "org/name" (with HF_HUB_OFFLINE=1 only from the cache).
        variant: which weight files, such as "fp16"; None for the plain ones, or the only variant.
        revision: branch, tag or commit, for a Hugging Face id.

    Raises:
        CheckpointError: no checkpoint, a file that is missing or unreadable, pickled weights, a missing or misshapen
            tensor (the first one is named), or another kind of model.
    """
    root, source = locate(path_or_id, tuple(_CLASSES), variant, revision)
    read_json(root / "model_index.json")
    scheduler = _read_scheduler(root / "scheduler" / "scheduler_config.json")
    mean, std = _read_normalisation(root / "feature_extractor")
    networks = {kind: _read_network(root / kind, f"{source}/{kind}", kind, variant) for kind in _CLASSES}
    checkpoint = StageCheckpoint(
        source, read_licence(root), **networks, scheduler=scheduler, image_mean=mean, image_std=std
    )
    _check_stage(checkpoint)
    return checkpoint


def random_checkpoint(
    kind: Literal["diffusion-vas", "tiny"], stage: Literal["segment", "complete"], seed: int = 0
) -> StageCheckpoint:
    """Returns a stage with seeded random weights at the real sizes or a toy's; each tensor is made when loaded.

    As in the authors' release, the stages of one seed share the VAE and the image encoder.
    """
    source = f"random {kind} (seed {seed})"
    networks: dict[Kind, Network] = {}
    for part, sizes in _SIZES[kind].items():
        module = _build(part, dict(zip(_KEYS[part], sizes, strict=True)), source)
        own = 0 if part != "unet" else 1 if stage == "segment" else 2
        weights = _renamed(part, random_weights(module, 3 * seed + own, source))
        networks[part] = Network(_filled(part, module), weights, source, part)
    licence = "none (random weights)"
    schedule = _schedule(_SIGMAS, 1000)
    return StageCheckpoint(source, licence, **networks, scheduler=schedule, image_mean=_CLIP_MEAN, image_std=_CLIP_STD)


def _read_network(folder: Path, source: str, kind: Kind, variant: str | None) -> Network:
    raw = read_json(folder / "config.json")
    weights = _renamed(kind, read_safetensors(weight_files(folder, _STEMS[kind], variant)))
    config = {key: value for key, value in raw.items() if not key.startswith("_")}
    if kind == "unet":
        # The authors' config has the channels of the layer that never runs.
        config["in_channels"] = (*weights.shape("conv_in.weight"), 1, 1)[1]
        widths = config.get("cross_attention_dim")
        if isinstance(widths, list) and widths and widths == widths[:1] * len(widths):
            config["cross_attention_dim"] = widths[0]
    if kind == "image_encoder":
        if isinstance(raw.get("vision_config"), dict):  # a whole CLIP, of which the text tower is ignored
            config = {"projection_dim": raw.get("projection_dim", 512)} | raw["vision_config"]
        config = {key: config[key] for key in _KEYS[kind] if key in config}
    module = _build(kind, config, str(folder / "config.json"))
    return Network(_filled(kind, module), _fitted(kind, weights, module), source, kind)


def _canonical(kind: Kind, name: str) -> str:
    for pattern, replacement in _RENAMES[kind]:
        name = re.sub(pattern, replacement, name, count=1)
    return name


def _renamed(kind: Kind, weights: Weights) -> Weights:
    names = {name: _canonical(kind, name) for name in weights}
    if "conv_in2.weight" in weights:  # if its bias is missing, the unused layer's must not replace it
        names["conv_in2.bias"] = "conv_in.bias"
    return weights.renamed({old: new for old, new in names.items() if old != new})


def _fitted(kind: Kind, weights: Weights, module: torch.nn.Module) -> Weights:
    """Returns exactly the tensors of `module`, after checking that they are there in the right shape."""
    names = {_canonical(kind, name): tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    for name, expected in names.items():
        shape, _, stored_as = weights[name]
        if shape != expected:
            raise CheckpointError(
                f"{weights.source}: tensor {stored_as or name} has shape {list(shape)} where the config asks for "
                f"{list(expected)}; weights and config.json do not belong together."
            )
    parts = {name.partition(".")[0] for name in names}
    for name in weights:
        # Parts that the module does not have (a text tower) are ignored, but not layers beyond the config's.
        extra = name not in names and name.partition(".")[0] in parts
        if extra and not name.endswith(".position_ids"):
            raise CheckpointError(
                f"{weights.source}: config.json has no place for the tensor {weights[name].stored_as}; "
                "weights and config.json do not belong together."
            )
    return Weights({name: weights[name] for name in names}, weights.source)


def _build(kind: Kind, config: dict[str, Any], source: str) -> torch.nn.Module:
    make = _CLASSES[kind]
    try:
        with torch.device("meta"):
            clip = kind == "image_encoder"
            module: Any = make(transformers.CLIPVisionConfig(**config)) if clip else make.from_config(config)
    except _CONFIG_ERRORS as error:
        raise CheckpointError(
            f"{source} does not describe a {make.__name__} ({one_line(error)}); give a Diffusion-VAS "
            "checkpoint, or download it again."
        ) from error
    torch.nn.Module.to(module, "meta")  # diffusers always makes its mixing factors on the CPU
    for part in module.modules():
        if "position_ids" in part._buffers:  # not in the files: it would stay on meta when the weights are loaded
            part.position_ids = torch.arange(part.num_positions)[None]
    built: torch.nn.Module = module
    return built


def _filled(kind: Kind, module: Any) -> dict[str, Any]:
    if kind == "image_encoder":
        return {key: getattr(module.config, key) for key in _KEYS[kind]}
    return {key: value for key, value in module.config.items() if not key.startswith("_")}


def _check_stage(checkpoint: StageCheckpoint) -> None:
    """Raises CheckpointError unless the three networks fit together as an amodal stage."""
    unet, vae, clip = checkpoint.unet.config, checkpoint.vae.config, checkpoint.image_encoder.config
    latent, out, channels = vae["latent_channels"], unet["out_channels"], unet["in_channels"]
    if channels != out + 2 * latent:
        layer = checkpoint.unet.weights["conv_in.weight"].stored_as
        alone = "" if layer.startswith("conv_in2") else " and there is no conv_in2.weight"
        plain = " (this is a plain Stable Video Diffusion U-Net)" if channels == out + latent else ""
        raise CheckpointError(
            f"{checkpoint.unet.source}: {layer} takes {channels} channels{alone}; expected "
            f"{out + 2 * latent}, the latents' {out} and {latent} for each of two conditions{plain}."
        )
    time_key = "projection_class_embeddings_input_dim"
    time_width = 3 * unet["addition_time_embed_dim"]
    down_blocks = ["DownEncoderBlock2D"] * len(vae["block_out_channels"])
    for network, key, found, expected in (
        (checkpoint.unet, "out_channels", out, latent),
        (checkpoint.unet, "cross_attention_dim", unet["cross_attention_dim"], clip["projection_dim"]),
        (checkpoint.unet, time_key, unet[time_key], time_width),
        (checkpoint.vae, "down_block_types", list(vae["down_block_types"]), down_blocks),
        (checkpoint.vae, "in_channels", vae["in_channels"], 3),
        (checkpoint.vae, "out_channels", vae["out_channels"], 3),
        (checkpoint.image_encoder, "num_channels", clip["num_channels"], 3),
    ):
        if found != expected:
            raise CheckpointError(
                f"{network.source}: config.json has {key} {found}; expected {expected}, to go with the rest "
                "of the checkpoint: give an unmixed Diffusion-VAS checkpoint."
            )


def _read_scheduler(file: Path) -> dict[str, Any]:
    raw = read_json(file)
    for key, expected, default in _SCHEDULER:
        if (value := raw.get(key, default)) != expected:
            raise CheckpointError(
                f"{file}: {key} is {value!r}; expected {expected!r}, as in every Diffusion-VAS checkpoint."
            )
    sigmas = {key: default if raw.get(key) is None else raw[key] for key, default in _SIGMAS.items()}
    low, high = sigmas.values()
    if not all(isinstance(value, (int, float)) for value in (low, high)) or not 0 < low < high < math.inf:
        raise CheckpointError(
            f"{file}: sigma_min is {low!r} and sigma_max {high!r}; expected 0 < sigma_min < sigma_max."
        )
    return _schedule(sigmas, raw.get("num_train_timesteps", 1000))


def _schedule(sigmas: dict[str, float], timesteps: int) -> dict[str, Any]:
    fixed = {key: expected for key, expected, _ in _SCHEDULER if not key.startswith("_")}
    return fixed | sigmas | {"num_train_timesteps": timesteps}


def _read_normalisation(folder: Path) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    file = folder / "preprocessor_config.json"
    raw = {"image_mean": _CLIP_MEAN, "image_std": _CLIP_STD} | (read_json(file) if folder.is_dir() else {})
    with suppress(TypeError, ValueError):
        (r, g, b), (sr, sg, sb) = (map(float, raw[key]) for key in ("image_mean", "image_std"))
        if min(sr, sg, sb) > 0:
            return (r, g, b), (sr, sg, sb)
    raise CheckpointError(
        f"{file}: image_mean is {raw['image_mean']} and image_std {raw['image_std']}; expected three "
        "numbers each, those of image_std > 0."
    )
