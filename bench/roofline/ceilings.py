"""What a machine reaches: the rate of matrix products, and the bandwidth of copies, measured.

A ceiling is what one library did with what suits it best, square products and long copies; a published rate is what
the hardware could do. Each is measured by what executes the components: on the CPU ONNX Runtime in float32, or
OpenVINO in bfloat16; CuPy, which calls cuBLAS, on a GPU, on halves with sums in float32. Two to five seconds in all.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.backends import Backend
from amodal.runtime.cores import usable_cores
from amodal.runtime.errors import BackendUnavailableError, MissingDependencyError

from ..schema import Ceilings

CPU_SIDES = (512, 1024, 2048)
GPU_SIDES = (2048, 4096, 8192)
SECONDS = 0.6
"""For each size of matrix, and for copies; at least three of each are made."""

_LEAST = 3
_CPU_COPY = 1 << 28  # bytes: beyond any cache, and there twice
_GPU_COPY = 1 << 28

Timed = Callable[[], float]
"""Does it once, and says how many seconds that took."""


def measure_ceilings(backend: Backend, threads: int | None = None, seconds: float = SECONDS) -> Ceilings:
    """The ceilings of what a backend executes on: the CPU, or the GPU that it is on.

    Args:
        threads: on a CPU; None for all that the process may use.
        seconds: spent on each of four measurements.

    Raises:
        BackendUnavailableError: ONNX Runtime, or on a GPU CuPy, is missing.
        MissingDependencyError: onnx is not installed.
    """
    if backend.engines is None and backend.xp is np:
        described = backend.describe()
        rounded = described.get("arithmetic") == "bfloat16"
        return cpu_ceilings(threads or int(described.get("threads", 0)) or None, seconds, rounded)
    with backend.active():
        return gpu_ceilings(seconds)


def cpu_ceilings(threads: int | None = None, seconds: float = SECONDS, rounded: bool = False) -> Ceilings:
    """The CPU's, in float32, or in bfloat16 if `rounded`; see `measure_ceilings`."""
    library = _openvino() if rounded else _onnxruntime()
    product = _rounded_product if rounded else _cpu_product
    side, flops = _fastest(CPU_SIDES, lambda side: product(library, side, threads), seconds)
    workers = threads or usable_cores()
    with ThreadPoolExecutor(workers, "amodal-copy") as pool:
        bandwidth = [2 * _CPU_COPY / each for each in _repeat(_cpu_copy(pool, workers), seconds)]
    precision = "bfloat16, float32 accumulation" if rounded else "float32"
    name = f"{library.__name__} {str(library.__version__).partition('-')[0]}"
    return Ceilings(precision=precision, library=name, side=side, flops=flops, bandwidth=bandwidth)


def gpu_ceilings(seconds: float = SECONDS) -> Ceilings:
    """Those of the GPU that this thread is on, float16 with sums in float32; see `measure_ceilings`."""
    try:
        import cupy as cp
    except ImportError as error:
        raise BackendUnavailableError(
            f"ceilings of a GPU are measured with CuPy, which cannot be imported ({error}); "
            '`pip install "amodal[rtx]"`.'
        ) from error
    side, flops = _fastest(GPU_SIDES, lambda side: _gpu_product(cp, side), seconds)
    bandwidth = [2 * _GPU_COPY / each for each in _repeat(_gpu_copy(cp), seconds)]
    cp.get_default_memory_pool().free_all_blocks()
    precision, library = "float16, float32 accumulation", f"cupy {cp.__version__}"
    return Ceilings(precision=precision, library=library, side=side, flops=flops, bandwidth=bandwidth)


def _fastest(sides: tuple[int, ...], product: Callable[[int], Timed], seconds: float) -> tuple[int, list[float]]:
    """The side whose median rate is the highest, and its rates."""
    rates = {side: [2 * side**3 / each for each in _repeat(product(side), seconds)] for side in sides}
    best = max(rates, key=lambda side: median(rates[side]))
    return best, rates[best]


def _repeat(once: Timed, seconds: float) -> list[float]:
    once()  # allocates, compiles, wakes threads and clocks
    return list(_for(once, seconds))


def _for(once: Timed, seconds: float) -> Iterator[float]:
    end, count = time.perf_counter() + seconds, 0
    while count < _LEAST or time.perf_counter() < end:
        yield once()
        count += 1


def _cpu_product(ort: Any, side: int, threads: int | None) -> Timed:
    graph, left = _product(side)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    return _clocked(lambda: session.run(None, {"left": left}))


def _rounded_product(ov: Any, side: int, threads: int | None) -> Timed:
    graph, left = _product(side)
    core = ov.Core()
    cores = threads or usable_cores()
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": cores, "NUM_STREAMS": 1}
    request = core.compile_model(core.read_model(graph), "CPU", settings).create_infer_request()
    return _clocked(lambda: request.infer({"left": left}, share_inputs=True))


def _product(side: int) -> tuple[bytes, NDArray[np.float32]]:
    """A graph of one product, whose second factor is a weight, as in the components; and the first."""
    try:
        from onnx import TensorProto, helper, numpy_helper
    except ImportError as error:
        raise MissingDependencyError('measuring ceilings needs onnx; `pip install "amodal[bench]"`.') from error
    rng = np.random.default_rng(side)
    left, right = (rng.standard_normal((side, side), np.float32) for _ in range(2))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [side, side]) for name in ("left", "product")]
    node = helper.make_node("MatMul", ["left", "right"], ["product"])
    graph = helper.make_graph([node], "product", values[:1], values[1:], [numpy_helper.from_array(right, "right")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString(), left


def _cpu_copy(pool: ThreadPoolExecutor, workers: int) -> Timed:
    source, target = (np.zeros(_CPU_COPY, np.uint8) for _ in range(2))
    source[:] = 1  # zeros share one page until they are written
    target[:] = 1
    parts = list(zip(np.array_split(target, workers), np.array_split(source, workers), strict=True))
    return _clocked(lambda: list(pool.map(lambda part: np.copyto(*part), parts)))


def _gpu_product(cp: Any, side: int) -> Timed:
    left, right = (cp.random.standard_normal((side, side), cp.float32).astype(cp.float16) for _ in range(2))
    # Of halves CuPy always asks cuBLAS for sums in float32 (CUBLAS_COMPUTE_32F).
    return _events(cp, lambda: cp.matmul(left, right))


def _gpu_copy(cp: Any) -> Timed:
    source = cp.zeros(_GPU_COPY, cp.uint8)
    target = cp.empty_like(source)
    return _events(cp, lambda: cp.copyto(target, source))


def _clocked(work: Callable[[], Any]) -> Timed:
    def once() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return once


def _events(cp: Any, work: Callable[[], Any]) -> Timed:
    """Seconds between two events on the stream, so that launching is not measured."""

    def once() -> float:
        begin, end = cp.cuda.Event(), cp.cuda.Event()
        begin.record()
        work()
        end.record()
        end.synchronize()
        return float(cp.cuda.get_elapsed_time(begin, end)) / 1e3

    return once


def _onnxruntime() -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendUnavailableError(
            f"ceilings of a CPU are measured with onnxruntime, which cannot be imported ({error}); `pip install "
            '"amodal[cpu]"`.'
        ) from error
    return onnxruntime


def _openvino() -> Any:
    try:
        import openvino
    except ImportError as error:
        raise BackendUnavailableError(
            f"ceilings in bfloat16 are measured with openvino, which cannot be imported ({error}); "
            '`pip install "amodal[openvino]"`.'
        ) from error
    return openvino
