"""ONNX Runtime on a GPU: backend `onnxruntime` with `device="cuda"`. Arrays are CuPy's and stay on the device."""

from __future__ import annotations

import ctypes
import io
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, redirect_stdout, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...bundle.manifest import ComponentEntry
from ...errors import BackendUnavailableError, BundleCorruptError, InputError, MemoryBudgetError, first_line
from .. import Availability, EngineNeeds, Executable
from ..gpu import Gpu, cuda_version, device_number, explained, find_gpu, import_cupy, out_of_memory
from .bound import ALONE, BoundSession, Place, is_out_of_memory, reason_of
from .cpu import import_onnxruntime, installed_distributions

_NAME, _PROVIDER = "onnxruntime", "CUDAExecutionProvider"
_INSTALL = 'uninstall them, then `pip install "amodal[cuda]"`'
# y = x, of one float: ONNX Runtime says whether a provider works only when a session is made.
_PROBE = (
    b'\x08\x08:7\n\x10\n\x01x\x12\x01y"\x08Identity\x12\x01pZ\x0f\n\x01x\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01'
    b"b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x04\n\x00\x10\r"
)


@dataclass(frozen=True)
class CudaOptions:
    """How the CUDA provider runs; the defaults are what is right where nothing was measured.

    Attributes:
        cuda_graph: replay the U-Net's step as one CUDA graph. Other components run a few times a clip, and give their
            activations back afterwards, which a graph could not.
        nhwc: convolutions in half precision with channels last, which is what their tensor-core kernels read.
        tf32: round float32 products to TF32. The components in float32 are those that need it.
        conv_search: how cuDNN's algorithms are chosen. `EXHAUSTIVE` times them, and may choose otherwise each time.
        attention: ONNX Runtime's `sdpa_kernel`, a sum of 1 (Flash), 2 (memory efficient), 8 (cuDNN's Flash, for
            `MultiHeadAttention` alone) and 16 (not fused); 0 leaves it the choice.
    """

    cuda_graph: bool = True
    nhwc: bool = True
    tf32: bool = False
    conv_search: str = "HEURISTIC"
    attention: int = 0


def availability(device: str = "cuda") -> Availability:
    """Whether ONNX Runtime's CUDA provider works here: a session is made on it."""
    try:
        ort = import_cuda()
        cupy = import_cupy(_NAME, "cuda")
        gpu = find_gpu(cupy, _NAME, device_number(_NAME, device))
        with cupy.cuda.Device(gpu.number):
            bool((cupy.zeros(1) + 1).all())  # a kernel: without NVRTC, CuPy finds out here
            _session(ort, _PROBE, {"device_id": str(gpu.number)}, gpu)
    except BackendUnavailableError as error:
        return Availability(False, "", str(error))
    except Exception as error:  # noqa: BLE001 (whatever the driver says, it is why this device is not usable)
        return Availability(False, "", f"backend {_NAME} cannot use the GPU here ({reason_of(error)}).")
    return Availability(True, f"{_NAME} {ort.__version__}, {_PROVIDER}, on {gpu.name} (sm{gpu.capability})")


def create(*, device: str | None, threads: int | None, vram: int | None = None) -> OnnxRuntimeCudaBackend:
    """Makes the backend; see `amodal.runtime.backends.create`."""
    if threads is not None:
        raise InputError('`threads` is for a CPU; leave it out with `device="cuda"`.', field="threads")
    number = device_number(_NAME, device)
    ort, cupy = import_cuda(), import_cupy(_NAME, "cuda")
    return OnnxRuntimeCudaBackend(ort, cupy, find_gpu(cupy, _NAME, number), vram=vram)


def import_cuda() -> Any:
    """ONNX Runtime with a CUDA provider, and with the libraries of CUDA that pip installed beside it.

    Raises:
        BackendUnavailableError: it is not there, or is built for the CPU.
    """
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
    with suppress(Exception), redirect_stdout(io.StringIO()):  # it prints what it does not find, to standard output
        ort.preload_dlls()
    return ort


def _session(ort: Any, model: bytes | str, options: Mapping[str, str], gpu: Gpu, settings: Any = None) -> Any:
    """A session on the CUDA provider, or an error: ONNX Runtime would go on with the CPU and say so in its log."""
    settings = settings or ort.SessionOptions()
    settings.log_severity_level = 4
    providers = [(_PROVIDER, dict(options)), "CPUExecutionProvider"]
    ort.set_default_logger_severity(4)  # what it would log is in the error
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


def _reason(ort: Any) -> str:
    """Why the provider's library was not loaded, which ONNX Runtime tells its log alone.

    It may be tried here because ONNX Runtime has tried before: the library expects what it was given by then.
    """
    library = Path(ort.__file__).parent / "capi" / "libonnxruntime_providers_cuda.so"
    try:
        ctypes.CDLL(str(library))
    except OSError as error:
        return first_line(error)
    return "no reason given"


class OnnxRuntimeCudaBackend:
    """Runs graphs with ONNX Runtime's CUDA provider; see `Backend`.

    Everything is queued on one stream of the backend's own, since a session's stream is fixed when it is made. Inside
    `active` that one waits for the caller's, and afterwards the caller's for it. Nothing waits for the device: a
    result is there when the stream says so.

    Args:
        vram: the most GPU memory to take, in bytes; None for no limit. Weights are counted before a component is
            loaded; activations are limited in each component to what the weights leave.
        place: where sessions run.
    """

    name = _NAME
    lanes = 1
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
        self.xp, self.options = cupy, options or CudaOptions()
        self._ort, self._gpu, self._vram = ort, gpu, vram
        self._place = place or Place(_PROVIDER, "cuda", gpu.number, f"gpu:{gpu.number}")
        self._weights: dict[int, int] = {}  # bytes, by session
        self._notes: dict[str, str] = {}
        with cupy.cuda.Device(gpu.number):
            self._stream: Any = cupy.cuda.Stream(non_blocking=True)

    @contextmanager
    def active(self) -> Iterator[None]:
        """See `Backend.active`: this GPU is the current one, and the backend's stream."""
        cuda = self.xp.cuda
        with cuda.Device(self._gpu.number), ExitStack() as inside:
            outside = cuda.get_current_stream()
            with explained(self.name, self._gpu):
                if outside.ptr != self._stream.ptr:
                    self._stream.wait_event(outside.record())
                    inside.enter_context(self._stream)
                yield
                if outside.ptr != self._stream.ptr:
                    outside.wait_event(self._stream.record())

    def load(self, entry: ComponentEntry, files: list[Path], lanes: int = 1) -> Executable:
        """See `Backend.load`."""
        weights = sum(file.stat().st_size for file in files)
        self._free()
        limit = self._room(entry.kind, weights)
        graph = self.options.cuda_graph and entry.kind == "unet"
        wish = self._provider_options(entry, graph, limit)
        try:
            with ALONE:
                session, graph = self._open(files[0], wish, graph)
        except BackendUnavailableError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise MemoryBudgetError(out_of_memory(self._gpu, reason_of(error))) from error
            raise BundleCorruptError(
                f"onnxruntime cannot load {files[0]} on the {self._gpu.name}: {reason_of(error)}; update onnxruntime, "
                "or export the bundle again."
            ) from error
        bound = BoundSession(self._ort, session, entry.kind, self.xp, self._place, self._gpu, graph, self._closed)
        self._weights[id(bound)] = weights
        return bound

    def _open(self, file: Path, options: dict[str, str], graph: bool) -> tuple[Any, bool]:
        """A session; without a CUDA graph where ONNX Runtime would have to run a part of it on the CPU."""
        settings = self._ort.SessionOptions()
        # Weights outside the arena, so that what an arena gives back is all of its activations.
        settings.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        if self._place.provider != _PROVIDER:
            providers = [self._place.provider]
            return self._ort.InferenceSession(str(file), settings, providers=providers), graph
        try:
            return _session(self._ort, str(file), options, self._gpu, settings), graph
        except BackendUnavailableError:
            raise
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
            "use_tf32": int(self.options.tf32),
            "sdpa_kernel": self.options.attention,
        }
        if limit is not None:
            chosen["gpu_mem_limit"] = limit
        return {name: str(value) for name, value in chosen.items()}

    def _room(self, kind: str, weights: int) -> int | None:
        """Bytes that a component's activations may take; None for no limit.

        Raises:
            MemoryBudgetError: its weights alone do not fit.
        """
        left, allowed = int(self.xp.cuda.runtime.memGetInfo()[0]), "free"
        if self._vram is not None and self._vram - sum(self._weights.values()) < left:
            left = self._vram - sum(self._weights.values())
            allowed = f"left of the {self._vram / 1e9:g} GB allowed (`vram`)"
        if weights >= left:
            raise MemoryBudgetError(
                f"component {kind} needs {weights / 1e6:.1f} MB of GPU memory for its weights alone, and "
                f"{max(left, 0) / 1e6:.1f} MB are {allowed} on the {self._gpu.name}; close other programs, allow more, "
                'or run with `memory="sequential"`.'
            )
        return None if self._vram is None else left - weights

    def _closed(self, session: BoundSession) -> None:
        self._weights.pop(id(session), None)

    def _free(self) -> None:
        """Gives back what CuPy's pool keeps of arrays that are gone: ONNX Runtime's arenas cannot use it."""
        self.xp.cuda.get_current_stream().synchronize()
        self.xp.get_default_memory_pool().free_all_blocks()

    def to_host(self, array: Any) -> np.ndarray[Any, Any]:
        """See `Backend.to_host`; waits for the stream."""
        with explained(self.name, self._gpu):
            return np.asarray(self.xp.asnumpy(array))

    def free_memory(self) -> int:
        """See `Backend.free_memory`."""
        with explained(self.name, self._gpu), self.xp.cuda.Device(self._gpu.number):
            self._free()
            return int(self.xp.cuda.runtime.memGetInfo()[0])

    def describe(self) -> dict[str, str]:
        """See `Backend.describe`."""
        runtime = self.xp.cuda.runtime
        return {
            "name": self.name,
            "version": str(self._ort.__version__),
            "provider": self._place.provider,
            "device": f"cuda:{self._gpu.number}",
            "gpu": self._gpu.name,
            "capability": f"sm{self._gpu.capability}",
            "cuda_driver": cuda_version(int(runtime.driverGetVersion())),
            "cuda_runtime": cuda_version(int(runtime.runtimeGetVersion())),
            **{name: str(value) for name, value in asdict(self.options).items()},
            **self._notes,
        }
