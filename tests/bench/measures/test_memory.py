"""Memory over time: what the sampler sees, and where a clip's peak is."""

from __future__ import annotations

import mmap
import os
import sys
import time
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.bench.measures import memory
from amodal.bench.measures.memory import _growth, _joined, measure_memory
from amodal.bench.measures.targets import missed_targets
from amodal.bench.running.clips import Execution
from amodal.bench.running.machine import work_of
from amodal.bench.running.memory import Sampler, device_counters, device_peak
from amodal.bench.running.timed import TimedCall
from amodal.bench.schema import Memory
from amodal.runtime.errors import InputError
from amodal.runtime.families import Bundle


def test_the_sampler_sees_what_is_allocated_between_its_ends() -> None:
    import psutil

    process = psutil.Process()
    with Sampler({"host": lambda: int(process.memory_info().rss)}, interval=0.002) as sampler:
        block = mmap.mmap(-1, 60_000_000)  # new to the process, whatever an allocator keeps
        block.write(b"1" * len(block))  # touched, so that it is resident
        deadline = time.perf_counter() + 60
        before = len(sampler.times)
        while len(sampler.times) < before + 3 and time.perf_counter() < deadline:
            time.sleep(0.002)
        block.close()
    counts = sampler.bytes["host"]
    assert max(counts) - counts[0] > 50_000_000
    assert len(counts) == len(sampler.times) >= 5
    assert sampler.times == sorted(sampler.times)


def test_a_device_that_is_no_gpus_name_has_no_counters() -> None:
    assert device_counters(Execution(device="cuda:x")) == {}


def test_calls_of_the_same_thing_are_one_phase() -> None:
    calls = [TimedCall("a", 0, 1), TimedCall("b", 1, 2), TimedCall("b", 3, 4), TimedCall("a", 5, 6)]
    assert [call[:3] for call in _joined(calls)] == [("a", 0, 1), ("b", 1, 4), ("a", 5, 6)]
    assert _joined([]) == []


def test_growth_from_clip_to_clip_is_told() -> None:
    assert _growth([100_000_000, 150_000_000, 150_500_000]) == []  # what the first clip leaves is caches
    assert "grew by 50 MB" in _growth([100_000_000, 150_000_000, 200_000_000])[0]
    assert _growth([100_000_000]) == []


@pytest.mark.slow
def test_memory_is_that_of_a_process_of_its_own(toy_bundle: Path) -> None:
    ballast = np.ones(200_000_000, np.uint8)  # of this process, not of that
    bundle = Bundle(toy_bundle)
    found = measure_memory(toy_bundle, work_of(bundle, steps=2), Execution(threads=1), clips=2)
    weights = sum(component.bytes for component in bundle.manifest.components.values())
    assert found.host_before + weights < found.host_peak < ballast.nbytes + 200_000_000
    assert max(found.host.bytes) <= found.host_peak * 1.01
    names = [phase.name for phase in found.phases]
    assert names[0] == "open"
    assert names.count("segment/unet") == names.count("complete/vae_decoder") == 2
    assert names.count("segment/load unet") == 1
    assert all(0 <= phase.begin <= phase.end <= found.host.seconds[-1] for phase in found.phases)
    assert found.device == found.planned == {}


MB = 1_000_000


@pytest.mark.parametrize(
    ("samples", "peak"),
    [
        ({"process": [0, 5 * MB, 3 * MB], "device": [100 * MB, 190 * MB]}, 5 * MB),
        ({"process": [0, 0, 0], "device": [100 * MB, 190 * MB, 150 * MB]}, 90 * MB),  # another PID namespace
        ({"device": [100 * MB, 190 * MB]}, 90 * MB),
        ({}, None),
    ],
)
def test_the_peak_on_a_gpu_is_the_process_s_or_the_device_s_rise(
    samples: dict[str, list[int]], peak: int | None
) -> None:
    assert device_peak(samples) == peak


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """A driver with GPUs of which it is noted which was asked for; it counts 0 for this process."""
    asked: list[Any] = []
    fake = types.SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetHandleByIndex=lambda number: asked.append(number),
        nvmlDeviceGetHandleByUUID=lambda name: asked.append(name),
        nvmlDeviceGetComputeRunningProcesses=lambda handle: [
            types.SimpleNamespace(pid=os.getpid(), usedGpuMemory=None)
        ],
        nvmlDeviceGetMemoryInfo=lambda handle: types.SimpleNamespace(used=7 * MB),
    )
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return asked


@pytest.mark.parametrize(
    ("visible", "device", "number"),
    [(None, "cuda:1", 1), ("2,3", "cuda:1", 3), ("3", "cuda", 3), ("GPU-ab12", None, "GPU-ab12"), ("", "cuda:1", 1)],
)
def test_the_gpu_that_is_watched_is_the_one_that_cuda_means(
    nvml: list[Any], visible: str | None, device: str | None, number: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    counters = device_counters(Execution(backend="tensorrt_rtx", device=device))
    assert nvml == [number]
    assert {name: read() for name, read in counters.items()} == {"process": 0, "device": 7 * MB}


def test_a_run_that_ended_on_the_cpu_has_no_gpu_memory(
    nvml: list[Any], toy_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "in_new_process", lambda function, *args: function(*args))
    found = measure_memory(toy_bundle, work_of(Bundle(toy_bundle), steps=1), Execution(backend="auto"), clips=1)
    assert found.executed.device == "cpu"
    assert found.device == {}
    assert found.warnings == []
    assert device_counters(Execution(backend="openvino")) == {}


@pytest.mark.parametrize(
    ("device", "timelines", "missed"),
    [
        ("cpu", {}, "9.000 GB"),
        ("cuda:0", {"process": [0, 5 * MB]}, None),
        ("cuda:0", {"device": [MB, 8000 * MB]}, "7.999 GB"),
        ("cuda:0", {}, "nothing was measured"),
    ],
)
def test_a_target_is_held_against_the_gpu_and_never_silently_against_the_host(
    toy_bundle: Path, device: str, timelines: dict[str, list[int]], missed: str | None
) -> None:
    line = {"seconds": [0.0], "bytes": [1]}
    found = Memory.model_validate(
        {
            "work": work_of(Bundle(toy_bundle)),
            "executed": {"backend": "x", "version": "1", "device": device, "memory": "resident"},
            "host": line,
            "host_peak": 9000 * MB,
            "host_before": 1,
            "phases": [],
            "device": {name: {"seconds": [0.0] * len(b), "bytes": b} for name, b in timelines.items()},
        }
    )
    said = missed_targets([found], vram=6000 * MB)
    assert bool(said) == (missed is not None)
    assert missed is None or missed in said[0]


def test_no_clip_is_refused(toy_bundle: Path) -> None:
    with pytest.raises(InputError, match="0 clips"):
        measure_memory(toy_bundle, work_of(Bundle(toy_bundle)), Execution(), clips=0)
