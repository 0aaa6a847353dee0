"""Loads a bundle as a `Model`."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from .backends import AUTO, DEFAULT, Backend
from .backends.registry import Choice, open_chosen
from .execution.run import Run
from .families import Bundle
from .memory.choice import BackendFacts, MemoryRequest, MemoryWish, Vram, budget_of, plan_model
from .model import Model
from .paths import PathLike
from .progress import Progress, silent

_LOG = logging.getLogger(__name__)


def load(
    bundle: PathLike,
    backend: str = DEFAULT,
    *,
    memory: MemoryWish = "resident",
    vram: Vram = None,
    engine_dir: PathLike | None = None,
    shape: Run | None = None,
    device: str | None = None,
    threads: int | None = None,
    verify: bool = True,
    progress: Progress = silent,
    wrap: Callable[[Backend], Backend] | None = None,
) -> Model:
    """Loads a bundle. Use the returned model as a context manager, or close it.

    Args:
        bundle: folder written by `amodal export`, or `default` for the small trained bundle inside the package, which
            draws the shapes of `amodal.runtime.scenes` in 8 frames of 64x128.
        backend: `onnxruntime`, `tensorrt_rtx` or `tensorrt`; `openvino` for a CPU in bfloat16, faster and less exact;
            or `auto` for the first TensorRT that is usable here and has its engines, else `onnxruntime`, with a warning
            that names engines which cannot be used.
        memory: `resident` keeps all components loaded, `sequential` one at a time; `auto` is the faster one that fits,
            on a CPU `resident`.
        vram: limit of GPU memory, in bytes or as text (`6GB`). Only for a GPU (`auto` ignores it on a CPU).
        engine_dir: folder of the backend's engines; None for the bundle's own.
        shape: the run to plan memory for, None for every task with default settings; larger ones are checked again.
        device: `cpu`, `cuda`, `cuda:1`; None for the backend's default. On `cpu`, `auto` ignores engines.
        threads: CPU threads; None for all cores. Only for a CPU (`auto` ignores them on a GPU).
        verify: compare each component with its hash before loading it.
        progress: called with a component's kind and what begins: `check` (of its hashes), `load` or `run`.
        wrap: called with the backend; returns the one to use instead, for example a `BackendProxy`.

    Raises:
        BundleError: no finished, readable, undamaged bundle.
        BackendUnavailableError: the backend cannot be used here.
        EngineError: its engines are missing, or were not built from this bundle.
        MemoryBudgetError: nothing fits into `vram`, or into the free memory of the GPU.
    """
    opened = Bundle(bundle)

    def opening(choice: Choice) -> Model:
        executor = choice.create()
        if wrap is not None:
            executor = wrap(executor)
        graphs = executor.engines is None
        wish = MemoryRequest(memory, choice.vram, None if graphs and backend == AUTO else engine_dir, shape)
        on_gpu = executor.xp is not np
        free = None if graphs and not on_gpu else executor.free_memory()
        facts = BackendFacts(executor.engines, on_gpu, free)
        planned = plan_model(opened, opened.family, executor.name, wish, facts)
        if planned is not None:
            executor.reserve_activations(planned.plan.shared_scratch)
        model = Model(opened, executor, memory, planned, verify=verify, progress=progress)
        about = ", ".join(f"{name} {value}" for name, value in executor.describe().items() if name != "name")
        peak = "" if planned is None else f", planned {planned.plan.peak_bytes / 1e9:.2f} GB of GPU memory"
        _LOG.info("bundle %s on %s (%s), %s memory%s", opened.path, executor.name, about, model.memory, peak)
        return model

    return open_chosen(Choice(backend, device, threads, budget_of(vram)), opening)
