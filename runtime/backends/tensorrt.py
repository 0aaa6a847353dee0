"""TensorRT for RTX and TensorRT on a GPU. Arrays are CuPy's and stay on the device."""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle.manifest import ComponentEntry
from ..errors import (
    AmodalError,
    BackendError,
    BackendUnavailableError,
    EngineCorruptError,
    EngineStaleError,
    MemoryBudgetError,
)
from .backend import EngineNeeds, Executable, import_library
from .gpu import Gpu, GpuBackend, aligned, driver_for, gpu_number, open_gpu, out_of_memory, try_kernel
from .repeated import Repeated
from .scratch import Scratch

Shape = tuple[int, ...]

_EXTRAS = {"tensorrt_rtx": "rtx", "tensorrt": "tensorrt"}
_CACHE = ".runtime_cache"
_OUT_OF_MEMORY = (
    *("out of memory", "outofmemory", "out_of_memory", "bad_alloc", "cannot allocate", "could not be allocated"),
    *("failed to allocate", "not be enough free memory", "insufficient memory"),
)


def probe(name: str, device: str | None) -> str:
    """Describes the library and the GPU; see `amodal.runtime.backends.registry.availability`."""
    trt, (cupy, gpu) = import_tensorrt(name), open_gpu(name, _EXTRAS[name], device)
    try_kernel(cupy, gpu)
    return f"{name} {trt.__version__} on {gpu.name} (sm{gpu.capability})"


def create(name: str, *, device: str | None, threads: int | None) -> TensorRTBackend:
    """Creates the backend; see `amodal.runtime.backends.create`."""
    gpu_number(name, device, threads)  # as for ONNX Runtime on a GPU: before what is not installed
    return TensorRTBackend(name, import_tensorrt(name), *open_gpu(name, _EXTRAS[name], device))


def import_tensorrt(name: str) -> Any:
    """Imports the library of `tensorrt_rtx` or `tensorrt`; see `import_library`."""
    return import_library(name, _EXTRAS[name], f"backend {name}")


class TensorRTBackend(GpuBackend):
    """Runs engines on one GPU; see `Backend`.

    Work is queued on the caller's stream, unless that is CUDA's default stream, which cannot be captured and makes
    TensorRT wait at each call. Engines never run concurrently, so all share one scratch.

    Args:
        cuda_graph: launch repeated calls with the same shapes as one CUDA graph.
    """

    def __init__(self, name: str, trt: Any, cupy: Any, gpu: Gpu, cuda_graph: bool = True) -> None:
        super().__init__(name, cupy, gpu)
        self.cuda_graph, self._trt = cuda_graph, trt
        self._log = log_class(trt)()
        self._runtime: Any = trt.Runtime(self._log)
        self._scratch = Scratch(self)
        self.engines = EngineNeeds(str(trt.__version__), f"sm{gpu.capability}")

    def _replaces(self, stream: Any) -> bool:
        return not stream.ptr

    def load(self, entry: ComponentEntry, files: list[Path], lanes: int = 1) -> Executable:
        """See `Backend.load`; `files` is the engine alone."""
        file = files[0]
        self.empty_pool()
        with open(file, "rb") as source:
            self._log.errors.clear()
            # Mapped, so that host memory holds no copy beside the device's.
            with mmap.mmap(source.fileno(), 0, access=mmap.ACCESS_READ) as content:
                engine = self._runtime.deserialize_cuda_engine(content)
                if engine is None:
                    raise self._refusal(file, content)
            return _Engine(self, engine, entry, file)

    def _refusal(self, file: Path, content: Any) -> AmodalError:
        """Returns the error for an engine that could not be loaded."""
        gpu, library = f"{self._gpu.name} ({self.engines.target})", f"{self.name} {self.engines.version}"
        logged, why = self._log.last(), self._faults(content)
        if self._log.out_of_memory() or "INSUFFICIENT_GPU_MEMORY" in why:
            return MemoryBudgetError(
                f"GPU memory ran out while the engine {file} was loaded ({logged}): its file has "
                f"{file.stat().st_size / 1e6:.1f} MB, and {self.free_memory() / 1e6:.1f} MB are free on the {gpu}; "
                'close other programs, or run with `memory="sequential"`, or `memory="auto"` and a `vram` that is free.'
            )
        if "UNSUPPORTED_CC" in why:
            return EngineStaleError(
                f"the engine {file} was built for other GPUs than this {gpu}; build it again with `amodal build "
                f"--backend {self.name} --target {self.engines.target}`."
            )
        if "OLD_CUDA_DRIVER" in why:
            return BackendUnavailableError(
                f"{library} needs a newer driver than this {gpu} has; update the NVIDIA driver{driver_for(self.xp)}."
            )
        return EngineCorruptError(
            f"{library} cannot load the engine {file} on this {gpu} ({logged}); build it again with `amodal build`."
        )

    def _faults(self, content: Any) -> list[str]:
        """Returns TensorRT for RTX's names for what is wrong with an engine; TensorRT offers no such query."""
        if not hasattr(self._runtime, "get_engine_validity"):
            return []
        _, found = self._runtime.get_engine_validity(content)
        known = self._trt.EngineInvalidityDiagnostics.__members__
        return [name for name, flag in known.items() if int(flag) & int(found)]

    def reserve_activations(self, size: int) -> None:
        """See `Backend.reserve_activations`."""
        self._scratch.least = size

    def describe(self) -> dict[str, str]:
        """See `Backend.describe`."""
        about = {"name": self.name, "version": self.engines.version, **self._describe_gpu()}
        return {**about, "cuda_graph": str(self.cuda_graph)}


class _Shaped:
    """An execution context, the shapes that it is set to, and the bytes that its activations take for them."""

    def __init__(self, context: Any) -> None:
        self.context = context
        self.shapes: dict[str, Shape] = {}
        self.size = 0


class _Engine(Executable):
    def __init__(self, backend: TensorRTBackend, engine: Any, entry: ComponentEntry, file: Path) -> None:
        trt = backend._trt
        self._backend, self._entry, self._file = backend, entry, file
        self._engine: Any = engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self._inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        self._outputs = [n for n in names if n not in self._inputs]
        self._cache: Any = None
        self._captures = hasattr(trt, "CudaGraphStrategy")  # whether the library captures CUDA graphs itself
        self._repeated: dict[tuple[Shape, ...], Repeated] = {}
        self._config = self._configured()
        # By profile: the (smallest, largest) shape of each input that it accepts.
        self._limits = [self._limits_of(i) for i in range(engine.num_optimization_profiles)]
        self._contexts: dict[int, _Shaped] = {}  # by profile, made when first used: each compiles its kernels

    def _configured(self) -> Any:
        """Returns a context's settings: external scratch; with TensorRT for RTX also how it compiles and launches."""
        trt, engine = self._backend._trt, self._engine
        strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
        if not hasattr(engine, "create_runtime_config"):
            return strategy
        config = engine.create_runtime_config()
        config.set_execution_context_allocation_strategy(strategy)
        if hasattr(config, "dynamic_shapes_kernel_specialization_strategy"):
            # By default, other kernels run until those for a shape are compiled in the background: the bits of a
            # result would depend on when that ends, and warming up would not end it.
            config.dynamic_shapes_kernel_specialization_strategy = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        if self._captures and self._backend.cuda_graph:
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

    def _limits_of(self, index: int) -> dict[str, tuple[Shape, Shape]]:
        limits = {}
        for name in self._inputs:
            low = high = self._engine.get_tensor_shape(name)
            if -1 in tuple(low):
                low, _, high = self._engine.get_tensor_profile_shape(name, index)
            limits[name] = (tuple(low), tuple(high))
        return limits

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if self._engine is None:
            raise BackendError(f"component {self._entry.kind} was closed; load the bundle again.")
        xp = self._backend.xp
        arrays = {name: aligned(xp, inputs[name], np.float32) for name in self._inputs}
        if not self._entry.repeated:
            return self._run(arrays)
        shapes = tuple(array.shape for array in arrays.values())
        if shapes not in self._repeated:
            graph = self._backend.cuda_graph and not self._captures
            self._repeated[shapes] = Repeated(xp, self._run, arrays, graph=graph)
        return self._repeated[shapes](arrays, self._backend._scratch.address)

    def _run(self, arrays: Mapping[str, Any], results: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Queues a run that writes to `results`, or to new arrays."""
        backend, xp = self._backend, self._backend.xp
        log = backend._log
        log.errors.clear()
        shaped = self._shaped({name: tuple(array.shape) for name, array in arrays.items()})
        context = shaped.context
        backend._scratch.reserve(id(self), shaped.size)
        if shaped.size:
            context.set_device_memory(*backend._scratch.address)
        if results is None:
            results = {n: xp.empty(tuple(context.get_tensor_shape(n)), np.float32) for n in self._outputs}
        for name, array in (*arrays.items(), *results.items()):
            context.set_tensor_address(name, int(array.data.ptr))
        # Memory that is too small is only logged: the run is queued all the same, and its results are wrong.
        if not context.execute_async_v3(xp.cuda.get_current_stream().ptr) or log.errors:
            raise self._failure("failed in component")
        return dict(results)

    def _shaped(self, shapes: dict[str, Shape]) -> _Shaped:
        """Returns the context for inputs of these shapes, set to them."""
        shaped = self._context(self._profile_for(shapes))
        if shaped.shapes == shapes:
            return shaped
        shaped.shapes, context = {}, shaped.context  # none, so that a failure below leaves nothing half set
        accepted = [context.set_input_shape(name, shape) for name, shape in shapes.items()]
        # Any other shape makes the context forget what it needs; until asked again, it wants the profile's most.
        shaped.size = int(context.update_device_memory_size_for_shapes())
        if self._backend._log.errors or not all(accepted):
            raise self._failure("cannot set the shapes of")
        shaped.shapes = shapes
        return shaped

    def _context(self, index: int) -> _Shaped:
        """Returns the context of a profile, made when it is first used."""
        if index not in self._contexts:
            context = self._engine.create_execution_context(self._config)
            if context is None:
                raise self._failure("cannot make a context for")
            if len(self._limits) > 1:
                stream = self._backend.xp.cuda.get_current_stream()
                if not context.set_optimization_profile_async(index, stream.ptr):
                    raise self._failure("cannot choose the shapes of")
            self._contexts[index] = _Shaped(context)
            self._backend._log.errors.clear()  # it was made, whatever the library had to say
        return self._contexts[index]

    def _profile_for(self, shapes: Mapping[str, Shape]) -> int:
        """Returns the first profile that accepts these shapes."""
        for index, limits in enumerate(self._limits):
            if all(_within(shapes[name], *sizes) for name, sizes in limits.items()):
                return index
        said = ", ".join(f"{name} {list(shape)}" for name, shape in shapes.items())
        raise BackendError(
            f"the engine of {self._entry.kind} does not take these shapes ({said}); build it again with `amodal "
            "build`, from a bundle exported for them."
        )

    def _failure(self, what: str) -> AmodalError:
        """Returns the error for what TensorRT logged last."""
        backend, kind = self._backend, self._entry.kind
        if backend._log.out_of_memory():
            return MemoryBudgetError(out_of_memory(backend._gpu, f"component {kind}: {backend._log.last()}"))
        return BackendError(f"{backend.name} {what} {kind}: {backend._log.last()}")

    def close(self) -> None:
        if self._engine is None:
            return
        with suppress(Exception):  # must not hide a device failure that is already being raised
            self._backend.xp.cuda.get_current_stream().synchronize()
            self._keep_cache()
        self._repeated = {}
        self._contexts, self._config, self._cache, self._engine = {}, None, None, None
        self._backend._scratch.release(id(self))

    def _keep_cache(self) -> None:
        """Saves the kernels compiled on this GPU beside the engine if its folder is writable."""
        if self._cache is None:
            return
        part = self._cache_file.with_name(f"{self._cache_file.name}.{os.getpid()}")
        with suppress(OSError):
            content = bytes(self._cache.serialize())
            # A cache of another driver or version was refused at load; this replaces it.
            if not self._cache_file.exists() or self._cache_file.read_bytes() != content:
                part.write_bytes(content)
                os.replace(part, self._cache_file)


def _within(shape: Shape, low: Shape, high: Shape) -> bool:
    return len(shape) == len(low) and all(a <= n <= b for a, n, b in zip(low, shape, high, strict=True))


def log_class(trt: Any) -> Any:
    """Returns a class of TensorRT loggers that keep errors."""

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.errors: list[str] = []
            self._bad = {int(trt.ILogger.Severity.ERROR), int(trt.ILogger.Severity.INTERNAL_ERROR)}

        def log(self, severity: Any, message: str) -> None:
            if int(severity) in self._bad:
                self.errors.append(message.strip())

        def last(self) -> str:
            return " ".join(self.errors[-1].split()) if self.errors else "no reason given"

        def out_of_memory(self) -> bool:
            return any(word in error.lower() for error in self.errors for word in _OUT_OF_MEMORY)

    return Log
