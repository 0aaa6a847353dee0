"""Measures what each graph of a bundle takes on a GPU, for `recorded.py`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..backends import Backend
from ..builds.store import Profile, graph_hash
from ..bundle.manifest import ComponentEntry
from ..bundle.reading import Bundle
from ..errors import InputError
from ..execution.family import Family
from ..progress import Progress, silent
from .recorded import ComponentMemory, MemoryRecord


def record_memory(
    bundle: Bundle, family: Family, backend: Backend, measured_on: str = "", progress: Progress = silent
) -> MemoryRecord:
    """Loads each component and calls it on zeros, for every shape that a run may need.

    The arena of a component does not shrink while it is called, so what is missing after a call was its peak. Other
    programs must not allocate meanwhile.

    Args:
        backend: ONNX Runtime on a GPU, without a limit of memory.
        measured_on: the GPU's name; the backend's own if empty.

    Raises:
        InputError: the backend runs engines, or no GPU.
        MemoryBudgetError: a component alone does not fit.
    """
    if backend.engines is not None or backend.xp is np:
        raise InputError("backend: only graphs on a GPU are measured; choose onnxruntime and the device cuda.")
    about, found = backend.describe(), {}
    for key, entry in bundle.manifest.components.items():
        progress(entry.kind, "run")
        weights, activations = 0, {}
        for profile in family.profiles(bundle.manifest, key):
            _measure(bundle, key, profile, backend)  # CUDA loads kernels when they are first used, and keeps them
            weights, activations[profile.name] = _measure(bundle, key, profile, backend)
        found[key] = ComponentMemory(
            graph=graph_hash(bundle, key), weights_bytes=weights, activation_bytes=activations, kept=entry.repeated
        )
    return MemoryRecord(version=about["version"], measured_on=measured_on or about["gpu"], components=found)


def _measure(bundle: Bundle, key: str, profile: Profile, backend: Backend) -> tuple[int, int]:
    """Returns the bytes of a component's weights, and of its activations for a profile's largest shapes."""
    entry = bundle.component(key)
    with backend.active():
        before = _taken(backend)
        executable = backend.load(entry, bundle.files(key))
        try:
            weights = _taken(backend) - before
            inputs = {name: backend.xp.zeros(shape, "float32") for name, shape in _shapes(entry, profile).items()}
            results = executable(inputs)
            activations = _taken(backend) - before - weights
            if entry.repeated:  # copies at the addresses that its CUDA graph was recorded with
                activations += sum(4 * math.prod(a.shape) for a in (*inputs.values(), *results.values()))
        finally:
            executable.close()
    return max(0, weights), max(0, activations)


def _taken(backend: Backend) -> int:
    """Bytes of device memory that are in use, but for arrays in CuPy's pool; only differences mean something."""
    free = backend.free_memory() or 0
    pool: Any = backend.xp.get_default_memory_pool()
    return -free - int(pool.total_bytes())


def _shapes(entry: ComponentEntry, profile: Profile) -> dict[str, tuple[int, ...]]:
    fixed = {t.name: tuple(n for n in t.shape if isinstance(n, int)) for t in entry.inputs}
    return fixed | {name: tuple(largest) for name, (_, _, largest) in profile.shapes.items()}
