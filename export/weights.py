"""Where a graph's weights come from: lazily, one tensor at a time, so that no checkpoint is ever held whole."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from amodal.runtime.errors import CheckpointError


class Weights(Mapping[str, Tensor]):
    """Named float32 tensors, each made when it is asked for.

    Args:
        loaders: tensor name -> function that returns it.
        source: where they come from, for messages and for the manifest.
    """

    def __init__(self, loaders: Mapping[str, Callable[[], Tensor]], source: str) -> None:
        self._loaders = dict(loaders)
        self.source = source

    def __getitem__(self, name: str) -> Tensor:
        return self._loaders[name]().to(torch.float32)

    def __iter__(self) -> Iterator[str]:
        return iter(self._loaders)

    def __len__(self) -> int:
        return len(self._loaders)

    def with_derived(self, derived: Mapping[str, Callable[[], Tensor]]) -> Weights:
        """These tensors, with some added or replaced by others computed from them."""
        return Weights({**self._loaders, **derived}, self.source)

    def prefixed(self, prefix: str) -> Weights:
        """The same tensors under names that start with `prefix`."""
        return Weights({prefix + name: load for name, load in self._loaders.items()}, self.source)

    def renamed(self, old: str, new: str) -> Weights:
        """The same tensors, with a leading `old` in their names replaced by `new`; others keep theirs."""
        return Weights(
            {new + n[len(old) :] if n.startswith(old) else n: load for n, load in self._loaders.items()},
            self.source,
        )


def read_safetensors(files: list[Path]) -> tuple[Weights, dict[str, tuple[int, ...]]]:
    """Opens safetensors files (the shards of one network) without reading the tensors.

    Returns:
        The tensors and their shapes by name.

    Raises:
        CheckpointError: a file is no readable safetensors file.
    """
    loaders: dict[str, Callable[[], Tensor]] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files:
        try:
            handle = safe_open(file, framework="pt")
            for name in handle.keys():  # noqa: SIM118 (safe_open is no mapping)
                shapes[name] = tuple(handle.get_slice(name).get_shape())
                loaders[name] = _loader(handle, name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(
                f"{file} is not a readable safetensors file ({error}); download it again."
            ) from error
    return Weights(loaders, ", ".join(str(f) for f in files)), shapes


def _loader(handle: safe_open, name: str) -> Callable[[], Tensor]:
    def load() -> Tensor:
        tensor: Tensor = handle.get_tensor(name)
        return tensor

    return load


def check_shapes(found: Mapping[str, tuple[int, ...]], module: nn.Module, source: str) -> None:
    """Raises CheckpointError, naming the first tensor of `module` that is missing or of another shape."""
    for name, tensor in module.state_dict().items():
        if name not in found:
            raise CheckpointError(
                f"{source} lacks the tensor {name}, of shape {list(tensor.shape)}; "
                "the download is incomplete or the config is of another model."
            )
        if found[name] != tuple(tensor.shape):
            raise CheckpointError(
                f"{source}: tensor {name} has shape {list(found[name])} where the config asks for "
                f"{list(tensor.shape)}; weights and config.json do not belong together."
            )


def random_weights(module: nn.Module, seed: int, source: str) -> Weights:
    """Seeded weights for every tensor of `module` (which may be on the meta device).

    Matrices and kernels are normal with variance 1 / fan-in, norms near identity, biases small, mixers spread around
    1/2: activations stay of order one through the real architecture, in half precision too. Each tensor has its
    own seed, so that its values do not depend on the order of asking.
    """

    def loader(name: str, shape: tuple[int, ...]) -> Callable[[], Tensor]:
        def load() -> Tensor:
            digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") % 2**63)
            value = torch.randn(shape, generator=generator) if math.prod(shape) else torch.zeros(shape)
            if name.endswith("mix_factor"):
                return value * 0.5
            if len(shape) > 1:
                return value / math.sqrt(math.prod(shape[1:]))
            return 1.0 + 0.1 * value if name.endswith("weight") else 0.02 * value

        return load

    shapes = {name: tuple(t.shape) for name, t in module.state_dict().items()}
    return Weights({name: loader(name, shape) for name, shape in shapes.items()}, source)
