"""What a family hands to the bundle writer: its graphs, the torch modules to compare them with, and its config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from amodal.runtime.bundle.manifest import Precision

from .graph.variants import Variant
from .graph.writer import Graph

Size = tuple[int, int]
Arrays = dict[str, NDArray[np.float32]]

Reference = Callable[[Arrays], tuple[Arrays, dict[str, Tensor]]]
"""Runs a torch module on the inputs of its graph, which are standard normal.

Returns the inputs to run the graph with, some replaced where random values mean nothing, and the outputs to expect."""


@dataclass(frozen=True)
class ComponentPlan:
    """One network to write as a graph.

    Attributes:
        key: its key in the manifest's components.
        kind: its name in the vocabulary (`unet`, `vae_encoder`, ...).
        precision: of the graph's arithmetic.
        source: where its weights come from.
        write: makes the graph for inputs of a size (H, W).
        size: the size to write it for.
        check_size: the size at which it is compared with torch.
        reference: runs its torch module.
        fingerprint: hashes the network, or None. Components of one kind with equal fingerprints share a graph, whose
            key is their kind.
        repeated: whether a run calls it many times on the same shapes, so that a GPU captures it as a CUDA graph.
        least_precision: the lowest precision that its arithmetic can have; `fp32` for what overflows in half.
    """

    key: str
    kind: str
    precision: Precision
    source: str
    write: Callable[[Size], Graph]
    size: Size
    check_size: Size
    reference: Reference
    fingerprint: Callable[[], str] | None = None
    repeated: bool = False
    least_precision: Precision = "fp16"


@dataclass(frozen=True)
class TaskPlan:
    """One task of the bundle.

    Attributes:
        components: the family's name for a component (its role) -> key of its `ComponentPlan`.
        source: where the checkpoint comes from.
        licence: of the weights, if the checkpoint names one.
    """

    components: Mapping[str, str]
    source: str
    licence: str | None


@dataclass(frozen=True)
class ExportPlan:
    """Everything that goes into a bundle.

    Attributes:
        family: its name in the manifest.
        config: the manifest's `config`, as the family's runtime validates it.
        tasks: what the bundle can be asked for.
        components: in order of writing.
        variant: how the graphs are written.
        stored: dtype of the weights in the files.
        compare: whether to compare the graphs with torch.
    """

    family: str
    config: Mapping[str, Any]
    tasks: Mapping[str, TaskPlan]
    components: tuple[ComponentPlan, ...]
    variant: Variant
    stored: Precision
    compare: bool = True
