"""What is told of a device by events on its stream, on the stand-in for CuPy."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from amodal.bench.running.clips import times_of
from amodal.bench.running.timed import TimedBackend

from ...stand_ins import stand_in_module

STEPS, NETWORK, BETWEEN = 4, 0.02, 0.01


@pytest.fixture
def device() -> Any:
    return stand_in_module("cupy")


def entry(kind: str) -> Any:
    return SimpleNamespace(kind=kind, repeated=kind == "unet")


class Sleeping:
    """Networks that take a time of their own."""

    name, lanes, engines = "sleeping", 1, None

    def __init__(self, xp: Any) -> None:
        self.xp, self.on_gpu = xp, False

    def load(self, entry: Any, files: list[Path], lanes: int = 1) -> Any:
        def run(inputs: Any) -> dict[str, Any]:
            time.sleep(NETWORK)
            return {}

        return SimpleNamespace(__call__=run, map=lambda batches: [run(x) for x in batches], close=lambda: None)


def test_time_between_denoising_steps_is_told_apart_from_the_networks(device: Any) -> None:
    timed = TimedBackend(Sleeping(device))  # type: ignore[arg-type]
    begin = time.perf_counter()
    decoder, unet = (timed.load(entry(kind), []) for kind in ("vae_decoder", "unet"))
    for _ in range(STEPS):
        unet.map([{}])
        time.sleep(BETWEEN)
    decoder.map([{}])
    calls = {"segment": timed.calls}
    whole = time.perf_counter() - begin
    clip = times_of(calls, whole, 0.0, timed.device_times(calls))
    assert clip.gaps is not None
    assert len(clip.gaps["segment"]) == STEPS - 1
    assert all(gap >= BETWEEN for gap in clip.gaps["segment"])
    assert set(clip.parts) == {"segment/unet", "segment/vae_decoder", "segment/load"}
    steps = clip.steps["segment"]
    assert len(steps) == STEPS
    assert min(steps[:-1]) >= NETWORK + BETWEEN
    assert steps[-1] >= NETWORK
    assert clip.device is not None
    assert sum(steps) == pytest.approx(clip.device["segment/unet"] + sum(clip.gaps["segment"]))
    assert STEPS * NETWORK <= clip.device["segment/unet"] <= whole - STEPS * BETWEEN
    assert STEPS * BETWEEN <= clip.outside <= whole - (STEPS + 1) * NETWORK


def test_without_a_gpu_there_are_no_gaps() -> None:
    import numpy as np

    timed = TimedBackend(Sleeping(np))  # type: ignore[arg-type]
    timed.load(entry("unet"), []).map([{}])
    calls = {"segment": timed.calls}
    assert timed.device_times(calls) is None
    clip = times_of(calls, 1.0, 0.0, None)
    assert clip.parts == clip.components
