"""Memory of this process, on the host and on a GPU, sampled while something runs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import psutil

from .clips import Execution

INTERVAL = 0.005  # seconds between samples of the host; the kernel counts peaks in between


class Sampler:
    """Reads counters every `INTERVAL` seconds in a thread of its own while it is open, and once at either end.

    Attributes:
        times: of `time.perf_counter`. bytes: by counter.
    """

    def __init__(self, counters: dict[str, Callable[[], int]], interval: float = INTERVAL) -> None:
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
        read = {name: counter() for name, counter in self._counters.items()}
        self.times.append(time.perf_counter())
        for name, count in read.items():
            self.bytes[name].append(count)


def device_counters(execution: Execution) -> dict[str, Callable[[], int]]:
    """NVML's counters of this process and of its whole GPU; none where none can be used.

    Whether a GPU is used in the end only the loaded model tells, since `auto` may fall back to the CPU.
    """
    if execution.backend in ("onnxruntime", "openvino") and not (execution.device or "").startswith("cuda"):
        return {}
    try:
        import pynvml

        pynvml.nvmlInit()
        number = int((execution.device or "cuda:0").partition(":")[2] or 0)
        visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
        name = visible[number] if number < len(visible) else str(number)  # NVML counts all GPUs, CUDA those it may see
        if name.isdigit():
            handle = pynvml.nvmlDeviceGetHandleByIndex(int(name))
        else:
            handle = pynvml.nvmlDeviceGetHandleByUUID(name)
    except Exception:  # noqa: BLE001 (no library or no driver; the backend will say that there is no GPU)
        return {}
    own = psutil.Process().pid

    def mine() -> int:
        found = [p.usedGpuMemory or 0 for p in pynvml.nvmlDeviceGetComputeRunningProcesses(handle) if p.pid == own]
        return int(sum(found))

    return {"process": mine, "device": lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)}


def device_peak(samples: Mapping[str, Sequence[int]]) -> int | None:
    """The most of the GPU that the process had, in bytes, from samples of `device_counters`.

    Where the driver does not tell it (NVML counts 0 for a process in another PID namespace), how far the whole device
    rose above its first sample. None without samples.
    """
    process, device = samples.get("process", ()), samples.get("device", ())
    if any(process):
        return max(process)
    return max(device) - device[0] if device else None


def host_peak(sampled: list[int]) -> int:
    """The kernel's own count of the highest resident set, where it keeps one; elsewhere the highest sample.

    Not `ru_maxrss`, which on Linux begins with that of the process that started this one.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return max(sampled)
