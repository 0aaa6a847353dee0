"""Ceilings of this machine: the measured rate of matrix products and bandwidth of copies.

A ceiling is what one library reached in the best case, square products and long copies; a published rate is what the
hardware could do. Products are measured with what executes the components: on a CPU ONNX Runtime in float32 or OpenVINO
in bfloat16, on a GPU CuPy, which calls cuBLAS, in float16 with sums in float32. All takes two to five seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.backends import Backend
from amodal.runtime.cores import usable_cores

from ..schema import Ceilings

CPU_SIDES = (512, 1024, 2048)
GPU_SIDES = (2048, 4096, 8192)
SECONDS = 0.6
"""Duration of the measurement of each size of matrix, and of copies; at least three of each are made."""

_LEAST = 3
_CPU_COPY = 1 << 28  # bytes: larger than any cache
_GPU_COPY = 1 << 28

Timed = Callable[[], float]
"""Does something once and returns the seconds that it took."""


def measure_ceilings(backend: Backend, seconds: float = SECONDS) -> Ceilings:
    """Measures the ceilings of the device that a backend executes on.

    Args:
        seconds: for each of four measurements.
    """
    if backend.engines is None and backend.xp is np:
        described = backend.describe()
        bfloat16 = described.get("arithmetic") == "bfloat16"
        return cpu_ceilings(int(described.get("threads", 0)) or None, seconds, bfloat16)
    with backend.active():
        return gpu_ceilings(seconds)


def cpu_ceilings(threads: int | None = None, seconds: float = SECONDS, bfloat16: bool = False) -> Ceilings:
    """Measures the CPU's ceilings in float32 or bfloat16; see `measure_ceilings`."""
    name, workers = "openvino" if bfloat16 else "onnxruntime", threads or usable_cores()
    library = import_module(name)
    side, flops = _fastest(CPU_SIDES, lambda side: _cpu_product(library, side, workers, bfloat16), seconds)
    with ThreadPoolExecutor(workers, "amodal-copy") as pool:
        bandwidth = [2 * _CPU_COPY / each for each in _repeat(_cpu_copy(pool, workers), seconds)]
    precision = "bfloat16, float32 accumulation" if bfloat16 else "float32"
    version = str(library.__version__).partition("-")[0]
    return Ceilings(precision=precision, library=f"{name} {version}", side=side, flops=flops, bandwidth=bandwidth)


def gpu_ceilings(seconds: float = SECONDS) -> Ceilings:
    """Measures the ceilings of the current GPU in float16 with sums in float32; see `measure_ceilings`."""
    cp: Any = import_module("cupy")
    side, flops = _fastest(GPU_SIDES, lambda side: _gpu_product(cp, side), seconds)
    bandwidth = [2 * _GPU_COPY / each for each in _repeat(_gpu_copy(cp), seconds)]
    cp.get_default_memory_pool().free_all_blocks()
    precision, library = "float16, float32 accumulation", f"cupy {cp.__version__}"
    return Ceilings(precision=precision, library=library, side=side, flops=flops, bandwidth=bandwidth)


def _fastest(sides: tuple[int, ...], product: Callable[[int], Timed], seconds: float) -> tuple[int, list[float]]:
    """The side with the highest median rate, and its rates in FLOP/s."""
    rates = {side: [2 * side**3 / each for each in _repeat(product(side), seconds)] for side in sides}
    best = max(rates, key=lambda side: median(rates[side]))
    return best, rates[best]


def _repeat(once: Timed, seconds: float) -> list[float]:
    once()  # allocates, compiles, wakes threads and clocks
    end, found = time.perf_counter() + seconds, list[float]()
    while len(found) < _LEAST or time.perf_counter() < end:
        found.append(once())
    return found


def _cpu_product(library: Any, side: int, threads: int, bfloat16: bool) -> Timed:
    graph, left = _product(side)
    if not bfloat16:
        options = library.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        session = library.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        return _clocked(lambda: session.run(None, {"left": left}))
    core = library.Core()
    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    request = core.compile_model(core.read_model(graph), "CPU", settings).create_infer_request()
    return _clocked(lambda: request.infer({"left": left}, share_inputs=True))


def _product(side: int) -> tuple[bytes, NDArray[np.float32]]:
    """A graph of one product whose second factor is a weight, as in the components; and the first factor."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(side)
    left, right = (rng.standard_normal((side, side), np.float32) for _ in range(2))
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [side, side]) for name in ("left", "product")]
    node = helper.make_node("MatMul", ["left", "right"], ["product"])
    graph = helper.make_graph([node], "product", values[:1], values[1:], [numpy_helper.from_array(right, "right")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return model.SerializeToString(), left


def _cpu_copy(pool: ThreadPoolExecutor, workers: int) -> Timed:
    # Ones, because zeros share one page until they are written.
    source, target = (np.ones(_CPU_COPY, np.uint8) for _ in range(2))
    parts = list(zip(np.array_split(target, workers), np.array_split(source, workers), strict=True))
    return _clocked(lambda: list(pool.map(lambda part: np.copyto(*part), parts)))


def _gpu_product(cp: Any, side: int) -> Timed:
    left, right = (cp.random.standard_normal((side, side), cp.float32).astype(cp.float16) for _ in range(2))
    # For float16, CuPy always requests sums in float32 from cuBLAS (CUBLAS_COMPUTE_32F).
    return _events(cp, lambda: cp.matmul(left, right))


def _gpu_copy(cp: Any) -> Timed:
    source = cp.zeros(_GPU_COPY, cp.uint8)
    return _events(cp, partial(cp.copyto, cp.empty_like(source), source))


def _clocked(work: Callable[[], Any]) -> Timed:
    def once() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return once


def _events(cp: Any, work: Callable[[], Any]) -> Timed:
    """Times between two events on the stream, so that launching is not measured."""

    def once() -> float:
        begin, end = cp.cuda.Event(), cp.cuda.Event()
        begin.record()
        work()
        end.record()
        end.synchronize()
        return float(cp.cuda.get_elapsed_time(begin, end)) / 1e3

    return once
