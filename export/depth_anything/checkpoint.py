"""Reads Depth Anything V2's two checkpoint layouts into transformers' module.

They are a transformers folder (`DepthAnythingForDepthEstimation`: config.json and safetensors) and the authors' state
dict (such as `depth_anything_v2_vitl.pth`, github.com/DepthAnything/Depth-Anything-V2). Tensors are mapped from disk,
and a fused `qkv` becomes three views, so that loading takes no second copy of the weights.

A state dict does not identify its model: Depth Anything V1, and V2 for metric depth, have the same tensors under the
same names. The names of the authors' files do, and so do transformers folders.
"""

from __future__ import annotations

import pickle
import re
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from amodal.runtime.errors import CheckpointError
from amodal.runtime.pictures.depth import DEPTH_MULTIPLE

from ..checkpoints.files import from_hub, is_hub_id
from ..graph.weights import one_line, read_json, read_safetensors, require_download, shards_of
from .kind import CheckpointKind, distance_of_config, distance_of_name, refuse_metric

GRID = 37
"""Patches per side at which the position embedding was trained: 518 / 14."""


@dataclass(frozen=True)
class DepthVariant:
    """The sizes of a Depth Anything V2.

    `taps` are the 0-based blocks whose outputs the head reads (`intermediate_layer_idx` in the authors' dpt.py), `neck`
    the channels they are projected to, `fusion` the channels of the refinement blocks.
    """

    name: str
    width: int
    layers: int
    heads: int
    taps: tuple[int, ...]
    neck: tuple[int, ...]
    fusion: int


VARIANTS: Mapping[str, DepthVariant] = {
    variant.name: variant
    for variant in (
        DepthVariant("small", 384, 12, 6, (2, 5, 8, 11), (48, 96, 192, 384), 64),
        DepthVariant("base", 768, 12, 12, (2, 5, 8, 11), (96, 192, 384, 768), 128),
        DepthVariant("large", 1024, 24, 16, (4, 11, 17, 23), (256, 512, 1024, 1024), 256),
        DepthVariant("tiny", 48, 5, 3, (1, 2, 3, 4), (8, 16, 24, 32), 16),  # a toy: no weights are published
    )
}

_Place = tuple[str, int | None]  # of a parameter in a checkpoint: the tensor's name, and which of three stacked parts


class DepthCheckpoint(NamedTuple):
    """A checkpoint's tensors as on disk; `place` finds a parameter of the module among them.

    `source` is its path, or its hub id and revision. `max_depth` is the largest distance of a metric checkpoint, in
    metres if it says so; None for relative depth.
    """

    path: Path
    variant: DepthVariant
    tensors: Mapping[str, Tensor]
    place: Callable[[str, Mapping[str, Tensor]], _Place]
    source: str = ""
    max_depth: int | None = None


def read_depth_checkpoint(path_or_id: str | Path, kind: CheckpointKind | None = None) -> DepthCheckpoint:
    """Opens a checkpoint of either layout (see `load_depth`), and determines its variant and kind.

    Raises:
        CheckpointError: no checkpoint, another architecture or width, unreadable files, or a metric checkpoint
            where `kind` does not say so.
    """
    path, source = _located(path_or_id)
    if path.is_dir() and not (path / "config.json").is_file():
        found = sorted(path.glob("*.pth"))
        if len(found) != 1:
            raise CheckpointError(
                f"{path} is no depth checkpoint: expected config.json with safetensors, or one .pth "
                f"(there are {len(found)})."
            )
        path = found[0]
    if path.is_dir():
        variant, max_depth = _read_config(path / "config.json")
        if max_depth is not None and kind != "metric":
            raise refuse_metric(source, "config.json")
        if max_depth is None and kind == "metric":
            raise CheckpointError(f"{source} gives relative depth, as its config.json says; omit `depth_kind`.")
        tensors = _read_safetensors(_folder_files(path))
        return DepthCheckpoint(path, variant, tensors, _transformers_place, source, max_depth)
    if not path.is_file():
        raise CheckpointError(
            f"There is no depth checkpoint at {path}; expected Depth Anything V2, a transformers folder, the "
            "authors' .pth, or a Hugging Face id such as org/name."
        )
    distance = distance_of_name(source, path)
    if distance is not None and kind is None:
        raise refuse_metric(source, "name")
    max_depth = (distance or 1) if kind == "metric" else None  # any unit will do: depth is normalised per clip
    tensors = _read_safetensors([path]) if path.suffix == ".safetensors" else _read_pth(path)
    return DepthCheckpoint(path, _variant_of(tensors, path), tensors, _authors_place, source, max_depth)


def _located(path_or_id: str | Path) -> tuple[Path, str]:
    """Returns a checkpoint's path and its name for the manifest, after downloading it if it is on the hub."""
    path = Path(path_or_id)
    if path.exists() or path.suffix in (".pth", ".pt", ".bin", ".safetensors") or not is_hub_id(path_or_id):
        return path, str(path)

    def download() -> Path:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(str(path_or_id), allow_patterns=["config.json", "*.safetensors*", "*.pth"]))

    return from_hub(str(path_or_id), download)


def bind(module: nn.Module, checkpoint: DepthCheckpoint) -> None:
    """Gives the module the checkpoint's tensors as float32, without a copy of those that already are.

    Raises:
        CheckpointError: a missing, misshapen or unknown tensor; the first one is named as in the checkpoint.
    """
    path, tensors = checkpoint.path, checkpoint.tensors
    state: dict[str, Tensor] = {}
    used = set(_UNUSED)
    for name, empty in module.state_dict().items():
        source, part = checkpoint.place(name, tensors)
        if source not in tensors:
            raise CheckpointError(f"{path} is incomplete: there is no tensor {source!r}.")
        tensor = tensors[source]
        expected = list(empty.shape) if part is None else [3 * empty.shape[0], *empty.shape[1:]]
        if list(tensor.shape) != expected or not tensor.is_floating_point():
            found = f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
            raise CheckpointError(f"Tensor {source!r} in {path} is {found}; expected float {expected}.")
        state[name] = (tensor if part is None else tensor.chunk(3)[part]).to(torch.float32)
        used.add(source)
    unknown = next((name for name in tensors if name not in used), None)
    if unknown is not None:
        raise CheckpointError(f"{path} is another network: Depth Anything V2 has no tensor {unknown!r}.")
    module.load_state_dict(state, assign=True)


_UNUSED = ("pretrained.mask_token", "backbone.embeddings.mask_token")  # for DINOv2's training only

# transformers 5 renamed the attention's parts in the module; its files and transformers 4 keep the old names.
_RENAMED = (
    (".attention.attention.query.", ".attention.q_proj."),
    (".attention.attention.key.", ".attention.k_proj."),
    (".attention.attention.value.", ".attention.v_proj."),
    (".attention.output.dense.", ".attention.o_proj."),
)

_TO_AUTHORS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"^backbone\.embeddings\.cls_token", "pretrained.cls_token"),
    (r"^backbone\.embeddings\.position_embeddings", "pretrained.pos_embed"),
    (r"^backbone\.embeddings\.patch_embeddings\.projection", "pretrained.patch_embed.proj"),
    (r"^backbone\.encoder\.layer\.", "pretrained.blocks."),
    (r"^backbone\.layernorm", "pretrained.norm"),
    (r"\.layer_scale([12])\.lambda1", r".ls\1.gamma"),
    (r"\.attention\.o_proj", ".attn.proj"),
    (r"^neck\.reassemble_stage\.layers\.(\d)\.projection", r"depth_head.projects.\1"),
    (r"^neck\.reassemble_stage\.layers\.(\d)\.resize", r"depth_head.resize_layers.\1"),
    (r"^neck\.convs\.(\d)", lambda m: f"depth_head.scratch.layer{int(m[1]) + 1}_rn"),
    # The authors count their refinement blocks from the finest, transformers from the coarsest.
    (r"^neck\.fusion_stage\.layers\.(\d)", lambda m: f"depth_head.scratch.refinenet{4 - int(m[1])}"),
    (r"\.residual_layer([12])\.convolution([12])", r".resConfUnit\1.conv\2"),
    (r"(refinenet\d)\.projection", r"\1.out_conv"),
    (r"^head\.conv1", "depth_head.scratch.output_conv1"),
    (r"^head\.conv2", "depth_head.scratch.output_conv2.0"),
    (r"^head\.conv3", "depth_head.scratch.output_conv2.2"),
)


def current_name(name: str) -> str:
    """Returns a parameter's name in transformers 5, given its name in transformers 4 or 5."""
    for old, new in _RENAMED:
        name = name.replace(old, new)
    return name


def _authors_place(name: str, tensors: Mapping[str, Tensor]) -> _Place:
    name = current_name(name)
    for pattern, replacement in _TO_AUTHORS:
        name = re.sub(pattern, replacement, name)
    fused = re.search(r"\.attention\.([qkv])_proj\.", name)
    if fused is None:
        return name, None
    return name.replace(fused[0], ".attn.qkv."), "qkv".index(fused[1])


def _transformers_place(name: str, tensors: Mapping[str, Tensor]) -> _Place:
    for old, new in _RENAMED:
        if name not in tensors:
            name = name.replace(old, new) if old in name else name.replace(new, old)
    return name, None


def _variant_of(tensors: Mapping[str, Tensor], path: Path) -> DepthVariant:
    """Returns the variant with a state dict's width; the tensors do not show heads and taps."""
    token = tensors.get("pretrained.cls_token")
    if token is None or token.ndim == 0:
        raise CheckpointError(f"{path} is no Depth Anything V2 state dict: there is no tensor 'pretrained.cls_token'.")
    for variant in VARIANTS.values():
        if variant.width == token.shape[-1]:
            return variant
    known = ", ".join(f"{variant.width} ({variant.name})" for variant in VARIANTS.values())
    raise CheckpointError(f"{path} is a network of width {token.shape[-1]}; expected one of {known}.")


def _read_pth(path: Path) -> dict[str, Tensor]:
    """Maps a plain state dict from disk; only tensors are unpickled."""
    if not zipfile.is_zipfile(path):
        require_download(path)
        raise CheckpointError(f"{path} is truncated or not in torch's zip format: download it again, or re-save it.")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path} is a pickle with more in it than tensors; expected a plain state dict."
        ) from None
    except (RuntimeError, EOFError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} cannot be read: {one_line(error)}.") from error
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise CheckpointError(f"{path} is no plain state dict; expected names and tensors only.")
    return content


def _read_safetensors(files: list[Path]) -> dict[str, Tensor]:
    return {name: weight.load() for name, weight in read_safetensors(files).items()}


def _folder_files(folder: Path) -> list[Path]:
    """Returns the safetensors files of a transformers folder, sharded or not."""
    index, plain = folder / "model.safetensors.index.json", folder / "model.safetensors"
    if index.is_file():
        return shards_of(index)
    # Without the plain file, a variant such as model.fp16.safetensors.
    files = [plain] if plain.is_file() else sorted(folder.glob("model.*.safetensors"))[:1]
    if not files:
        raise CheckpointError(f"{folder} has no model.safetensors; pickled weights (.bin) are not read.")
    return files


def _read_config(path: Path) -> tuple[DepthVariant, int | None]:
    """Reads the sizes and, if it is metric, the largest distance from a transformers config.json.

    Missing fields have transformers' defaults.
    """
    config = read_json(path)
    backbone = config.get("backbone_config")
    backbone = backbone if isinstance(backbone, dict) else {}
    fixed = (  # what the module is built for: name, value, expected
        ("model_type", config.get("model_type"), "depth_anything"),
        ("backbone_config.model_type", backbone.get("model_type"), "dinov2"),
        ("head_in_index", config.get("head_in_index", -1), -1),
        ("head_hidden_size", config.get("head_hidden_size", 32), 32),
        ("reassemble_factors", config.get("reassemble_factors", [4, 2, 1, 0.5]), [4, 2, 1, 0.5]),
        ("patch_size", config.get("patch_size", DEPTH_MULTIPLE), DEPTH_MULTIPLE),
        ("backbone_config.patch_size", backbone.get("patch_size", DEPTH_MULTIPLE), DEPTH_MULTIPLE),
        ("backbone_config.image_size", backbone.get("image_size", 224), GRID * DEPTH_MULTIPLE),
        ("backbone_config.mlp_ratio", backbone.get("mlp_ratio", 4), 4),
        ("backbone_config.hidden_act", backbone.get("hidden_act", "gelu"), "gelu"),
        ("backbone_config.layer_norm_eps", backbone.get("layer_norm_eps", 1e-6), 1e-6),
        ("backbone_config.qkv_bias", backbone.get("qkv_bias", True), True),
        ("backbone_config.use_swiglu_ffn", backbone.get("use_swiglu_ffn", False), False),
        ("backbone_config.apply_layernorm", backbone.get("apply_layernorm", True), True),
    )
    for name, found, expected in fixed:
        if found != expected:
            raise CheckpointError(f"{path} is not for Depth Anything V2: {name} is {found!r}, expected {expected!r}.")
    try:
        stages = backbone.get("out_indices") or backbone["out_features"]
        variant = DepthVariant(
            name="custom",
            width=int(backbone.get("hidden_size", 768)),
            layers=int(backbone.get("num_hidden_layers", 12)),
            heads=int(backbone.get("num_attention_heads", 12)),
            taps=tuple(int(str(stage).removeprefix("stage")) - 1 for stage in stages),
            neck=tuple(int(width) for width in config.get("neck_hidden_sizes", (48, 96, 192, 384))),
            fusion=int(config.get("fusion_hidden_size", 64)),
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} is no usable config: {one_line(error)}.") from error
    positive = min(variant.width, variant.layers, variant.heads, variant.fusion, *variant.neck) > 0
    ordered = list(variant.taps) == sorted(set(variant.taps) & set(range(variant.layers)))
    fours = len(variant.taps) == len(variant.neck) == 4
    if not (positive and ordered and fours) or variant.width % variant.heads:
        raise CheckpointError(f"{path} is no usable config: {variant}.")
    named = next((v for v in VARIANTS.values() if replace(v, name="custom") == variant), variant)
    return named, distance_of_config(config, path)
