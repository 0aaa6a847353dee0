"""OpenVINO on CPUs that multiply in bfloat16.

It is to a CPU what FP16 is to a GPU: the image encoder, the U-Net and the VAE compute in bfloat16, with sums in
float32. The VAE's encoder too: diffusers upcasts it (`force_upcast`) only where the weights are float16 and could
overflow, and bfloat16 has float32's range. What has to stay in float32 is left to ONNX Runtime, which is the faster of
the two there: `unet_conditioner`, whose sinusoids of up to 127 radians bfloat16 would lose, and depth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

from ...bundle.manifest import ComponentEntry
from ...errors import BackendError, BackendUnavailableError, BundleCorruptError, InputError, first_line
from .. import Availability, Backend, Executable
from ..denormals import denormals_as_zero
from ..lanes import Lane
from ..onnxruntime.cpu import OnnxRuntimeBackend, import_onnxruntime
from .layout import keep_channels_last, largest_attention

# The plugin compiles every few element-wise operators into a kernel that it keeps together with a graph of its own: a
# quarter of the memory of the default U-Net, for no time at all. It fuses attention in the same way, which pays where
# the scores are many. The switch is the plugin's own and may go away.
_SNIPPETS = "SNIPPETS_MODE"
_SMALL_ATTENTION = 2**24  # scores, all heads of all frames together
_SINGLE = frozenset({"unet_conditioner", "depth"})


def availability(name: str = "openvino") -> Availability:
    """Whether OpenVINO can be imported and the CPU multiplies in bfloat16."""
    try:
        ov = _import()
        import_onnxruntime("openvino")
    except BackendUnavailableError as error:
        return Availability(False, "", str(error))
    return Availability(True, f"openvino {_version(ov)}: CPU, bfloat16")


def create(name: str = "openvino", *, device: str | None = None, threads: int | None = None) -> Backend:
    """Makes the backend; see `amodal.runtime.backends.create`."""
    ov = _import()
    if device is not None and device != "cpu":
        raise BackendUnavailableError(f"backend openvino has no device {device!r}; expected cpu.")
    if threads is not None and threads < 1:
        raise InputError(f"{threads} threads were asked for; expected 1 or more.", field="threads")
    return OpenVinoBackend(ov, import_onnxruntime("openvino"), threads)


def _import() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise BackendUnavailableError(
            f'backend openvino cannot be imported ({error}); install it with `pip install "amodal[openvino]"`.'
        ) from error
    if not multiplies_bfloat16():
        raise BackendUnavailableError(
            "backend openvino needs a CPU that multiplies in bfloat16 (AVX512-BF16 or AMX), which this one does not; "
            "use onnxruntime, as fast in float32."
        )
    return openvino


def multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU has instructions for it: OpenVINO itself would also emulate them."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    flags = next((line.partition(":")[2].split() for line in lines if line.startswith("flags")), [])
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _version(ov: Any) -> str:
    return str(ov.__version__).partition("-")[0]


class OpenVinoBackend(OnnxRuntimeBackend):
    """Runs components with OpenVINO's CPU plugin, and those that need float32 as ONNX Runtime's backend does.

    As there, independent calls run side by side on few threads each. Networks are compiled for the shapes they are
    called with, once for each: left free, the axes cost the default U-Net 7 % of its time.
    """

    name = "openvino"

    def __init__(self, ov: Any, ort: Any, threads: int | None) -> None:
        super().__init__(ort, threads)
        self._ov, self._core = ov, ov.Core()

    def load(self, entry: ComponentEntry, files: list[Path], lanes: int = 1) -> Executable:
        """See `Backend.load`."""
        if entry.kind in _SINGLE:
            return super().load(entry, files, lanes)
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16",
            "INFERENCE_NUM_THREADS": self.threads,
            "NUM_STREAMS": lanes,
            "CPU_DENORMALS_OPTIMIZATION": True,
        }
        try:
            network = self._core.read_model(files[0])
        except Exception as error:
            raise BundleCorruptError(
                f"openvino cannot load {files[0]}: {first_line(error)}; update openvino, or export the bundle again."
            ) from error
        return _Network(self._core, network, entry, settings, self._side_by_side.enter() if lanes > 1 else None)

    def describe(self) -> dict[str, str]:
        """See `Backend.describe`."""
        return {
            "name": self.name,
            "version": _version(self._ov),
            "arithmetic": "bfloat16",
            "threads": str(self.threads),
        }


class _Network:
    def __init__(
        self, core: Any, network: Any, entry: ComponentEntry, settings: Mapping[str, Any], lane: Lane | None
    ) -> None:
        self._core, self._network, self._settings, self._lane = core, network, settings, lane
        # In the graph's order; in OpenVINO an output may have other names besides, in any order.
        self._kind, self._outputs = entry.kind, [output.name for output in entry.outputs]
        self._free: dict[tuple[Any, ...], SimpleQueue[Any]] = {}
        self._compiling = Lock()

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        if self._network is None:
            raise BackendError(f"component {self._kind} was closed; load the bundle again.")
        try:
            with denormals_as_zero():
                free = self._requests(inputs)
                request = free.get()
                try:
                    values = request.infer(dict(inputs), share_inputs=True)
                finally:
                    free.put(request)
        except Exception as error:
            raise BackendError(f"openvino failed in component {self._kind}: {first_line(error)}") from error
        return {name: values[place] for place, name in enumerate(self._outputs)}

    def _requests(self, inputs: Mapping[str, Any]) -> SimpleQueue[Any]:
        """Idle requests of the network compiled for these shapes, one for each lane."""
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
        keep_channels_last(network)
        if largest_attention(network) > _SMALL_ATTENTION:
            return self._core.compile_model(network, "CPU", self._settings)
        try:
            return self._core.compile_model(network, "CPU", {**self._settings, _SNIPPETS: "DISABLE"})
        except Exception as error:
            if _SNIPPETS not in str(error):
                raise
            return self._core.compile_model(network, "CPU", self._settings)

    def map(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        if self._lane is None or len(batches) == 1:
            return [self(inputs) for inputs in batches]
        return self._lane.map(self, batches)

    def close(self) -> None:
        self._network = None
        self._free.clear()
        if self._lane is not None:
            self._lane.close()
            self._lane = None
