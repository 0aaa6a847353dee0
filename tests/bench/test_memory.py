"""Memory over time: what the sampler sees, and where a clip's peak is."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from amodal.bench.clips import Execution
from amodal.bench.machine import work_of
from amodal.bench.memory import Sampler, _growth, _joined, measure_memory
from amodal.bench.observed import Call
from amodal.runtime.bundle import Bundle
from amodal.runtime.errors import InputError


def test_the_sampler_sees_what_is_allocated_between_its_ends() -> None:
    import psutil

    process = psutil.Process()
    with Sampler({"host": lambda: int(process.memory_info().rss)}, interval=0.002) as sampler:
        block = np.ones(60_000_000, np.uint8)  # touched, so that it is resident
        deadline = time.perf_counter() + 5
        before = len(sampler.times)
        while len(sampler.times) < before + 3 and time.perf_counter() < deadline:
            time.sleep(0.002)
        del block
    counts = sampler.bytes["host"]
    assert max(counts) - counts[0] > 50_000_000
    assert len(counts) == len(sampler.times) >= 5
    assert sampler.times == sorted(sampler.times)


def test_calls_of_the_same_thing_are_one_phase() -> None:
    calls = [Call("a", 0, 1), Call("b", 1, 2), Call("b", 3, 4), Call("a", 5, 6)]
    assert list(_joined(calls)) == [("a", 0, 1), ("b", 1, 4), ("a", 5, 6)]
    assert list(_joined([])) == []


def test_growth_from_clip_to_clip_is_told() -> None:
    assert _growth([100_000_000, 150_000_000, 150_500_000]) == []  # what the first clip leaves is caches
    assert "grew by 50 MB" in _growth([100_000_000, 150_000_000, 200_000_000])[0]
    assert _growth([100_000_000]) == []


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


def test_no_clip_is_refused(toy_bundle: Path) -> None:
    with pytest.raises(InputError, match="0 clips"):
        measure_memory(toy_bundle, work_of(Bundle(toy_bundle)), Execution(), clips=0)
