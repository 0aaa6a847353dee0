"""What pictures take while they are prepared and delivered: the plan against what is really allocated.

The stand-in for CuPy keeps its arrays in numpy's memory, which `tracemalloc` counts.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from amodal.runtime.arrays import resampling
from amodal.runtime.execution.delivery import Delivery
from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.buffers import delivering
from amodal.runtime.families.diffusion_vas.inputs import GivenDepth, complete_inputs, segment_inputs
from amodal.runtime.families.diffusion_vas.running import paste_known
from amodal.runtime.families.diffusion_vas.shape import RunShape
from amodal.runtime.memory.choice import Planner
from amodal.runtime.memory.plan import Footprint, plan_memory
from amodal.runtime.pictures import images
from amodal.runtime.pictures.propagation import Propagated
from amodal.runtime.sampling.finiteness import Finiteness

LARGE = (480, 640)
SLACK = 100_000
"""Bytes: Python's own, and the weights of resizing."""


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return Bundle("default")


def taken(work: Callable[[], Any]) -> int:
    """The most bytes that were allocated at once."""
    work()  # what is imported or kept for good is not counted
    gc.collect()
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def planned(bundle: Bundle, stage: Any, phase: Any, given: Any, **more: Any) -> int:
    calls = bundle.family.calls(bundle.manifest, RunShape((stage,), given=given, **more))
    (found,) = (found for found in calls.phases if found.name == phase)
    return sum(found.buffers.values())


@pytest.mark.parametrize(("before", "after"), [(LARGE, (64, 128)), ((64, 128), LARGE), ((300, 64), (400, 900))])
@pytest.mark.parametrize("frames", [2, 9])
@pytest.mark.parametrize(
    ("way", "resize", "dtype", "channels"),
    [
        ("pillow uint8", resampling.pillow_bilinear, np.uint8, 3),
        ("pillow uint8", resampling.pillow_bilinear, np.uint8, 1),
        ("pillow float32", resampling.pillow_bilinear, np.float32, 1),
        ("opencv uint8", resampling.opencv_linear, np.uint8, 3),
        ("opencv float64", resampling.opencv_cubic, np.float64, 3),
    ],
)
def test_resizing_takes_what_is_said(
    way: Any,
    resize: Any,
    dtype: Any,
    channels: int,
    frames: int,
    before: Any,
    after: Any,
    device: Any,
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(resampling, "_PIECE", 4 * 480 * 640)
    shape = (frames, *before) if channels == 1 else (frames, *before, channels)
    there = np.zeros(shape, dtype)
    found = taken(lambda: resize(there, after, device))
    result = frames * after[0] * after[1] * channels * there.itemsize
    said = resampling.working_bytes(way, frames, before, after, channels)
    assert found <= said + 2 * result + SLACK
    assert found >= 0.7 * said


@pytest.mark.parametrize("given", [LARGE, (64, 128), (48, 100)])
@pytest.mark.parametrize("where", ["host", "device"])
def test_preparing_takes_no_more_than_planned(given: Any, where: str, bundle: Bundle, device: Any) -> None:
    rng = np.random.default_rng(0)
    shape = (bundle.config.frames, *given)
    arrays = [
        (rng.random(shape) > 0.5).astype(np.uint8) * 255,
        rng.random(shape, np.float32),
        rng.integers(0, 256, (*shape, 3), np.uint8),
    ]
    modal, depth, rgb = [device.asarray(array) for array in arrays] if where == "device" else arrays
    backend: Any = SimpleNamespace(xp=device, to_host=device.asnumpy)

    def no_depth(pictures: Any) -> Any:
        raise AssertionError

    def segment() -> Any:
        return segment_inputs(bundle.config, backend, modal, GivenDepth(depth), None, None, no_depth, lambda *_: None)

    def complete() -> Any:
        return complete_inputs(bundle.config, backend, rgb, modal, modal, None, None, lambda *_: None)

    for stage, work in (("segment", segment), ("complete", complete)):
        found, said = taken(work), planned(bundle, stage, "encode", given, depth=False)
        assert found <= said + SLACK, stage
        if given == LARGE and (stage, where) in (("segment", "host"), ("complete", "device")):
            assert found >= 0.6 * said, stage
            assert said > planned(bundle, stage, "encode", None, depth=False)


@pytest.mark.parametrize("given", [LARGE, (64, 128), (48, 100)])
@pytest.mark.parametrize(("stage", "propagates"), [("segment", False), ("complete", False), ("complete", True)])
def test_delivering_takes_no_more_than_planned(
    stage: Any, propagates: bool, given: Any, bundle: Bundle, device: Any
) -> None:
    (frames, size), samples = (bundle.config.frames, bundle.config.size), 3 if stage == "segment" else 1
    pictures = np.random.default_rng(0).uniform(-1, 1, (samples, frames, 3, *size)).astype(np.float32)
    decoded = [device.asarray(one) for one in pictures]
    visible = device.asarray(np.zeros((frames, *size), bool))
    shown = Propagated(np.zeros((frames, *size, 3), np.uint8), np.ones((frames, *size), bool))
    landed = np.empty(samples * frames * 8 * given[0] * given[1] + 10**6, np.uint8)

    def to_host(array: Any) -> Any:
        landed[: array.size] = device._plain(array)  # the host's memory is not counted
        return landed[: array.size]

    backend: Any = SimpleNamespace(xp=device, to_host=to_host)

    def work() -> None:
        found, kept = [], []  # a run holds what was drawn to its end
        for pictured in [images.to_bytes(one, device) for one in decoded]:
            if stage == "segment":
                masks = images.threshold(pictured, visible)
                full = images.resize_masks(masks, given, device)
                found.append({"masks": masks, "masks_full": full, "frames": pictured})
            else:
                drawn = {"frames": pictured, **(paste_known(pictured, shown, device) if propagates else {})}
                found.append({**drawn, "frames_full": images.resize_frames(drawn["frames"], given, device)})
                kept.append(pictured)
            del pictured
        finite = Finiteness(device)
        finite.note(decoded[0], None)  # type: ignore[arg-type]
        Delivery(backend, "host", None)(found, finite)

    found = taken(work)
    moments = delivering(stage, frames, given, size, samples)
    said = max(sum(moment.values()) for moment in moments)
    quantised = 16 * decoded[0].size // 3  # a sample in float32, and in bytes twice
    assert found <= max(said, quantised + samples * decoded[0].size) + SLACK
    if given == LARGE:
        assert found >= 0.7 * said
        assert said < planned(bundle, stage, "decode", given, samples=samples) * 1.0001


def test_pictures_that_are_larger_than_the_bundles_may_not_fit(bundle: Bundle) -> None:
    manifest, family = bundle.manifest, bundle.family
    nothing = {
        key: Footprint(0, dict.fromkeys((p.name for p in family.profiles(manifest, key)), 0))
        for key in manifest.components
    }
    shape, planner = RunShape(("complete",), cfg_rows="separate"), Planner(family, manifest, nothing)
    least = plan_memory(family, manifest, nothing, shape, "sequential").peak_bytes
    assert planner.choose(replace(shape, given=bundle.config.size), least).peak_bytes == least
    with pytest.raises(MemoryError, match=r"in the (encode|decode) phase of complete"):
        planner.choose(replace(shape, given=(1080, 1920)), least)
