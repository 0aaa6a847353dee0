"""Memory of this process, on the host and on a GPU, sampled while something runs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .clips import Execution
from .machine import open_gpu

INTERVAL = 0.005  # seconds between samples; on the host, the kernel records the peaks in between


class Sampler:
    """Reads counters every `interval` seconds in a thread while it is open, and once at either end.

    Attributes:
        times: seconds of `time.perf_counter`. bytes: samples by counter.
    """

    def __init__(self, counters: Mapping[str, Callable[[], int]], interval: float = INTERVAL) -> None:
        self.times: list[float] = []
        self.bytes: dict[str, list[int]] = {name: [] for name in counters}
        self._counters, self._interval = counters, interval
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Sampler:
        self._sample()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._sample()

    def _run(self) -> None:
        while not self._ended.wait(self._interval):
            self._sample()

    def _sample(self) -> None:
        counts = [counter() for counter in self._counters.values()]
        self.times.append(time.perf_counter())
        for samples, count in zip(self.bytes.values(), counts, strict=True):
            samples.append(count)


def device_counters(execution: Execution) -> dict[str, Callable[[], int]]:
    """Returns NVML's counters of GPU memory: of this `process`, and of the whole `device`; empty if there are none.

    They may exist even if the CPU is used in the end: with `auto`, only the loaded model knows its device.
    """
    if execution.backend in ("onnxruntime", "openvino") and not (execution.device or "").startswith("cuda"):
        return {}
    digits = (execution.device or "cuda:0").partition(":")[2] or "0"
    if not digits.isdigit():  # no GPU's name, which loading the bundle refuses
        return {}
    number = int(digits)
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    # NVML counts all GPUs, CUDA only the visible ones.
    opened = open_gpu(visible[number] if number < len(visible) else str(number))
    if opened is None:
        return {}
    nvml, handle = opened

    def own() -> int:
        processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
        return sum(int(p.usedGpuMemory or 0) for p in processes if p.pid == os.getpid())

    return {"process": own, "device": lambda: int(nvml.nvmlDeviceGetMemoryInfo(handle).used)}


def device_peak(samples: Mapping[str, Sequence[int]]) -> int | None:
    """Returns the process's peak of GPU memory in bytes, from samples of `device_counters`; None without samples.

    In another PID namespace NVML reports 0 for the process; the peak is then the rise of the whole device above its
    first sample.
    """
    process, device = samples.get("process", ()), samples.get("device", ())
    if any(process):
        return max(process)
    return max(device) - device[0] if device else None


def host_peak(highest_sample: int = 0) -> int:
    """Returns the process's peak resident set in bytes as the kernel counts it; the highest sample if it does not.

    Not `ru_maxrss`, which on Linux starts with the peak of the parent process.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return highest_sample
