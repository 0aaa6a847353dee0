"""The export plan of a family: its graphs, the torch modules to compare them with, and its config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from amodal.runtime.bundle.manifest import Precision, TaskEntry

from .graph.variants import Variant
from .graph.writer import Graph

Size = tuple[int, int]
Arrays = dict[str, NDArray[np.float32]]

Reference = Callable[[Arrays], tuple[Arrays, dict[str, Tensor]]]
"""Runs a torch module on standard normal inputs.

Returns the inputs for the graph, of which some may be replaced by meaningful values, and the expected outputs."""


@dataclass(frozen=True)
class ComponentPlan:
    """One network to write as a graph; fields that are not listed are those of the manifest's `ComponentEntry`.

    Attributes:
        key: its key in the manifest's components.
        write: returns the graph for inputs of a size (H, W).
        size: the size to write it for.
        check_size: the size at which it is compared with torch.
        slack: factor on the tolerance of the difference from torch, where the network itself magnifies rounding.
        fingerprint: hashes the network. Components of one kind with equal fingerprints share a graph, whose key is
            their kind; None never shares.
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
    bfloat16: bool = True
    slack: float = 1.0


@dataclass(frozen=True)
class ExportPlan:
    """Everything that goes into a bundle.

    Attributes:
        config: the manifest's `config`, which the family's runtime validates.
        tasks: the manifest's tasks, with components by their keys in this plan.
        components: in order of writing.
        stored: dtype of the weights in the files.
        compare: whether to compare the graphs with torch.
    """

    family: str
    config: Mapping[str, Any]
    tasks: Mapping[str, TaskEntry]
    components: tuple[ComponentPlan, ...]
    variant: Variant
    stored: Precision
    compare: bool = True
