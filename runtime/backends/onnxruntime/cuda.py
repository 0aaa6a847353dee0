"""ONNX Runtime on a GPU: backend `onnxruntime` with `device="cuda"`. Arrays are CuPy's and stay on the device."""

from __future__ import annotations

import ctypes
import io
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stdout, suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...bundle.manifest import ComponentEntry
from ...errors import BackendError, BackendUnavailableError, BundleCorruptError, MemoryBudgetError, first_line
from ..backend import EngineNeeds, Executable
from ..gpu import Gpu, GpuBackend, cuda_version, gpu_number, open_gpu, out_of_memory, try_kernel
from .bound import ALLOCATION_LOCK, BoundSession, BoundSettings, Place, is_out_of_memory, reason_of
from .kernels import fused_file
from .library import OLDEST_FOR_CUDA, import_onnxruntime, installed_distributions, release

_NAME, _PROVIDER = "onnxruntime", "CUDAExecutionProvider"
# The graph y = x of one float: only creating a session shows whether a provider works.
_PROBE = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01pZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


# ONNX Runtime computes sizes on the CPU, where they are needed: no copies come of it.
_OF_SIZES = frozenset(
    ("Add", "Cast", "Concat", "Div", "Gather", "Mul", "Shape", "Slice", "Squeeze", "Sub", "Unsqueeze")
)


@dataclass(frozen=True)
class CudaOptions:
    """Settings of the CUDA provider.

    Attributes:
        cuda_graph: replay the U-Net's step as one CUDA graph. Other components run a few times per clip and then free
            their activations, which a graph could not.
        nhwc: run half-precision convolutions with channels last, the layout of tensor-core kernels.
        fuse_bias: have cuDNN add biases inside convolutions, which it compiles kernels for, instead of after them.
        tf32: round float32 products to TF32. Components in float32 are those that need its accuracy.
        conv_search: how cuDNN's algorithms are chosen. `EXHAUSTIVE` times them, and may choose differently each time.
        attention: ONNX Runtime's `sdpa_kernel`, a sum of 1 (Flash), 2 (memory efficient), 8 (cuDNN's Flash, for
            `MultiHeadAttention` alone) and 16 (not fused); 0 lets it choose.
    """

    cuda_graph: bool = True
    nhwc: bool = True
    fuse_bias: bool = False
    tf32: bool = False
    conv_search: str = "HEURISTIC"
    attention: int = 0


def probe(device: str | None) -> str:
    """Describes ONNX Runtime's CUDA provider here, after creating a session on it."""
    ort, (cupy, gpu) = import_cuda(), open_gpu(_NAME, "cuda", device)
    _require_driver(ort, cupy)
    try_kernel(cupy, gpu)
    with cupy.cuda.Device(gpu.number):
        try:
            _session(ort, _PROBE, {"device_id": str(gpu.number)}, gpu)
        except BackendUnavailableError:
            raise
        except Exception as error:
            raise BackendUnavailableError(f"backend {_NAME} cannot use the GPU here ({reason_of(error)}).") from error
    return f"{_NAME} {ort.__version__}, {_PROVIDER}, on {gpu.name} (sm{gpu.capability})"


def create(*, device: str | None, threads: int | None, vram: int | None = None) -> OnnxRuntimeCudaBackend:
    """Creates the backend; see `amodal.runtime.backends.create`."""
    gpu_number(_NAME, device, threads)  # what is wrong with the arguments is said before what is not installed
    ort, (cupy, gpu) = import_cuda(), open_gpu(_NAME, "cuda", device)
    _require_driver(ort, cupy)
    return OnnxRuntimeCudaBackend(ort, cupy, gpu, vram=vram)


def import_cuda() -> Any:
    """Imports ONNX Runtime with its CUDA provider, and loads the CUDA libraries that pip installed with it."""
    ort = import_onnxruntime("cuda")
    if _PROVIDER not in ort.get_available_providers():
        distributions = installed_distributions()
        if len(distributions) > 1:
            why = f"{' and '.join(distributions)} are installed over each other; uninstall all of them"
        else:
            why = f"{' '.join(distributions) or 'this build'} is for the CPU; uninstall it"
        raise BackendUnavailableError(
            f'onnxruntime {ort.__version__} has no CUDA provider: {why}, then `pip install "amodal[cuda]"`.'
        )
    if release(ort.__version__) < release(OLDEST_FOR_CUDA):
        raise BackendUnavailableError(
            f"onnxruntime-gpu {ort.__version__} is too old: before {OLDEST_FOR_CUDA}, CUDA graphs could replay wrong "
            'values, and operators were missing; `pip install --upgrade "amodal[cuda]"`.'
        )
    with suppress(Exception), redirect_stdout(io.StringIO()):  # it prints missing libraries to standard output
        ort.preload_dlls()
    return ort


def _require_driver(ort: Any, cupy: Any) -> None:
    """Raises BackendUnavailableError if the driver is older than ONNX Runtime's CUDA; CuPy's may be older still."""
    major = str(getattr(ort, "cuda_version", "")).partition(".")[0]
    driver, needed = int(cupy.cuda.runtime.driverGetVersion()), 1000 * int(major or 0)
    if driver < needed:
        raise BackendUnavailableError(
            f"backend {_NAME} cannot use the GPU: its driver is too old (it supports CUDA {cuda_version(driver)}, "
            f"onnxruntime-gpu {ort.__version__} needs {ort.cuda_version}); update the NVIDIA driver, for CUDA 13 to "
            "580 or later."
        )


def _session(ort: Any, model: bytes | str, options: Mapping[str, str], gpu: Gpu, settings: Any = None) -> Any:
    """Creates a session on the CUDA provider, or raises where ONNX Runtime would log and fall back to the CPU."""
    settings = settings or ort.SessionOptions()
    settings.log_severity_level = 4
    providers = [(_PROVIDER, dict(options)), "CPUExecutionProvider"]
    ort.set_default_logger_severity(4)  # the error repeats what it would log
    try:
        session = ort.InferenceSession(model, settings, providers=providers, enable_fallback=0)
    finally:
        ort.set_default_logger_severity(2)
    if _PROVIDER not in session.get_providers():
        needs = getattr(ort, "cuda_version", "") or "of its build"
        raise BackendUnavailableError(
            f"onnxruntime {ort.__version__} does not start its CUDA provider on the {gpu.name} ({_reason(ort)}); it "
            f'needs CUDA {needs} and cuDNN 9, which `pip install "amodal[cuda]"` brings.'
        )
    return session


def _listed(kinds: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def _reason(ort: Any) -> str:
    """Finds out why the provider's library could not be loaded, which ONNX Runtime only logs.

    Loading it again is safe only after ONNX Runtime has tried: the library expects to be set up by it.
    """
    library = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return first_line(error)
    return "no reason given"


class OnnxRuntimeCudaBackend(GpuBackend):
    """Runs graphs with ONNX Runtime's CUDA provider; see `Backend`.

    Work is always queued on the backend's own stream, since a session's stream is fixed at its creation.

    Args:
        vram: limit on GPU memory in bytes; None for none. Weights are counted before a component is loaded. A
            component, with its activations, may take what others leave; they hold weights, and what CUDA graphs keep.
        place: where sessions run; None for the GPU.
    """

    engines: EngineNeeds | None = None

    def __init__(
        self,
        ort: Any,
        cupy: Any,
        gpu: Gpu,
        options: CudaOptions | None = None,
        vram: int | None = None,
        place: Place | None = None,
    ) -> None:
        super().__init__(_NAME, cupy, gpu)
        self.options, self._ort, self._vram = options or CudaOptions(), ort, vram
        self._place = place or Place(_PROVIDER, "cuda", gpu.number, f"gpu:{gpu.number}")
        self._held: dict[object, int] = {}  # bytes of weights and of activations that are kept, by loaded component
        self._notes: dict[str, str] = {}

    def load(self, entry: ComponentEntry, files: list[Path], lanes: int = 1) -> Executable:
        """See `Backend.load`."""
        weights = sum(file.stat().st_size for file in files if file != fused_file(files[0]))
        with ALLOCATION_LOCK:
            self.empty_pool()
        limit = self._room(entry.kind, weights)
        graph = self.options.cuda_graph and entry.repeated
        wanted = self._provider_options(entry, graph, limit)
        try:
            with ALLOCATION_LOCK:
                session, graph = self._open(files[0], wanted, graph)
                self._require_kernels(session, entry.kind)
        except BackendError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise MemoryBudgetError(out_of_memory(self._gpu, reason_of(error))) from error
            raise BundleCorruptError(
                f"onnxruntime cannot load {files[0]} on the {self._gpu.name}: {reason_of(error)}; update onnxruntime, "
                "or export the bundle again."
            ) from error
        loaded = object()
        self._held[loaded] = weights

        def kept(size: int) -> None:
            self._held[loaded] += max(0, size)

        closed = partial(self._held.pop, loaded, None)
        settings = BoundSettings(entry.kind, self._place, self._gpu, graph, entry.repeated, kept, closed)
        return BoundSession(self._ort, session, self.xp, settings)

    def _require_kernels(self, session: Any, kind: str) -> None:
        """Counts the nodes that run on the CPU; raises BackendError if any does more there than computing sizes."""
        if self._place.provider != _PROVIDER:
            return
        parts = [p for p in session.get_provider_graph_assignment_info() if p.ep_name != _PROVIDER]
        found = Counter(node.op_type for part in parts for node in part.get_nodes())
        if found:
            self._notes[f"{kind}_nodes_on_cpu"] = _listed(found)
        if found := Counter({kind: n for kind, n in found.items() if kind not in _OF_SIZES}):
            raise BackendError(
                f"component {kind}: onnxruntime {self._ort.__version__} has no CUDA kernels for {_listed(found)}, and "
                "would run them on the CPU, with a copy each way; export the bundle again with "
                "`amodal export --variant cuda`."
            )

    def _open(self, file: Path, options: dict[str, str], graph: bool) -> tuple[Any, bool]:
        """Creates a session; without a CUDA graph if ONNX Runtime cannot record this one."""
        settings = self._ort.SessionOptions()
        # Keeps weights outside the arena, so that shrinking it frees all activations.
        settings.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        settings.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        # From the second run on, ONNX Runtime would place activations in a block of its own, beside those that the
        # first one left in the arena: 3.5 GB instead of 2 for the real U-Net.
        settings.enable_mem_pattern = False
        if self._place.provider != _PROVIDER:
            providers = [self._place.provider]
            return self._ort.InferenceSession(str(file), settings, providers=providers), graph
        try:
            return _session(self._ort, str(file), options, self._gpu, settings), graph
        except Exception as error:
            if not graph or "graph capture" not in str(error):
                raise
            self._notes["cuda_graph_refused"] = reason_of(error)
            return self._open(file, {**options, "enable_cuda_graph": "0"}, False)

    def _provider_options(self, entry: ComponentEntry, graph: bool, limit: int | None) -> dict[str, str]:
        chosen = {
            "device_id": self._gpu.number,
            "user_compute_stream": self._stream.ptr,
            "arena_extend_strategy": "kSameAsRequested",
            "cudnn_conv_algo_search": self.options.conv_search,
            "enable_cuda_graph": int(graph),
            "prefer_nhwc": int(self.options.nhwc and entry.precision == "fp16"),
            "fuse_conv_bias": int(self.options.fuse_bias),
            "use_tf32": int(self.options.tf32),
            "sdpa_kernel": self.options.attention,
        }
        if limit is not None:
            chosen["gpu_mem_limit"] = limit
        return {name: str(value) for name, value in chosen.items()}

    def _room(self, kind: str, weights: int) -> int | None:
        """Returns the bytes that a component may take, weights included as ONNX Runtime counts; None for no limit."""
        left, allowed = int(self.xp.cuda.runtime.memGetInfo()[0]), "free"
        if self._vram is not None and self._vram - sum(self._held.values()) < left:
            left = self._vram - sum(self._held.values())
            allowed = f"left of the {self._vram / 1e9:g} GB allowed (`vram`)"
        if weights >= left:
            raise MemoryBudgetError(
                f"component {kind} needs {weights / 1e6:.1f} MB of GPU memory for its weights alone, and "
                f"{max(left, 0) / 1e6:.1f} MB are {allowed} on the {self._gpu.name}; close other programs, allow more, "
                'or run with `memory="sequential"`.'
            )
        return None if self._vram is None else left

    def describe(self) -> dict[str, str]:
        """See `Backend.describe`."""
        return {
            "name": self.name,
            "version": str(self._ort.__version__),
            "provider": self._place.provider,
            **self._describe_gpu(),
            **{name: str(value) for name, value in asdict(self.options).items()},
            **self._notes,
        }
