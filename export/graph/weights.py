"""Weights and the files they come from, loaded one tensor at a time: no checkpoint is ever in memory as a whole."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from amodal.runtime.errors import CheckpointError


class Weight(NamedTuple):
    """A tensor that is not loaded yet; `stored_as` is its name in the file, for messages."""

    shape: tuple[int, ...]
    load: Callable[[], Tensor]
    stored_as: str = ""


class Weights(dict[str, Weight]):
    """Named tensors, each loaded on request; `source` says where they come from, in messages and the manifest."""

    def __init__(self, entries: Mapping[str, Weight], source: str) -> None:
        super().__init__(entries)
        self.source = source

    def __missing__(self, name: str) -> Weight:
        raise CheckpointError(
            f"{self.source} lacks the tensor {name}; the download is incomplete, or the config is of another model."
        )

    def shape(self, name: str) -> tuple[int, ...]:
        """Returns a tensor's shape without loading it."""
        return self[name].shape

    def load(self, name: str) -> Tensor:
        """Loads a tensor as float32."""
        return self[name].load().to(torch.float32)

    def fingerprint(self) -> str:
        """Hashes names, shapes and values (SHA-256), reading all tensors."""
        digest = hashlib.sha256()
        for name in sorted(self):
            tensor = self.load(name).contiguous()
            digest.update(f"{name}{tuple(tensor.shape)}".encode())
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def renamed(self, names: Mapping[str, str]) -> Weights:
        """Renames tensors (old -> new), replacing any that had a new name."""
        kept = {n: w for n, w in self.items() if n not in names and n not in names.values()}
        return Weights(kept | {new: self[old] for old, new in names.items()}, self.source)


def read_safetensors(files: list[Path]) -> Weights:
    """Opens the safetensors files of one network without reading the tensors.

    Raises:
        CheckpointError: a file is not a readable safetensors file.
    """
    entries: dict[str, Weight] = {}
    for file in files:
        try:
            handle: Any = safe_open(file, framework="pt")
            for name in handle.keys():  # noqa: SIM118 (safe_open is no mapping)
                shape = tuple(handle.get_slice(name).get_shape())
                entries[name] = Weight(shape, partial(handle.get_tensor, name), name)
        except (SafetensorError, OSError) as error:
            require_download(file)
            raise CheckpointError(f"{file} is not a readable safetensors file ({error}); download it again.") from error
    return Weights(entries, str(files[0].parent))


def random_weights(module: nn.Module, seed: int, source: str = "random weights") -> Weights:
    """Returns seeded weights for every tensor of `module`, which may be on the meta device.

    Matrices and kernels are normal with variance 1 / fan-in, norms near identity, biases small, mixers spread around
    1/2: activations stay of order one through the real architecture, in half precision too. Each tensor has its
    own seed, so that its values do not depend on the order of loading.
    """

    def load(name: str, shape: tuple[int, ...]) -> Tensor:
        digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        value = torch.randn(shape, generator=generator)
        if name.endswith("mix_factor"):
            return value * 0.5
        if len(shape) > 1:
            return value.div_(math.sqrt(math.prod(shape[1:])))
        return 1.0 + 0.1 * value if name.endswith("weight") else 0.02 * value

    shapes = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    return Weights({name: Weight(shape, partial(load, name, shape)) for name, shape in shapes.items()}, source)


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        CheckpointError: the file is missing, or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing; expected a whole checkpoint (model_index.json, unet/, vae/, image_encoder/, "
            "scheduler/): check the path, or download it again."
        ) from None
    except (OSError, ValueError) as error:
        require_download(path)
        raise CheckpointError(f"{path} cannot be read as JSON ({one_line(error)}); download it again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object; download it again.")
    return content


def require_download(file: Path) -> None:
    """Raises `CheckpointError` if something else was downloaded in a file's place: a git-lfs pointer or a web page."""
    try:
        with file.open("rb") as opened:
            start = opened.read(512).lstrip().lower()
    except OSError:
        return
    if start.startswith(b"version https://git-lfs"):
        raise CheckpointError(
            f"{file} is a git-lfs pointer, not the file itself: run `git lfs pull` in {file.parent} (once before, "
            "`git lfs install`), or download the file."
        )
    if start.startswith(b"<"):
        raise CheckpointError(
            f"{file} is a web page, not a checkpoint: the link led to a page about the file; download the file itself "
            "(on Hugging Face, the link with /resolve/ in place of /blob/)."
        )


def shards_of(index: Path) -> list[Path]:
    """Returns the safetensors files that an index (*.safetensors.index.json) names.

    Raises:
        CheckpointError: the index names none, or one is missing.
    """
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map; download it again.")
    shards = [index.parent / Path(str(name)).name for name in sorted(set(map(str, weight_map.values())))]
    for shard in shards:
        if not shard.is_file():
            raise CheckpointError(f"{shard} is missing, which {index.name} names; download the checkpoint again.")
    return shards


def one_line(error: Exception) -> str:
    """Returns an exception's message in a form that fits into a sentence."""
    text = f"unknown {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__
