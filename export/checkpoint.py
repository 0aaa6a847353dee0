"""Diffusion-VAS checkpoints: one stage from disk or from the Hugging Face hub, or random at the same sizes.

A checkpoint is a diffusers pipeline folder: model_index.json, scheduler/, unet/, vae/, image_encoder/,
feature_extractor/. The authors' U-Net class has two input convolutions, `conv_in` with the 8 channels that
config.json names, which never runs, and `conv_in2` with 12, which does; here the live one is `conv_in`.
Nothing is loaded before a graph asks for it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError

from amodal.runtime.errors import CheckpointError

from .weights import Weights, random_weights, read_safetensors

Kind = Literal["unet", "vae", "image_encoder"]

# diffusers is untyped, and transformers' decorators hide the signatures of its models.
_CLASSES: dict[Kind, Any] = {
    "unet": diffusers.UNetSpatioTemporalConditionModel,
    "vae": diffusers.AutoencoderKLTemporalDecoder,
    "image_encoder": transformers.CLIPVisionModelWithProjection,
}
_STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "image_encoder": "model"}
_CLIP_KEYS = (
    "hidden_size",
    "intermediate_size",
    "projection_dim",
    "num_hidden_layers",
    "num_attention_heads",
    "num_channels",
    "image_size",
    "patch_size",
    "hidden_act",
    "layer_norm_eps",
)

# Names on disk or in a module -> canonical names, which are those of the stock modules' files.
_RENAMES: dict[Kind, tuple[tuple[str, str], ...]] = {
    "unet": ((r"^conv_in2\.", "conv_in."),),
    "vae": (  # diffusers before 0.12
        (r"\.query\.(?=\w+$)", ".to_q."),
        (r"\.key\.(?=\w+$)", ".to_k."),
        (r"\.value\.(?=\w+$)", ".to_v."),
        (r"\.proj_attn\.(?=\w+$)", ".to_out.0."),
    ),
    # Some releases of transformers 5 drop the prefix, others nest it; files have it once.
    "image_encoder": (
        (r"^(?:vision_model\.)*(?=(?:embeddings|encoder|pre_layrnorm|post_layernorm)\.)", "vision_model."),
    ),
}

_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

# The sampler knows this schedule only; absent keys mean diffusers' default, the third column.
_SCHEDULER: tuple[tuple[str, Any, Any], ...] = (
    ("_class_name", "EulerDiscreteScheduler", None),
    ("prediction_type", "v_prediction", "epsilon"),
    ("timestep_type", "continuous", "discrete"),
    ("use_karras_sigmas", True, False),
    ("final_sigmas_type", "zero", "zero"),
)
_SIGMAS = {"sigma_min": 0.002, "sigma_max": 700.0}

# The paper's sizes (the authors' release, a fine-tuned Stable Video Diffusion), and those of a toy.
_RANDOM: dict[str, dict[Kind, dict[str, Any]]] = {
    "diffusion-vas": {
        "unet": {
            "in_channels": 12,
            "block_out_channels": [320, 640, 1280, 1280],
            "num_attention_heads": [5, 10, 20, 20],
            "layers_per_block": 2,
            "cross_attention_dim": 1024,
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 768,
        },
        "vae": {"block_out_channels": [128, 256, 512, 512], "layers_per_block": 2, "sample_size": 768},
        "image_encoder": {
            "hidden_size": 1280,
            "intermediate_size": 5120,
            "projection_dim": 1024,
            "num_hidden_layers": 32,
            "num_attention_heads": 16,
            "patch_size": 14,
            "hidden_act": "gelu",
        },
    },
    "tiny": {
        "unet": {
            "in_channels": 12,
            "block_out_channels": [32, 64, 64, 64],
            "num_attention_heads": [2, 4, 4, 4],
            "layers_per_block": 1,
            "cross_attention_dim": 32,
            "addition_time_embed_dim": 32,
            "projection_class_embeddings_input_dim": 96,
            "sample_size": 16,
        },
        "vae": {"block_out_channels": [32, 32, 32, 64], "layers_per_block": 1, "sample_size": 64},
        "image_encoder": {
            "hidden_size": 64,
            "intermediate_size": 128,
            "projection_dim": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "patch_size": 32,
            "hidden_act": "quick_gelu",
        },
    },
}


@dataclass(frozen=True)
class Network:
    """One network of a checkpoint.

    Attributes:
        config: every key that the module's config has, defaults filled in.
        weights: by the names in the stock modules' files; exactly the module's tensors, shapes checked, not loaded.
        source: the folder, or hub id, folder and revision.
        kind: which of the three networks.
    """

    config: dict[str, Any]
    weights: Weights
    source: str
    kind: Kind

    def build(self) -> torch.nn.Module:
        """The untouched diffusers or transformers module, its parameters on the meta device."""
        return _build(self.kind, self.config, self.source)

    def load(self) -> torch.nn.Module:
        """The same module with its weights as float32, in eval mode."""
        module = self.build()
        state = {name: self.weights.load(_canonical(self.kind, name)) for name in module.state_dict()}
        module.load_state_dict(state, assign=True)
        return module.eval().requires_grad_(False)


@dataclass(frozen=True)
class StageCheckpoint:
    """What one stage is exported from.

    Attributes:
        source: the folder, or hub id and revision.
        licence: of the weights, if the checkpoint says so.
        scheduler: `sigma_min` and `sigma_max` (> 0), `num_train_timesteps`, and what was checked: `prediction_type`,
            `timestep_type`, `use_karras_sigmas`, `final_sigmas_type`.
        image_mean: per channel, for pixels in [0, 1] on their way to the image encoder.
        image_std: likewise.
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
        path_or_id: a folder, or a Hugging Face id "org/name" (from the cache alone under HF_HUB_OFFLINE=1).
        variant: which weight files, such as "fp16"; None takes the plain ones, or the only variant there is.
        revision: branch, tag or commit, for a Hugging Face id.

    Raises:
        CheckpointError: nothing there, a file that is missing or unreadable, pickled weights, a missing or misshapen
            tensor (the first one is named), or another kind of model.
    """
    root, source = _locate(path_or_id, variant, revision)
    _read_json(root / "model_index.json")
    networks = {kind: _read_network(root / kind, f"{source}/{kind}", kind, variant) for kind in _CLASSES}
    mean, std = _read_normalisation(root / "feature_extractor")
    checkpoint = StageCheckpoint(
        source,
        _read_licence(root),
        **networks,
        scheduler=_read_scheduler(root / "scheduler" / "scheduler_config.json"),
        image_mean=mean,
        image_std=std,
    )
    _check_stage(checkpoint)
    return checkpoint


def random_checkpoint(
    kind: Literal["diffusion-vas", "tiny"], stage: Literal["segment", "complete"], seed: int = 0
) -> StageCheckpoint:
    """Seeded random weights at the real sizes, or at a toy's, made tensor by tensor when asked for.

    As in the authors' release, the stages of one seed share the VAE and the image encoder.
    """
    source = f"random {kind} (seed {seed})"
    networks: dict[Kind, Network] = {}
    for part, sizes in _RANDOM[kind].items():
        module = _build(part, sizes, source)
        own = {"segment": 1, "complete": 2}[stage] if part == "unet" else 0
        weights = random_weights(module, 3 * seed + own, source)
        networks[part] = Network(_filled(part, module), _canonical_weights(part, weights), source, part)
    scheduler = {key: value for key, value, _ in _SCHEDULER if not key.startswith("_")}
    return StageCheckpoint(
        source,
        "none (random weights)",
        **networks,
        scheduler=scheduler | _SIGMAS | {"num_train_timesteps": 1000},
        image_mean=_CLIP_MEAN,
        image_std=_CLIP_STD,
    )


def _locate(path_or_id: str | Path, variant: str | None, revision: str | None) -> tuple[Path, str]:
    """The folder of a checkpoint, and what to call it."""
    path = Path(path_or_id)
    if path.is_dir():
        return path, str(path)
    if path.exists() or not re.fullmatch(r"\w[\w.-]*/[\w.-]+", str(path_or_id)):
        raise CheckpointError(
            f"There is no checkpoint folder at {path_or_id}; expected a folder with model_index.json, or a Hugging "
            "Face id such as org/name."
        )
    try:
        root = _download(str(path_or_id), variant, revision)
    except Exception as error:
        raise CheckpointError(
            f"{path_or_id} is neither a folder nor could it be fetched from Hugging Face ({_one_line(error)}); give the "
            "path of a downloaded checkpoint, or check the id, the connection, your access (`hf auth login`) and "
            "HF_HUB_OFFLINE."
        ) from error
    return root, f"{path_or_id}@{root.name}"


def _download(repo: str, variant: str | None, revision: str | None) -> Path:
    """Fetches what is read and nothing else: a release may hold each network several times over."""
    from huggingface_hub import snapshot_download

    folders = (*_CLASSES, "scheduler", "feature_extractor")
    small = ["model_index.json", "README.md", "LICENSE*", "LICENCE*", *(f"{name}/*.json" for name in folders)]
    weights = [f"{name}/*.{variant}*.safetensors" if variant else f"{name}/*.safetensors" for name in _CLASSES]
    if variant:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=small + weights))
    # "model.fp16.safetensors" has a second dot: variants only where there are no plain weights.
    plain = snapshot_download(
        repo, revision=revision, allow_patterns=small + weights, ignore_patterns="*.*.safetensors"
    )
    if all(any(Path(plain, name).glob("*.safetensors")) for name in _CLASSES):
        return Path(plain)
    return Path(snapshot_download(repo, revision=revision, allow_patterns=small + weights))


def _read_network(folder: Path, source: str, kind: Kind, variant: str | None) -> Network:
    raw = _read_json(folder / "config.json")
    weights = read_safetensors(_weight_files(folder, kind, variant))
    weights = _canonical_weights(kind, weights)
    config = {key: value for key, value in raw.items() if not key.startswith("_")}
    if kind == "unet":
        shape = weights.shape("conv_in.weight")
        if len(shape) > 1:  # the authors' config has the channels of the layer that never runs
            config["in_channels"] = shape[1]
        config["cross_attention_dim"] = _one_width(config.get("cross_attention_dim", 1024), folder)
    if kind == "image_encoder":
        if isinstance(raw.get("vision_config"), dict):  # a whole CLIP: its text tower is left alone
            config = {"projection_dim": raw.get("projection_dim", 512)} | raw["vision_config"]
        config = {key: config[key] for key in _CLIP_KEYS if key in config}
    module = _build(kind, config, str(folder / "config.json"))
    return Network(_filled(kind, module), _fitted(kind, weights, module), source, kind)


def _fitted(kind: Kind, weights: Weights, module: torch.nn.Module) -> Weights:
    """Exactly the tensors of `module`, which must all be there in the right shape."""
    names = {_canonical(kind, name): name for name in module.state_dict()}
    weights.renamed({c: name for c, name in names.items() if c != name and c in weights}).check(module)
    # What a module of other parts left behind (a text tower, `conv_in` of the authors) does no harm; more layers
    # than the config has would.
    for name in weights:
        known = name.partition(".")[0] in {part.partition(".")[0] for part in names}
        if name not in names and known and not name.endswith(".position_ids"):
            raise CheckpointError(
                f"{weights.source} has a tensor {weights[name].stored_as or name} that its config.json has no place for; "
                "weights and config.json do not belong together."
            )
    return Weights({name: weights[name] for name in names}, weights.source)


def _canonical(kind: Kind, name: str) -> str:
    for pattern, replacement in _RENAMES[kind]:
        name = re.sub(pattern, replacement, name, count=1)
    return name


def _canonical_weights(kind: Kind, weights: Weights) -> Weights:
    names = {name: _canonical(kind, name) for name in weights}
    if "conv_in2.weight" in weights:  # both, so that a missing bias is not taken from the layer that never runs
        names["conv_in2.bias"] = "conv_in.bias"
    return weights.renamed({old: new for old, new in names.items() if old != new})


def _build(kind: Kind, config: Mapping[str, Any], source: str) -> torch.nn.Module:
    try:
        with torch.device("meta"):
            if kind == "image_encoder":
                config = transformers.CLIPVisionConfig(**config)
                module: torch.nn.Module = _CLASSES[kind](config)
            else:
                module = _CLASSES[kind].from_config(dict(config))
    except (
        AttributeError,
        LookupError,
        RuntimeError,
        StrictDataclassError,
        TypeError,
        ValueError,
        ZeroDivisionError,
    ) as error:
        name = _CLASSES[kind].__name__
        raise CheckpointError(
            f"{source} does not describe a {name} ({_one_line(error)}); download it again."
        ) from error
    torch.nn.Module.to(module, "meta")  # diffusers makes its mixing factors on the CPU come what may
    for part in module.modules():
        if "position_ids" in part._buffers:  # not in files, so whoever loads weights would leave it on meta
            part.position_ids = torch.arange(int(part.num_positions))[None]  # type: ignore[arg-type]
    return module


def _filled(kind: Kind, module: Any) -> dict[str, Any]:
    if kind == "image_encoder":
        return {key: getattr(module.config, key) for key in _CLIP_KEYS}
    return {key: value for key, value in module.config.items() if not key.startswith("_")}
