"""OpenVINO on CPUs that multiply in bfloat16.

The image encoder, the U-Net and the VAE compute in bfloat16, with sums in float32. That includes the VAE's encoder:
diffusers upcasts it (`force_upcast`) only because float16 could overflow, and bfloat16 has float32's range. Components
that need float32 run in ONNX Runtime, which is faster there: `unet_conditioner`, whose sinusoids of up to 127 radians
bfloat16 would lose, and depth.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

from ..bundle.manifest import ComponentEntry
from ..errors import BackendUnavailableError, BundleCorruptError, first_line
from .backend import Backend, Executable, import_library
from .onnxruntime.cpu import LaneExecutable, Lanes, OnnxRuntimeBackend, check_host_options
from .onnxruntime.library import import_onnxruntime

# By default the plugin compiles groups of element-wise operators into kernels, which takes a quarter of the default
# U-Net's memory and saves no time. It also fuses attention that way, which pays off for many scores. The setting is
# undocumented and may disappear.
_SNIPPETS = "SNIPPETS_MODE"
_SMALL_ATTENTION = 2**24  # scores of all heads and frames


def probe(name: str, device: str | None) -> str:
    """Describes OpenVINO; see `amodal.runtime.backends.registry.availability`."""
    ov = _import()
    import_onnxruntime("openvino")
    return f"openvino {_version(ov)}: CPU, bfloat16"


def create(name: str, *, device: str | None, threads: int | None) -> Backend:
    """Creates the backend; see `amodal.runtime.backends.create`."""
    ov = _import()
    check_host_options(name, device, threads)
    return OpenVinoBackend(ov, import_onnxruntime("openvino"), threads)


def _import() -> Any:
    with _no_telemetry():
        openvino = import_library("openvino", "openvino", "backend openvino")
    if not multiplies_bfloat16():
        raise BackendUnavailableError(
            "backend openvino needs a CPU that multiplies in bfloat16 (AVX512-BF16 or AMX), which this one does not; "
            "use onnxruntime, as fast in float32."
        )
    return openvino


@contextmanager
def _no_telemetry() -> Iterator[None]:
    """Makes OpenVINO do without its telemetry, which the import would start: a file in `~/intel`, an event to Google.

    There is no setting for it but a file in the user's home. Without the package OpenVINO takes a stub instead.
    """
    name = "openvino_telemetry"
    if name in sys.modules or "openvino" in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]  # makes importing it an ImportError
    try:
        yield
    finally:
        del sys.modules[name]


def multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Returns whether the CPU has bfloat16 instructions; without them OpenVINO would emulate them."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _version(ov: Any) -> str:
    return str(ov.__version__).partition("-")[0]


class OpenVinoBackend(OnnxRuntimeBackend):
    """Runs components with OpenVINO's CPU plugin, and those that need float32 with ONNX Runtime; see `Backend`.

    Independent calls run concurrently, each on few threads. A network is compiled for each set of shapes it is called
    with: with free axes the default U-Net took 7 % longer.
    """

    name = "openvino"

    def __init__(self, ov: Any, ort: Any, threads: int | None) -> None:
        super().__init__(ort, threads)
        self._ov, self._core = ov, ov.Core()

    def load(self, entry: ComponentEntry, files: list[Path], lanes: int = 1) -> Executable:
        """See `Backend.load`."""
        if not entry.bfloat16:
            return super().load(entry, files, lanes)
        settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": lanes}
        settings["CPU_DENORMALS_OPTIMIZATION"] = True
        try:
            network = self._core.read_model(files[0])
        except Exception as error:
            raise BundleCorruptError(
                f"openvino cannot load {files[0]}: {first_line(error)}; update openvino, or export the bundle again."
            ) from error
        return _Network(self._core, network, entry, settings, self._lane_threads if lanes > 1 else None)

    def describe(self) -> dict[str, str]:
        """See `Backend.describe`."""
        version, threads = _version(self._ov), str(self.threads)
        return {"name": self.name, "version": version, "arithmetic": "bfloat16", "threads": threads}


class _Network(LaneExecutable):
    def __init__(
        self, core: Any, network: Any, entry: ComponentEntry, settings: Mapping[str, Any], lanes: Lanes | None
    ) -> None:
        super().__init__("openvino", entry.kind, lanes)
        self._core, self._network, self._settings = core, network, settings
        # In the graph's order: an output may have further names in OpenVINO, in any order.
        self._outputs = [output.name for output in entry.outputs]
        self._free: dict[tuple[Any, ...], SimpleQueue[Any]] = {}
        self._compiling = Lock()

    def _run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        free = self._requests(inputs)
        request = free.get()
        try:
            values = request.infer(inputs, share_inputs=True)
        finally:
            free.put(request)
        return {name: values[place] for place, name in enumerate(self._outputs)}

    def _requests(self, inputs: Mapping[str, Any]) -> SimpleQueue[Any]:
        """Returns the idle requests for these shapes, one per lane; compiles the network on first use."""
        shapes = {name: list(array.shape) for name, array in inputs.items()}
        key = tuple(sorted((name, *shape) for name, shape in shapes.items()))
        with self._compiling:
            if key not in self._free:
                compiled = self._compile(shapes)
                self._free[key] = SimpleQueue()
                for _ in range(self._settings["NUM_STREAMS"]):
                    self._free[key].put(compiled.create_infer_request())
            return self._free[key]

    def _compile(self, shapes: Mapping[str, Sequence[int]]) -> Any:
        network = self._network.clone()
        network.reshape(shapes)
        scores = (node.output(0).get_shape() for node in network.get_ops() if node.get_type_name() == "Softmax")
        if max(map(math.prod, scores), default=0) <= _SMALL_ATTENTION:
            try:
                return self._core.compile_model(network, "CPU", {**self._settings, _SNIPPETS: "DISABLE"})
            except Exception as error:
                if _SNIPPETS not in str(error):
                    raise
        return self._core.compile_model(network, "CPU", self._settings)

    def close(self) -> None:
        super().close()
        self._network = None
        self._free.clear()
