"""ONNX Runtime on the CPU, and concurrent calls for it and OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

from ...bundle.manifest import ComponentEntry
from ...cores import usable_cores
from ...errors import BackendError, BackendUnavailableError, BundleCorruptError, InputError, first_line
from ..backend import Backend, Executable
from ..denormals import denormals_as_zero
from .kernels import find_kernels, fused_file
from .library import import_onnxruntime


def probe() -> str:
    """Describes ONNX Runtime and the kernels."""
    ort, kernels = import_onnxruntime(), find_kernels()
    providers = ", ".join(ort.get_available_providers())
    return f"onnxruntime {ort.__version__}: {providers}; kernels for the CPU: {kernels}"


def create(*, device: str | None, threads: int | None) -> Backend:
    """Creates the backend; see `amodal.runtime.backends.create`."""
    check_host_options("onnxruntime", device, threads, devices="cpu, cuda, cuda:1 and so on")
    return OnnxRuntimeBackend(import_onnxruntime(), threads)


def check_host_options(backend: str, device: str | None, threads: int | None, devices: str = "cpu") -> None:
    """Checks the options of a CPU backend; `devices` lists those to name in the message."""
    if device not in (None, "cpu"):
        raise BackendUnavailableError(f"backend {backend} has no device {device!r}; expected {devices}.")
    if threads is not None and threads < 1:
        raise InputError(f"{threads} threads are not possible; expected 1 or more.", field="threads")


class OnnxRuntimeBackend(Backend):
    """Runs components with ONNX Runtime's CPU provider; see `Backend`.

    Independent calls (the two CFG rows, chunks of frames) run concurrently, each on few threads. With two cores that
    took 17 % off a U-Net step against one batched call on both, because nothing waits at the end of every operator
    and a row's activations stay in one core's cache.
    """

    name = "onnxruntime"

    def __init__(self, ort: Any, threads: int | None) -> None:
        self._ort = ort
        self.threads = threads or usable_cores()
        self.lanes = min(2, self.threads)
        self.kernels = find_kernels()
        self._lane_threads = Lanes(self.lanes)

    def load(self, entry: ComponentEntry, files: list[Path], lanes: int = 1) -> Executable:
        """See `Backend.load`."""
        ort = self._ort
        options = ort.SessionOptions()
        # Callers share a session's pool, and each computes a part itself on its own thread.
        options.intra_op_num_threads = max(1, self.threads - lanes + 1)
        options.log_severity_level = 3
        # Threads spin for some 40 ms after a run and take a core from the next component: the first denoising step
        # took half as long again.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        if _shares_memory(ort):
            options.add_session_config_entry("session.use_env_allocators", "1")
        options.add_session_config_entry("session.set_denormal_as_zero", "1")  # on the pool's threads
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
        return Session(session, entry.kind, self._lane_threads if lanes > 1 else None)

    def describe(self) -> dict[str, str]:
        """See `Backend.describe`."""
        return {
            "name": self.name,
            "version": self._ort.__version__,
            "provider": "CPUExecutionProvider",
            "threads": str(self.threads),
            "kernels": "no" if self.kernels.library is None else self.kernels.note,
        }


class Lanes:
    """`count` threads of a backend, shared by its components because each further thread would keep freed memory.

    They end when the last component that uses them is closed.
    """

    def __init__(self, count: int) -> None:
        self._count, self._users, self._lock = count, 0, Lock()
        self._pool: ThreadPoolExecutor | None = None

    def enter(self) -> ThreadPoolExecutor:
        """Adds a user and returns the threads."""
        with self._lock:
            self._users += 1
            self._pool = self._pool or ThreadPoolExecutor(self._count, "amodal-lane")
            return self._pool

    def leave(self) -> None:
        """Removes a user; the last one ends the threads."""
        with self._lock:
            self._users -= 1
            pool, self._pool = (self._pool, None) if not self._users else (None, self._pool)
        if pool is not None:
            pool.shutdown()


class LaneExecutable(Executable):
    """Base of an executable on a CPU whose `map` runs calls concurrently.

    Args:
        library: name for messages.
        kind: of the component, for messages.
        lanes: the backend's threads; None to run calls one after the other.
    """

    def __init__(self, library: str, kind: str, lanes: Lanes | None) -> None:
        self._library, self._kind, self._lanes, self._closed = library, kind, lanes, False
        self._pool = None if lanes is None else lanes.enter()

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """See `Executable`."""
        if self._closed:
            raise BackendError(f"component {self._kind} was closed; load the bundle again.")
        try:
            with denormals_as_zero():
                return self._run(dict(inputs))
        except Exception as error:
            message = f"{self._library} failed in component {self._kind}: {first_line(error)}"
            raise BackendError(message) from error

    def _run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def map(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """See `Executable.map`."""
        if self._pool is None or len(batches) == 1:
            return super().map(batches)
        return list(self._pool.map(self, batches))

    def close(self) -> None:
        """See `Executable.close`."""
        self._closed, self._pool = True, None
        if self._lanes is not None:
            self._lanes.leave()
            self._lanes = None


class Session(LaneExecutable):
    """An ONNX Runtime session on the CPU; see `LaneExecutable`."""

    def __init__(self, session: Any, kind: str, lanes: Lanes | None = None) -> None:
        super().__init__("onnxruntime", kind, lanes)
        self._session: Any = session
        self._outputs = [output.name for output in session.get_outputs()]

    def _run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        return dict(zip(self._outputs, self._session.run(self._outputs, inputs), strict=True))

    def close(self) -> None:
        """See `Executable.close`."""
        super().close()
        self._session = None


@cache
def _shares_memory(ort: Any) -> bool:
    """Registers one arena that grows by the size requested, shared by all models of this process.

    By default every session has its own arena, which doubles as it grows and never shrinks: components that never run
    at the same time would each hold their peak.
    """
    try:
        place = ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT)
        ort.create_and_register_allocator(place, ort.OrtArenaCfg({"arena_extend_strategy": 1}))
    except Exception:  # noqa: BLE001 (an allocator is already registered: sessions keep their own arenas)
        return False
    return True
