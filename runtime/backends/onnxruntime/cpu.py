"""ONNX Runtime on the CPU; `onnxruntime_cuda` has it on a GPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle.manifest import ComponentEntry
from ...cores import usable_cores
from ...errors import BackendError, BackendUnavailableError, BundleCorruptError, InputError, first_line
from .. import Availability, Backend, EngineNeeds, Executable
from ..denormals import denormals_as_zero
from ..lanes import Lane, Lanes
from .kernels import find_kernels, fused_file

_DEVICES = ("cpu", "cuda", "cuda:1 and so on")


def availability(name: str = "onnxruntime", device: str | None = None) -> Availability:
    """Whether onnxruntime can be imported, or for `device="cuda"`, can use a GPU."""
    if device is not None and device != "cpu":
        from .cuda import availability as on_gpu

        return on_gpu(device)
    try:
        ort, kernels = import_onnxruntime(), find_kernels()
    except (BackendUnavailableError, InputError) as error:
        return Availability(False, "", str(error))
    providers = ", ".join(ort.get_available_providers())
    return Availability(True, f"onnxruntime {ort.__version__}: {providers}; kernels for the CPU: {kernels}")


def create(
    name: str = "onnxruntime", *, device: str | None = None, threads: int | None, vram: int | None = None
) -> Backend:
    """Makes the backend; see `amodal.runtime.backends.create`."""
    if device is not None and device.startswith("cuda"):
        from .cuda import create as on_gpu

        return on_gpu(device=device, threads=threads, vram=vram)
    if device is not None and device != "cpu":
        raise BackendUnavailableError(f"backend onnxruntime has no device {device!r}; expected {', '.join(_DEVICES)}.")
    if threads is not None and threads < 1:
        raise InputError(f"{threads} threads were asked for; expected 1 or more.", field="threads")
    return OnnxRuntimeBackend(import_onnxruntime(), threads)


def import_onnxruntime(extra: str = "cpu") -> Any:
    """ONNX Runtime's module.

    Raises:
        BackendUnavailableError: it is not there, or only in part; `extra` is what installs it.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendUnavailableError(
            f'backend onnxruntime cannot be imported ({error}); install it with `pip install "amodal[{extra}]"`.'
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        # What is left after one of the two distributions, which share their files, was removed.
        raise BackendUnavailableError(
            "onnxruntime is installed only in part; onnxruntime and onnxruntime-gpu overwrite each other: uninstall "
            f'both, then `pip install "amodal[{extra}]"`.'
        )
    return onnxruntime


class OnnxRuntimeBackend:
    """Runs components with ONNX Runtime's CPU provider; see `Backend`.

    Independent calls (the two CFG rows, chunks of frames) run side by side, each on few threads: with two cores that
    took 17 % off a U-Net step against one batched call on both, because nothing waits at the end of every operator
    and a row's activations stay in one core's cache.
    """

    name = "onnxruntime"
    engines: EngineNeeds | None = None

    def __init__(self, ort: Any, threads: int | None) -> None:
        self.xp: Any = np
        self._ort = ort
        self.threads = threads or usable_cores()
        self.lanes = min(2, self.threads)
        self.kernels = find_kernels()
        self._side_by_side = Lanes(self.lanes)

    def load(self, entry: ComponentEntry, files: list[Path], lanes: int = 1) -> Executable:
        """See `Backend.load`."""
        ort = self._ort
        options = ort.SessionOptions()
        # A session's pool is shared by its callers, each of which works as well.
        options.intra_op_num_threads = max(1, self.threads - lanes + 1)
        options.log_severity_level = 3
        # Threads spin for some 40 ms after a run, and would take a core from the next component: the first denoising
        # step took half as long again.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if _shares_memory(ort):
            options.add_session_config_entry("session.use_env_allocators", "1")
        options.add_session_config_entry("session.set_denormal_as_zero", "1")  # on its pool's threads
        graph = files[0]
        if self.kernels.library is not None and fused_file(graph) in files:
            graph = fused_file(graph)
            options.register_custom_ops_library(str(self.kernels.library))
        try:
            with denormals_as_zero():
                session = ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BundleCorruptError(
                f"onnxruntime cannot load {graph}: {first_line(error)}; update onnxruntime, or export the bundle again."
            ) from error
        return _Session(session, entry, self._side_by_side.enter() if lanes > 1 else None)

    def active(self) -> AbstractContextManager[None]:
        """See `Backend.active`."""
        return nullcontext()

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        """See `Backend.to_host`."""
        return np.asarray(array)

    def free_memory(self) -> int | None:
        """See `Backend.free_memory`."""
        return None

    def describe(self) -> dict[str, str]:
        """See `Backend.describe`."""
        return {
            "name": self.name,
            "version": self._ort.__version__,
            "provider": "CPUExecutionProvider",
            "threads": str(self.threads),
            "kernels": "no" if self.kernels.library is None else self.kernels.note,
        }


class _Session:
    def __init__(self, session: Any, entry: ComponentEntry, lane: Lane | None) -> None:
        self._session: Any = session
        self._lane = lane
        self._kind = entry.kind
        self._outputs = [o.name for o in session.get_outputs()]

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if self._session is None:
            raise BackendError(f"component {self._kind} was closed; load the bundle again.")
        try:
            with denormals_as_zero():
                values = self._session.run(self._outputs, dict(inputs))
        except Exception as error:
            raise BackendError(f"onnxruntime failed in component {self._kind}: {first_line(error)}") from error
        return dict(zip(self._outputs, values, strict=True))

    def map(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        if self._lane is None or len(batches) == 1:
            return [self(inputs) for inputs in batches]
        return self._lane.map(self, batches)

    def close(self) -> None:
        self._session = None
        if self._lane is not None:
            self._lane.close()
            self._lane = None


@cache
def _shares_memory(ort: Any) -> bool:
    """Gives the components of all models in this process one arena, which grows by what is asked for.

    By default every session has an arena of its own that doubles as it grows, and keeps what it once had: components
    that never run at the same time would each hold their peak.
    """
    try:
        place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        ort.create_and_register_allocator(place, ort.OrtArenaCfg({"arena_extend_strategy": 1}))
    except Exception:  # noqa: BLE001 (somebody else registered one: sessions then keep arenas of their own)
        return False
    return True


def installed_distributions() -> list[str]:
    """Which distributions provide the module `onnxruntime`; more than one overwrite each other."""
    found = []
    for name in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found
