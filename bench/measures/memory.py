"""Memory over time while clips run, in a process of its own, and the plan's prediction beside it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from amodal.runtime.errors import InputError
from amodal.runtime.model import Model

from ..running.clips import Execution, running
from ..running.machine import executed_of
from ..running.observed import Call
from ..running.process import in_new_process
from ..schema import Memory, Phase, Timeline, Work

_UNTOLD = (
    "the driver does not tell what this process takes on the GPU (as in containers and on WSL); "
    "the peak is the whole device's rise, which others may have caused."
)
INTERVAL = 0.005  # seconds between samples of the host; the kernel counts peaks in between


def measure_memory(bundle: str | Path, work: Work, execution: Execution, *, clips: int = 3) -> Memory:
    """Runs clips in a new process whose memory is sampled from opening the bundle to the last result.

    Args:
        clips: how many; what later ones add to the second is growth.

    Raises:
        InputError: fewer than one clip, or a stage that the bundle does not have.
        AmodalError: it cannot be run like this.
    """
    if clips < 1:
        raise InputError(f"{clips} clips: expected 1 or more.", field="clips")
    return in_new_process(_measure, str(bundle), work, execution, clips)


def _measure(bundle: str, work: Work, execution: Execution, clips: int) -> Memory:
    process = psutil.Process()
    watched: dict[str, Callable[[], int]] = {"host": lambda: int(process.memory_info().rss)}
    watched |= device_counters(execution)
    before = watched["host"]()
    phases: list[tuple[str, float, float]] = []
    calls: list[Call] = []
    ends: list[int] = []
    with Sampler(watched) as sampler:
        opening = time.perf_counter()
        with running(bundle, work, execution) as runner:
            phases.append(("open", opening, time.perf_counter()))
            for _ in range(clips):
                drawn = runner.clip()
                for stage, made in drawn.calls.items():
                    calls += [call._replace(what=f"{stage}/{call.what}") for call in made]
                ends.append(watched["host"]())
            executed, planned = executed_of(runner.model), _planned(runner.model)
            allocators = _allocators(runner.model)
    phases += _joined(calls)
    zero = sampler.times[0]
    told = [name for name in watched if name == "host" or (executed.device != "cpu" and any(sampler.bytes[name]))]
    timelines = {
        name: Timeline(seconds=[round(t - zero, 4) for t in sampler.times], bytes=sampler.bytes[name]) for name in told
    }
    return Memory(
        work=work,
        executed=executed,
        host=timelines.pop("host"),
        host_peak=host_peak(sampler.bytes["host"]),
        host_before=before,
        device=timelines,
        allocators=allocators,
        planned=planned,
        phases=[Phase(name=name, begin=begin - zero, end=end - zero) for name, begin, end in phases],
        warnings=[*_growth(ends), *([] if executed.device == "cpu" or "process" in told else [_UNTOLD])],
    )


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


def _allocators(model: Model) -> dict[str, int]:
    """What CuPy's pool holds at the end: it keeps what it once had. None on the host."""
    with suppress(AttributeError):
        pool: Any = model.backend.xp.get_default_memory_pool()
        return {"cupy pool": int(pool.total_bytes())}
    return {}


def _planned(model: Model) -> dict[str, int]:
    """The plan's phases, each by the component that runs in it."""
    if model.plan is None:
        return {}
    found: dict[str, int] = {}
    for phase in model.plan.phases:
        name = f"{phase.task}/{model.bundle.component(phase.runs).kind}"
        found[name] = max(found.get(name, 0), phase.peak_bytes)
    return found


def _joined(calls: list[Call]) -> Iterator[tuple[str, float, float]]:
    """Stretches of calls of the same thing: all steps of a U-Net are one."""
    begun: Call | None = None
    for call in calls:
        if begun is not None and begun.what == call.what:
            begun = begun._replace(end=call.end)
            continue
        if begun is not None:
            yield begun.what, begun.begin, begun.end
        begun = call
    if begun is not None:
        yield begun.what, begun.begin, begun.end


def host_peak(sampled: list[int]) -> int:
    """The kernel's own count of the highest resident set, where it keeps one; elsewhere the highest sample.

    Not `ru_maxrss`, which on Linux begins with that of the process that started this one.
    """
    with suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return max(sampled)


def _growth(ends: list[int]) -> list[str]:
    """A sentence if memory after a clip goes on growing, the first one's caches aside."""
    grown = ends[-1] - ends[min(1, len(ends) - 1)]
    if grown <= max(0.02 * ends[-1], 4e6):
        return []
    return [f"memory grew by {grown / 1e6:.0f} MB from the second to the last of {len(ends)} clips."]
