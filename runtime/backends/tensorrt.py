"""TensorRT for RTX and TensorRT on a GPU, through one adapter. Arrays are CuPy's and stay on the device."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from amodal.runtime.backends import Availability, EngineNeeds, Executable
from amodal.runtime.errors import BackendError, BackendUnavailableError, EngineCorruptError, InputError
from amodal.runtime.manifest import ComponentEntry

_EXTRAS = {"tensorrt_rtx": "rtx", "tensorrt": "tensorrt"}
_CACHE = ".runtime_cache"
_ALIGNMENT = 256  # bytes, of the scratch (TensorRT's `set_device_memory`)


def availability(name: str) -> Availability:
    """Whether the library and CuPy can be imported, and a GPU is there."""
    try:
        trt, cupy = _import(name), _import_cupy(name)
        gpu = _gpu(cupy, name, None)
    except BackendUnavailableError as error:
        return Availability(False, "", str(error))
    return Availability(True, f"{name} {trt.__version__} on {gpu.name} (sm{gpu.capability})")


def create(name: str, *, device: str | None, threads: int | None) -> TensorRTBackend:
    """Makes the backend; see `amodal.runtime.backends.create`."""
    if threads is not None:
        raise InputError(f"--threads is for a CPU; leave it out with --backend {name}.")
    found = re.fullmatch(r"cuda(?::(\d+))?", device or "cuda")
    if found is None:
        raise BackendUnavailableError(f"backend {name} has no device {device!r}; expected cuda, or cuda:1 and so on.")
    trt, cupy, number = _import(name), _import_cupy(name), found[1]
    return TensorRTBackend(name, trt, cupy, _gpu(cupy, name, int(number) if number else None))


class _Gpu(NamedTuple):
    number: int
    name: str
    capability: str


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise BackendUnavailableError(
            f'backend {name} cannot be imported ({error}); install it with `pip install "amodal[{_EXTRAS[name]}]"`.'
        ) from error


def _import_cupy(name: str) -> Any:
    try:
        return import_module("cupy")
    except ImportError as error:
        raise BackendUnavailableError(
            f"backend {name} needs CuPy, which cannot be imported ({error}); install it with "
            f'`pip install "amodal[{_EXTRAS[name]}]"`.'
        ) from error


def _gpu(cupy: Any, name: str, index: int | None) -> _Gpu:
    try:
        count = int(cupy.cuda.runtime.getDeviceCount())
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BackendUnavailableError(f"backend {name} finds no GPU ({reason}).") from error
    chosen = int(cupy.cuda.Device().id) if index is None and count else index or 0
    if chosen >= count:
        raise BackendUnavailableError(f"backend {name} has no GPU {chosen}; {count} are here.")
    properties = cupy.cuda.runtime.getDeviceProperties(chosen)
    found = properties["name"]
    label = found.decode() if isinstance(found, bytes) else str(found)
    return _Gpu(chosen, label, str(cupy.cuda.Device(chosen).compute_capability))


class TensorRTBackend:
    """Runs engines on one GPU; see `Backend`.

    Everything is queued on CuPy's current stream of the calling thread, so that a caller's stream and context are
    honoured, and nothing waits for the device: a result is there when that stream says so. All engines share one
    scratch, since no two run at once on a stream.
    """

    lanes = 1

    def __init__(self, name: str, trt: Any, cupy: Any, gpu: _Gpu) -> None:
        self.name, self.xp = name, cupy
        self._trt, self._gpu = trt, gpu
        self._log = _log(trt)
        self._runtime: Any = trt.Runtime(self._log)
        self._scratch = _Scratch(cupy)
        self.engines = EngineNeeds(str(trt.__version__), f"sm{gpu.capability}")

    def load(self, entry: ComponentEntry, files: list[Path], lanes: int = 1) -> Executable:
        """See `Backend.load`; `files` is the engine alone."""
        file = files[0]
        with self.xp.cuda.Device(self._gpu.number), open(file, "rb") as source:
            self._log.errors.clear()
            # Mapped: the file need not lie in host memory beside the device's copy.
            with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as content:
                engine = self._runtime.deserialize_cuda_engine(content)
            if engine is None:
                raise EngineCorruptError(
                    f"{self.name} {self.engines.version} cannot load the engine {file} on this "
                    f"{self._gpu.name} ({self._log.last()}); build it again with `amodal build`."
                )
            return _Engine(self, engine, entry, file)

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        """See `Backend.to_host`; waits for the stream."""
        return np.asarray(self.xp.asnumpy(array))

    def describe(self) -> dict[str, str]:
        """See `Backend.describe`."""
        runtime = self.xp.cuda.runtime
        return {
            "name": self.name,
            "version": self.engines.version,
            "gpu": self._gpu.name,
            "capability": f"sm{self._gpu.capability}",
            "cuda_driver": str(runtime.driverGetVersion()),
            "cuda_runtime": str(runtime.runtimeGetVersion()),
        }


class _Scratch:
    """One allocation for the activations of all engines that are loaded, as large as the largest needs."""

    def __init__(self, cupy: Any) -> None:
        self._cupy, self._needs = cupy, list[int]()
        self._memory: Any = None
        self._size = 0

    def reserve(self, size: int) -> None:
        self._needs.append(size)
        if size > self._size:
            self._memory = None  # before the larger one is there: never both
            self._memory = self._cupy.cuda.alloc(size + _ALIGNMENT)
            self._size = size

    def release(self, size: int) -> None:
        self._needs.remove(size)
        if not self._needs:
            self._memory, self._size = None, 0

    @property
    def address(self) -> tuple[int, int]:
        """Pointer, aligned, and size."""
        pointer = int(self._memory.ptr) if self._memory is not None else 0
        return -(-pointer // _ALIGNMENT) * _ALIGNMENT, self._size


class _Profile(NamedTuple):
    """An engine's context for one set of shapes: (smallest, largest) of each input."""

    context: Any
    limits: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]


class _Engine:
    def __init__(self, backend: TensorRTBackend, engine: Any, entry: ComponentEntry, file: Path) -> None:
        trt = backend._trt
        self._backend, self._entry, self._file = backend, entry, file
        self._engine: Any = engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self._inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        self._outputs = [n for n in names if n not in self._inputs]
        self._cache: Any = None
        self._config = self._configured()
        self._size = int(engine.device_memory_size_v2)
        backend._scratch.reserve(self._size)
        self._profiles = [self._profile(i) for i in range(engine.num_optimization_profiles)]

    def _configured(self) -> Any:
        """TensorRT for RTX's settings: activations in our scratch, CUDA graphs, kernels compiled once and kept."""
        trt, engine = self._backend._trt, self._engine
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not hasattr(engine, "create_runtime_config"):
            return strategy
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        if hasattr(trt, "CudaGraphStrategy"):
            config.cuda_graph_strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        if hasattr(config, "create_runtime_cache"):
            self._cache = config.create_runtime_cache()
            with suppress(OSError):
                self._cache.deserialize(self._cache_file.read_bytes())
            config.set_runtime_cache(self._cache)
        return config

    @property
    def _cache_file(self) -> Path:
        return self._file.with_suffix(_CACHE)

    def _profile(self, index: int) -> _Profile:
        engine, stream = self._engine, self._backend.xp.cuda.get_current_stream()
        context = engine.create_execution_context(self._config)
        if context is None:
            raise BackendError(
                f"{self._backend.name} cannot make a context for {self._entry.kind} ({self._backend._log.last()})."
            )
        if engine.num_optimization_profiles > 1:
            context.set_optimization_profile_async(index, stream.ptr)
        limits = {}
        for name in self._inputs:
            shape = tuple(engine.get_tensor_shape(name))
            low, high = shape, shape
            if -1 in shape:
                low, _, high = engine.get_tensor_profile_shape(name, index)
            limits[name] = (tuple(low), tuple(high))
        return _Profile(context, limits)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        backend = self._backend
        if self._engine is None:
            raise BackendError(f"component {self._entry.kind} was closed; load the bundle again.")
        xp = backend.xp
        arrays = {n: xp.ascontiguousarray(xp.asarray(inputs[n], dtype=np.float32)) for n in self._inputs}
        context = self._context(arrays)
        stream = xp.cuda.get_current_stream()
        for name, array in arrays.items():
            context.set_input_shape(name, array.shape)
            context.set_tensor_address(name, int(array.data.ptr))
        results = {n: xp.empty(tuple(context.get_tensor_shape(n)), np.float32) for n in self._outputs}
        for name, array in results.items():
            context.set_tensor_address(name, int(array.data.ptr))
        context.set_device_memory(*backend._scratch.address)
        backend._log.errors.clear()
        if not context.execute_async_v3(stream.ptr):
            raise BackendError(f"{backend.name} failed in component {self._entry.kind}: {backend._log.last()}")
        return results

    def _context(self, arrays: Mapping[str, Any]) -> Any:
        for profile in self._profiles:
            if all(_within(arrays[n].shape, *limits) for n, limits in profile.limits.items()):
                return profile.context
        shapes = ", ".join(f"{n} {list(a.shape)}" for n, a in arrays.items())
        raise BackendError(
            f"the engine of {self._entry.kind} does not take these shapes ({shapes}); build it again with `amodal "
            "build`, from a bundle exported for them."
        )

    def map(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [self(inputs) for inputs in batches]

    def close(self) -> None:
        if self._engine is None:
            return
        self._backend.xp.cuda.get_current_stream().synchronize()
        self._keep_cache()
        self._profiles, self._config, self._cache, self._engine = [], None, None, None
        self._backend._scratch.release(self._size)

    def _keep_cache(self) -> None:
        """Writes the kernels that were compiled on this GPU beside the engine; where that may not be, they go."""
        if self._cache is None:
            return
        part = self._cache_file.with_name(f"{self._cache_file.name}.{os.getpid()}")
        with suppress(OSError):
            content = bytes(self._cache.serialize())
            if not self._cache_file.exists() or self._cache_file.stat().st_size != len(content):
                part.write_bytes(content)
                os.replace(part, self._cache_file)


def _within(shape: tuple[int, ...], low: tuple[int, ...], high: tuple[int, ...]) -> bool:
    return len(shape) == len(low) and all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))


def _log(trt: Any) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self._bad = {int(trt.ILogger.Severity.ERROR), int(trt.ILogger.Severity.INTERNAL_ERROR)}

        def log(self, severity: Any, message: str) -> None:
            if int(severity) in self._bad:
                self.errors.append(" ".join(message.split()))

        def last(self) -> str:
            return self.errors[-1] if self.errors else "no reason given"

    return Log()
