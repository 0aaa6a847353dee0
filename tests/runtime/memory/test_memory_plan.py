"""The memory plan: its sums against a slow simulation of a run, its choices against all plans, and its refusals."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amodal
from amodal.runtime.backends import registry
from amodal.runtime.builds.finding import find_build
from amodal.runtime.builds.store import RECORD_VERSION, EngineKey, EngineRecord, EngineStore, graph_hash
from amodal.runtime.bundle.manifest import FileEntry, Manifest
from amodal.runtime.errors import (
    EngineCorruptError,
    EngineNotFoundError,
    EngineStaleError,
    InputError,
    MemoryBudgetError,
)
from amodal.runtime.execution.components import Memory
from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.family import FAMILY
from amodal.runtime.families.diffusion_vas.settings import CfgRows
from amodal.runtime.families.diffusion_vas.shape import RunShape
from amodal.runtime.memory.choice import MEMORIES, Planner, budget_of
from amodal.runtime.memory.plan import Footprint, MemoryPlan, parse_bytes, plan_memory

FRAMES, HEIGHT, WIDTH = 3, 16, 32
LATENT = (4, 8, 16)
SIDE, EMBEDDING, TIME, CONTEXT = 8, 5, 11, 7
DEPTH = (518, 1036)
SHARED = {"image_encoder": "image_encoder", "vae_encoder": "vae_encoder", "vae_decoder": "vae_decoder"}
PROFILE = {
    "image_encoder": "frames=3",
    "vae_encoder": "frames=3",
    "unet_conditioner": "any",
    "depth": "frames=1",
}
"""The profile of each that has one alone."""


def tensors(**shapes: tuple[int | str, ...]) -> list[dict[str, Any]]:
    return [{"name": name, "dtype": "float32", "shape": shape} for name, shape in shapes.items()]


def document() -> dict[str, Any]:
    """A manifest of two stages that share all but their U-Nets, with depth, in 3 frames of 16x32."""
    picture = ("frames", 3, HEIGHT, WIDTH)
    spatial, temporal = ("rows", FRAMES, CONTEXT), ("rows", CONTEXT)
    conditioning = ("rows", FRAMES, 8, *LATENT[1:])
    graphs = {
        "image_encoder": (tensors(pixels=("frames", 3, SIDE, SIDE)), tensors(embeddings=("frames", EMBEDDING))),
        "vae_encoder": (tensors(frames=picture), tensors(latents=("frames", *LATENT))),
        "vae_decoder": (tensors(latents=("frames", *LATENT)), tensors(frames=picture)),
        "unet_conditioner": (
            tensors(context=("rows", FRAMES, EMBEDDING), sigmas=("steps",), time_ids=(3,)),
            tensors(time_table=("steps", TIME), spatial=spatial, temporal=temporal),
        ),
        "unet": (
            tensors(
                latents=(1, FRAMES, *LATENT),
                conditioning=conditioning,
                time=(TIME,),
                spatial=spatial,
                temporal=temporal,
            ),
            tensors(velocity=("rows", FRAMES, *LATENT)),
        ),
        "depth": (tensors(pixels=("frames", 3, *DEPTH)), tensors(depth=("frames", *DEPTH))),
    }
    keys = {**SHARED, "depth": "depth"}
    keys |= {f"{stage}_{kind}": kind for stage in ("segment", "complete") for kind in ("unet_conditioner", "unet")}

    def component(key: str, kind: str) -> dict[str, Any]:
        content = f"graph of {key}".encode()
        return {
            "kind": kind,
            "files": [
                {
                    "role": "graph",
                    "path": f"graphs/{key}.onnx",
                    "bytes": len(content),
                    "sha256": hashlib.sha256(content).hexdigest(),
                }
            ],
            "precision": "fp32",
            "stored": "fp32",
            "variant": {},
            "parameters": 1,
            "inputs": graphs[kind][0],
            "outputs": graphs[kind][1],
            "source": "made up",
            "repeated": kind == "unet",
        }

    config = {
        "frames": FRAMES,
        "height": HEIGHT,
        "width": WIDTH,
        "latent_channels": LATENT[0],
        "vae_factor": 2,
        "decode_chunk": 2,
        "scaling_factor": 1.0,
        "context_layout": "reference",
        "noise_dtype": "float32",
        "noise_augmentation": 0.02,
        "motion_bucket": 127.0,
        "scheduler": {"sigma_min": 0.002, "sigma_max": 700.0},
        "image_encoder": {"side": SIDE, "mean": [0.5] * 3, "std": [0.5] * 3, "width": EMBEDDING},
        "depth": {"height": DEPTH[0], "width": DEPTH[1], "model": "made up"},
    }
    tasks = {
        stage: {
            "components": {**SHARED, **{k: f"{stage}_{k}" for k in ("unet_conditioner", "unet")}},
            "source": "made up",
        }
        for stage in ("segment", "complete")
    }
    tasks["segment"]["components"]["depth"] = "depth"
    return {
        "schema_version": 2,
        "family": "diffusion-vas",
        "amodal_version": "0",
        "created": "now",
        "config": config,
        "tasks": tasks,
        "components": {key: component(key, kind) for key, kind in keys.items()},
    }


@pytest.fixture(scope="module")
def manifest() -> Manifest:
    return Manifest.model_validate_json(json.dumps(document()))


def made_up(manifest: Manifest, seed: int = 0, largest: int = 4_000_000) -> dict[str, Footprint]:
    """Footprints at random; one row of the U-Net takes less than two."""
    rng = np.random.default_rng(seed)
    found = {}
    for key, entry in manifest.components.items():
        weights, some, more = (int(n) for n in rng.integers(1, largest, 3))
        found[key] = footprint(entry.kind, weights, min(some, more), max(some, more))
    return found


def footprint(kind: str, weights: int, one: int, both: int | None = None) -> Footprint:
    """Of a component; a U-Net takes `one` for a CFG row, a decoder for a frame, and `both` for two."""
    both = one if both is None else both
    if kind == "unet":
        return Footprint(weights, {"rows=1": one, "rows=2": both})
    if kind == "vae_decoder":
        return Footprint(weights, {"frames=2": both, "frames=1": one})
    return Footprint(weights, {PROFILE[kind]: one})


def make_plan(
    manifest: Manifest, sizes: Mapping[str, Footprint], shape: RunShape, memory: Memory, cfg_rows: CfgRows
) -> MemoryPlan:
    return plan_memory(FAMILY, manifest, sizes, replace(shape, cfg_rows=cfg_rows), memory)


def plans(manifest: Manifest, sizes: Mapping[str, Footprint], shape: RunShape) -> Iterator[MemoryPlan]:
    return Planner(FAMILY, manifest, sizes).plans(shape)


def choose(
    manifest: Manifest, sizes: Mapping[str, Footprint], shape: RunShape, budget: int | None, *memories: Memory
) -> MemoryPlan:
    return Planner(FAMILY, manifest, sizes).choose(shape, budget, memories or MEMORIES)


def rows_of(plan: MemoryPlan) -> str:
    assert isinstance(plan.run, RunShape)
    return plan.run.cfg_rows


# The sums.


class Device:
    """Counts what is there, event by event."""

    def __init__(self) -> None:
        self.there = self.peak = 0

    @contextmanager
    def holding(self, *sizes: int) -> Iterator[None]:
        self.there += sum(sizes)
        self.peak = max(self.peak, self.there)
        yield
        self.there -= sum(sizes)


def nbytes(*shapes: tuple[int, ...]) -> list[int]:
    return [np.empty(shape, np.float32).nbytes for shape in shapes]


def simulate(sizes: Mapping[str, Footprint], shape: RunShape, memory: str, batched: bool) -> tuple[int, list[int]]:
    """A run as it happens, every array spelt out: the peak of all, and of each phase."""
    rows = 2 if shape.guided else 1
    chunk = 2 if shape.decode_chunk is None else shape.decode_chunk
    frames, latents = (FRAMES, 3, HEIGHT, WIDTH), (FRAMES, 4, 8, 16)
    device, peaks = Device(), []

    def activation(key: str) -> int:
        if key.endswith("unet"):
            return sizes[key].activations["rows=2" if rows == 2 and batched else "rows=1"]
        if key == "vae_decoder":  # three frames: two and one, or one three times
            return max(sizes[key].activations[f"frames={n}"] for n in {chunk, 1})
        (whole,) = sizes[key].activations.values()
        return whole

    def phase(keys: list[str], arrays: list[int]) -> None:
        within, before = Device(), device.there
        with device.holding(*arrays):
            within.there = device.there
            for key in keys:
                with within.holding(*([sizes[key].weights, activation(key)] if memory == "sequential" else [0])):
                    pass
        device.peak = max(device.peak, within.peak)
        peaks.append(within.peak)
        assert device.there == before

    used = []
    for stage in shape.tasks:
        used += ["depth"] if stage == "segment" and shape.depth else []
        used += [*SHARED, f"{stage}_unet_conditioner", f"{stage}_unet"]
    resident = [sizes[key].weights for key in set(used)] + [max(map(activation, used))]
    with device.holding(*(resident if memory == "resident" else [])):
        for stage in shape.tasks:
            samples = shape.samples if stage == "segment" else 1
            if stage == "segment" and shape.depth:
                maps = (FRAMES, HEIGHT, WIDTH)
                seen = [*nbytes(maps, frames, maps), nbytes(frames)[0] // 4]
                # Of one frame, in float64: as it was, half resized, and three of it whole: a tap, its product, the sum.
                work = 2 * nbytes((HEIGHT, WIDTH, 3), (HEIGHT, DEPTH[1], 3)) + 6 * nbytes((3, *DEPTH))
                phase(["depth"], [*seen, *max(work, nbytes((1, 3, *DEPTH), (1, *DEPTH)), key=sum)])
            conditioning = samples * nbytes((rows, FRAMES, 8, 8, 16))
            embeddings = nbytes((FRAMES, EMBEDDING))
            seen = nbytes(*[frames] * 4, (FRAMES, 3, SIDE, SIDE), latents, latents)
            phase(["image_encoder", "vae_encoder"], [*seen, *embeddings, *conditioning])
            constants = nbytes((shape.steps, TIME), (rows, FRAMES, CONTEXT), (rows, CONTEXT))
            asked = nbytes((rows, FRAMES, EMBEDDING), (shape.steps,), (3,))
            phase([f"{stage}_unet_conditioner"], [*embeddings, *asked, *constants, *conditioning])
            drawn = samples * nbytes(latents)
            step = nbytes(latents, latents, latents, latents, *rows * [latents])
            phase([f"{stage}_unet"], [*conditioning, *constants, *drawn, *step])
            pictures = samples * nbytes(frames) + nbytes(frames)
            whole = (samples + 1) * [nbytes(frames)[0] // 4]
            phase(["vae_decoder"], [*drawn, *pictures, *max(nbytes(latents), whole, key=sum)])
    assert device.there == 0
    return device.peak, peaks


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cfg_rows", ["batched", "separate"])
@pytest.mark.parametrize("memory", ["resident", "sequential"])
def test_a_plan_is_what_a_simulated_run_takes(memory: Any, cfg_rows: Any, seed: int, manifest: Manifest) -> None:
    sizes = made_up(manifest, seed)
    several: list[Any] = [("segment", "complete"), ("segment",), ("complete",)]
    for stages, depth, guided, samples, chunk in itertools.product(
        several, (True, False), (True, False), (1, 3), (None, 1)
    ):
        shape = RunShape(stages, depth, guided, 2 + seed, samples, chunk)
        plan = make_plan(manifest, sizes, shape, memory, cfg_rows)
        peak, peaks = simulate(sizes, shape, memory, cfg_rows == "batched")
        assert [phase.peak_bytes for phase in plan.phases] == peaks, shape
        assert plan.peak_bytes == peak == max(peaks)
        assert not plan.estimated
        assert plan.as_json()["context_bytes"] is None


def test_arrays_alone_are_counted_to_the_byte(manifest: Manifest) -> None:
    nothing = {key: footprint(entry.kind, 0, 0) for key, entry in manifest.components.items()}
    plan = make_plan(manifest, nothing, RunShape(("complete",), steps=25), "resident", "batched")
    encode, condition, denoise, decode = plan.phases
    # 4 pictures of 3x3x16x32; 3x3x8x8 pixels; 3x5 embeddings; 2 latents of 3x4x8x16; 2 rows of 3x8x8x16.
    assert encode.peak_bytes == 4 * (4 * 4608 + 576 + 15 + 2 * 1536 + 6144)
    assert condition.peak_bytes == 4 * (15 + 30 + 25 + 3 + 25 * 11 + 42 + 14 + 6144)
    assert denoise.peak_bytes == 4 * (6144 + 25 * 11 + 42 + 14 + 2 * 1536 + 2 * 1536 + 3 * 1536)
    assert decode.peak_bytes == 4 * (1536 + 2 * 4608) + 2 * 4608  # the last two in bytes


def test_a_bundle_without_depth_plans_none(manifest: Manifest) -> None:
    segment = manifest.tasks["segment"]
    roles = {role: key for role, key in segment.components.items() if role != "depth"}
    tasks = {**manifest.tasks, "segment": segment.model_copy(update={"components": roles})}
    without = manifest.model_copy(update={"config": {**manifest.config, "depth": None}, "tasks": tasks})
    plan = make_plan(without, made_up(manifest), RunShape(), "resident", "batched")
    assert "depth" not in plan.weights
    assert [phase.name for phase in plan.phases] == 2 * ["encode", "condition", "denoise", "decode"]


def test_the_plain_form_is_json_and_adds_up(manifest: Manifest) -> None:
    for plan in plans(manifest, made_up(manifest), RunShape()):
        plain = json.loads(json.dumps(plan.as_json()))
        sums = [
            sum(phase["resident"].values()) + phase["scratch_bytes"] + sum(phase["buffers"].values())
            for phase in plain["phases"]
        ]
        assert plain["peak_bytes"] == max(sums) == max(phase["peak_bytes"] for phase in plain["phases"])
        assert plain["weights_bytes"] == sum(part["weights_bytes"] for part in plain["components"].values())
        assert plain["shape"]["stages"] == ["segment", "complete"]


# Estimates and refusals.


def test_at_another_size_activations_grow_with_the_area_where_they_depend_on_it(manifest: Manifest) -> None:
    sizes = made_up(manifest)
    at = [make_plan(manifest, sizes, RunShape(size=s), "resident", "batched") for s in (None, (32, 64), (16, 64))]
    assert [plan.estimated for plan in at] == [False, True, True]
    for key, entry in manifest.components.items():
        ratio = [plan.activations[key] / at[0].activations[key] for plan in at]
        if entry.kind in ("unet", "vae_encoder", "vae_decoder"):
            assert ratio == [1, 4, 2]
        elif entry.kind == "depth":  # it always sees a shorter side of 518: 16x32 and 32x64 are one to it
            assert ratio == pytest.approx([1, 1, 518 * 2072 / (518 * 1036)])
        else:
            assert ratio == [1, 1, 1]
    assert at[1].weights == at[0].weights
    for mine, other in zip(at[0].phases, at[1].phases, strict=True):
        for name in {"frames", "noise", "encoded", "conditioning", "latents", "decoded"} & set(mine.buffers):
            assert other.buffers[name] == 4 * mine.buffers[name]
        for name in {"embeddings", "time_table", "spatial"} & set(mine.buffers):
            assert other.buffers[name] == mine.buffers[name]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (RunShape(size=(20, 32)), "size 20x32 .* multiples of 16; the nearest: 16x32 and 32x32"),
        (RunShape(size=(0, 32)), "multiples of 16; the nearest: 16x32"),
        (RunShape(decode_chunk=3), "`decode_chunk=3`: these engines decode 1 to 2 frames"),
        (RunShape(decode_chunk=0), "`decode_chunk=0`"),
    ],
)
def test_what_no_engine_of_the_bundle_can_do_is_refused(shape: RunShape, message: str, manifest: Manifest) -> None:
    with pytest.raises(InputError, match=message):
        make_plan(manifest, made_up(manifest), shape, "resident", "batched")


def test_a_stage_that_the_bundle_lacks_is_refused(manifest: Manifest) -> None:
    one = manifest.model_copy(update={"tasks": {"segment": manifest.tasks["segment"]}})
    with pytest.raises(InputError, match="no complete stage; export it again with `amodal export --complete"):
        make_plan(one, made_up(manifest), RunShape(("complete",)), "resident", "batched")


def test_an_engine_without_the_profile_is_stale(manifest: Manifest) -> None:
    sizes = made_up(manifest) | {"segment_unet": Footprint(1, {"rows=1": 1})}
    make_plan(manifest, sizes, RunShape(), "resident", "separate")
    with pytest.raises(
        EngineStaleError, match=r"segment_unet lacks the profile rows=2 \(it has: rows=1\).*amodal build"
    ):
        make_plan(manifest, sizes, RunShape(), "resident", "batched")


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("6GB", 6_000_000_000),
        ("6.5GB", 6_500_000_000),
        ("800MB", 800_000_000),
        ("6GiB", 6 * 2**30),
        ("0.3 gb", 300_000_000),
        (" 1.5 MiB ", 3 * 2**19),
        ("12kB", 12_000),
        ("1TB", 10**12),
        ("123B", 123),
    ],
)
def test_amounts_of_memory(text: str, count: int) -> None:
    assert parse_bytes(text) == budget_of(text) == budget_of(count) == count


@pytest.mark.parametrize(
    "text", ["6", "", "GB", "-6GB", "6G", "6 gigabytes", "1e3GB", "0GB", "0.1B", "nanGB", "6,5GB", "6iB", "٦GB"]
)
def test_what_is_no_amount_of_memory(text: str) -> None:
    with pytest.raises(InputError, match="is no amount of memory; expected a number and its unit"):
        parse_bytes(text)


@pytest.mark.parametrize("count", [0, -1, True])
def test_what_is_no_number_of_bytes(count: int) -> None:
    with pytest.raises(InputError, match="1 or more, or text like 6GB"):
        budget_of(count)


# The choice.

WAYS = [("resident", "batched"), ("resident", "separate"), ("sequential", "batched"), ("sequential", "separate")]


def heavy_unets(manifest: Manifest) -> dict[str, Footprint]:
    """Footprints with which each way takes less than the one before."""
    return {
        key: footprint("unet", 90_000_000, 60_000_000, 110_000_000)
        if entry.kind == "unet"
        else footprint(entry.kind, 10_000_000, 20_000_000)
        for key, entry in manifest.components.items()
    }


def test_the_fastest_way_that_fits_is_chosen(manifest: Manifest) -> None:
    sizes = heavy_unets(manifest)
    ways = list(plans(manifest, sizes, RunShape()))
    assert [(way.memory, rows_of(way)) for way in ways] == WAYS
    peaks = [way.peak_bytes for way in ways]
    assert peaks == sorted(set(peaks), reverse=True), "else a choice below would not show"
    for way, peak in zip(ways, peaks, strict=True):
        assert choose(manifest, sizes, RunShape(), peak) == way
    assert choose(manifest, sizes, RunShape(), None) == ways[0]
    for before, way in itertools.pairwise(ways):
        assert choose(manifest, sizes, RunShape(), before.peak_bytes - 1) == way
    with pytest.raises(MemoryBudgetError):
        choose(manifest, sizes, RunShape(), peaks[-1] - 1)


def test_what_was_asked_for_is_not_changed(manifest: Manifest) -> None:
    sizes = heavy_unets(manifest)
    resident, _, batched, least = plans(manifest, sizes, RunShape())
    assert choose(manifest, sizes, RunShape(cfg_rows="batched"), least.peak_bytes * 2).memory == "sequential"
    with pytest.raises(MemoryBudgetError, match=r"sequential memory with separate CFG rows \(150\.1 MB\)"):
        choose(manifest, sizes, RunShape(cfg_rows="batched"), batched.peak_bytes - 1)
    with pytest.raises(MemoryBudgetError, match="What would fit: sequential memory with batched CFG rows"):
        choose(manifest, sizes, RunShape(), batched.peak_bytes, "resident")
    assert resident.peak_bytes > batched.peak_bytes


def test_without_guidance_there_is_one_row_and_two_ways(manifest: Manifest) -> None:
    ways = list(plans(manifest, heavy_unets(manifest), RunShape(guided=False)))
    assert [way.memory for way in ways] == ["resident", "sequential"]
    assert {way.activations["segment_unet"] for way in ways} == {60_000_000}


def smaller_settings(sentence: str) -> dict[str, tuple[float, bool]]:
    """What a refusal proposes: option -> MB, and whether it is an estimate."""
    found = re.findall(r"(?:fit: |; )([^;(]+) \(([\d.]+) MB(, an estimate)?\)", sentence)
    return {option: (float(size), bool(mark)) for option, size, mark in found}


def test_a_refusal_says_what_is_least_and_what_would_fit_and_each_does(manifest: Manifest) -> None:
    sizes = {key: footprint(entry.kind, 1_000_000, 1_000_000) for key, entry in manifest.components.items()}
    sizes["segment_unet"] = footprint("unet", 1_000_000, 0)
    sizes["vae_decoder"] = footprint("vae_decoder", 1_000_000, 40_000_000)
    sizes["complete_unet"] = Footprint(3_000_000, {"rows=1": 39_500_000, "rows=2": 39_500_000})
    shape = RunShape(depth=False, size=(64, 128))
    sized = {
        key: Footprint(f.weights, {name: n // 16 for name, n in f.activations.items()}) for key, f in sizes.items()
    }
    least = make_plan(manifest, sized, shape, "sequential", "separate")
    assert least.peak.name == "denoise"
    with pytest.raises(MemoryBudgetError) as caught:
        choose(manifest, sized, shape, 42_000_000)
    sentence = str(caught.value)
    assert sentence.startswith("0.042 GB of GPU memory are not enough (`vram`): the least is ")
    said = re.search(r"the least is ([\d.]+ MB), in the denoise phase of complete \(complete_unet\)", sentence)
    assert said is not None
    assert 0 <= parse_bytes(said[1]) - least.peak_bytes < 100_000
    proposed = smaller_settings(sentence)
    assert set(proposed) == {"segment alone", "a bundle exported for frames of 48x96"}
    for option, (size, estimate) in proposed.items():
        change: dict[str, Any] = {"tasks": ("segment",)} if "alone" in option else {"size": (48, 96)}
        ways = list(plans(manifest, sized, replace(shape, **change)))
        assert estimate is True
        assert any(0 <= size - way.peak_bytes / 1e6 < 0.1 and way.fits(42_000_000) for way in ways)


@pytest.mark.parametrize(
    ("chunk", "decoded"),
    [
        (None, {"frames=8": (3, Fraction(1)), "frames=1": (1, Fraction(1))}),
        (7, {"frames<=7": (3, Fraction(1)), "frames<=7 ": (1, Fraction(4, 7))}),
        (4, {"frames<=7": (6, Fraction(4, 7)), "frames=1": (1, Fraction(1))}),
        (1, {"frames=1": (25, Fraction(1))}),
    ],
)
def test_a_decode_chunk_without_a_profile_of_its_own_is_an_estimate(
    manifest: Manifest, chunk: int | None, decoded: dict[str, tuple[int, Fraction]]
) -> None:
    real = manifest.model_copy(update={"config": {**manifest.config, "frames": 25, "decode_chunk": 8}})
    made = FAMILY.calls(real, RunShape(("segment",), decode_chunk=chunk))
    found = [call for phase in made.phases if phase.name == "decode" for call in phase.calls]
    assert [(call.profile, call.count, call.share) for call in found] == [
        (name.strip(), *rest) for name, rest in decoded.items()
    ]
    assert made.estimated == any(share != 1 for _, share in decoded.values())


def test_the_largest_decode_chunk_and_the_most_samples_that_fit_are_proposed(manifest: Manifest) -> None:
    longer = manifest.model_copy(update={"config": {**manifest.config, "decode_chunk": 3}})
    sizes = {key: footprint(entry.kind, 0, 0) for key, entry in manifest.components.items()}
    sizes["vae_decoder"] = Footprint(0, {"frames=3": 3_000_000, "frames<=2": 2_000_000})
    shape = RunShape(("segment",), depth=False, samples=100)
    whole = make_plan(longer, sizes, shape, "sequential", "batched").peak_bytes
    # A chunk of two takes a third of 3 MB less; a sample takes 18432 + 6144 + 4608 bytes in decoding.
    with pytest.raises(MemoryBudgetError) as caught:
        choose(longer, sizes, shape, whole - 200_000)
    assert set(smaller_settings(str(caught.value))) >= {"`samples=93`", "`decode_chunk=2`"}
    with pytest.raises(MemoryBudgetError) as caught:
        choose(longer, sizes, shape, whole - 1)
    assert "`samples=99`" in smaller_settings(str(caught.value))
    with pytest.raises(MemoryBudgetError) as caught:
        choose(longer, sizes, shape, whole - 1_500_000)
    assert "`decode_chunk=1`" in smaller_settings(str(caught.value))


def test_a_refusal_without_a_way_out_says_so(manifest: Manifest) -> None:
    with pytest.raises(MemoryBudgetError, match=r"No single smaller setting would fit either\.$"):
        choose(manifest, made_up(manifest), RunShape(), 1000)


# Which engines.


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    folder = tmp_path / "bundle"
    (folder / "graphs").mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(document()))
    for key in document()["components"]:
        (folder / "graphs" / f"{key}.onnx").write_text(f"graph of {key}")
    return Bundle(folder)


def write_build(
    bundle: Bundle, sizes: Mapping[str, Footprint], version: str = "1.2", target: str = "sm86", **changes: Any
) -> Path:
    """Records as `amodal build` leaves them; the engines themselves are not looked at."""
    store = EngineStore(bundle.path / "engines", "tensorrt_rtx", version, changes.pop("folder", target))
    store.folder.mkdir(parents=True)
    for key, footprint in sizes.items():
        fields: dict[str, Any] = {
            "component": key,
            "graph": graph_hash(bundle, key),
            "backend": "tensorrt_rtx",
            "version": version,
            "target": target,
            "precision": "fp32",
            "profiles": FAMILY.profiles(bundle.manifest, key),
        }
        record = EngineRecord(
            record_version=RECORD_VERSION,
            key=EngineKey(**fields | changes),
            file=FileEntry(path=f"{key}.engine", bytes=1, sha256="0" * 64),
            weights_bytes=footprint.weights,
            activation_bytes=dict(footprint.activations),
            layers=(1, 1),
            seconds=0,
            peak_bytes=0,
        )
        store.record_file(key).write_text(record.model_dump_json())
    return store.folder


def age(folder: Path, seconds: float) -> None:
    for file in folder.iterdir():
        os.utime(file, (1e9 - seconds, 1e9 - seconds))


def find(bundle: Bundle, target: str | None = None, components: Sequence[str] = ("vae_encoder", "depth")) -> Any:
    profiles = {key: FAMILY.profiles(bundle.manifest, key) for key in components}
    return find_build(bundle, bundle.path / "engines", "tensorrt_rtx", profiles, target)


def test_the_newest_build_or_that_of_the_target_is_taken(bundle: Bundle, manifest: Manifest) -> None:
    sizes = made_up(manifest)
    older = write_build(bundle, sizes, "1.10", "sm86")
    newer = write_build(bundle, sizes, "1.9", "sm120")
    both = write_build(bundle, sizes, "1.9", "sm86+sm89")
    everywhere = write_build(bundle, sizes, "1.9", "sm75+sm80+sm86", folder="portable")
    here = write_build(bundle, sizes, "1.9", "sm90", folder="this-sm90")
    for seconds, folder in enumerate((newer, everywhere, both, older, here)):
        age(folder, seconds)
    assert find(bundle).folder == newer
    wanted = {
        "sm86": older,
        "86": older,
        "sm89": both,
        "sm89,sm86": both,
        "sm75": everywhere,
        "portable": everywhere,
        "this": here,
        "sm90": here,
        "SM_120": newer,
    }
    assert {target: find(bundle, target).folder for target in wanted} == wanted
    found = find(bundle, "sm86")
    assert (found.version, found.target, set(found.records)) == ("1.10", "sm86", {"vae_encoder", "depth"})
    assert found.records["depth"].weights_bytes == sizes["depth"].weights
    with pytest.raises(EngineNotFoundError, match=r"no engines of tensorrt_rtx for sm100, only for .*sm86"):
        find(bundle, "sm100")


def test_a_build_that_cannot_be_used_makes_way_for_one_that_can(bundle: Bundle, manifest: Manifest) -> None:
    sizes = made_up(manifest)
    age(write_build(bundle, sizes, "1.1"), 5)
    age(write_build(bundle, sizes, "1.2", graph="0" * 64), 4)
    age(write_build(bundle, {"depth": sizes["depth"]}, "1.3"), 3)
    damaged = write_build(bundle, sizes, "1.4")
    (damaged / "depth.json").write_text("{")
    age(damaged, 2)
    assert find(bundle).version == "1.1"


@pytest.mark.parametrize(
    ("spoil", "error", "message"),
    [
        (
            lambda b, s: write_build(b, s, graph="0" * 64),
            EngineStaleError,
            "stale, the graph has changed since; .*amodal",
        ),
        (
            lambda b, s: write_build(b, s, profiles=()),
            EngineStaleError,
            "stale, it was built for other shapes; .*amodal",
        ),
        (
            lambda b, s: write_build(b, s, precision="fp16"),
            EngineStaleError,
            "stale, it was built in another precision: fp16, wanted fp32; .*amodal",
        ),
        (
            lambda b, s: write_build(b, {"depth": s["depth"]}),
            EngineNotFoundError,
            "no engine of vae_encoder in .*amodal",
        ),
        (
            lambda b, s: (write_build(b, s) / "depth.json").write_text("{}"),
            EngineCorruptError,
            "depth.json cannot be read",
        ),
        (lambda b, s: None, EngineNotFoundError, "run `amodal build .* --target sm86` first, which needs no GPU"),
    ],
)
def test_engines_that_cannot_be_used_are_refused_with_the_reason(
    spoil: Callable[..., Any], error: type[Exception], message: str, bundle: Bundle, manifest: Manifest
) -> None:
    spoil(bundle, made_up(manifest))
    with pytest.raises(error, match=message):
        find(bundle)


def test_engines_of_another_graph_are_stale_after_a_new_export(bundle: Bundle, manifest: Manifest) -> None:
    write_build(bundle, made_up(manifest))
    find(bundle)
    (bundle.path / "graphs" / "depth.onnx").write_text("graph of d3pth")
    changed = json.loads((bundle.path / "manifest.json").read_text())
    changed["components"]["depth"]["files"][0]["sha256"] = hashlib.sha256(b"graph of d3pth").hexdigest()
    (bundle.path / "manifest.json").write_text(json.dumps(changed))
    with pytest.raises(EngineStaleError, match="engine of depth"):
        find(Bundle(bundle.path))
    assert find(Bundle(bundle.path), components=["vae_encoder"]).version == "1.2"


# A model obeys its plan.


class Gpu:
    """A backend that draws zeros and counts what its engines take."""

    name, xp, lanes, engines, on_gpu = "tensorrt_rtx", np, 1, None, True

    def __init__(self, sizes: Mapping[str, Footprint]) -> None:
        self.sizes = sizes
        self.weights = self.peak = 0
        self.loaded: list[str] = []
        self.ever: list[str] = []
        self.rows: list[int] = []

    def load(self, entry: Any, files: list[Path], lanes: int = 1) -> Any:
        assert lanes == 1
        self.loaded.append(files[0].stem)
        self.ever.append(files[0].stem)
        self.weights += self.sizes[files[0].stem].weights
        self.peak = max(self.peak, self.weights)
        return Zeros(self, entry, files[0].stem)

    def active(self) -> Any:
        return nullcontext()

    def to_host(self, array: Any) -> Any:
        return array

    def reserve_activations(self, size: int) -> None:
        self.reserved = size

    def describe(self) -> dict[str, str]:
        return {"name": self.name}


class Zeros:
    def __init__(self, gpu: Gpu, entry: Any, key: str) -> None:
        self.gpu, self.entry, self.key = gpu, entry, key

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        bound: dict[str, int] = {}
        for tensor in self.entry.inputs:
            for wanted, found in zip(tensor.shape, inputs[tensor.name].shape, strict=True):
                assert bound.setdefault(wanted, found) == found if isinstance(wanted, str) else wanted == found
        if self.entry.kind == "unet":
            self.gpu.rows.append(bound["rows"])
        profiles = self.gpu.sizes[self.key].activations
        running = profiles.get(f"rows={bound.get('rows')}") or next(iter(profiles.values()))
        self.gpu.peak = max(self.gpu.peak, self.gpu.weights + running)
        return {
            tensor.name: np.zeros([bound[n] if isinstance(n, str) else n for n in tensor.shape], np.float32)
            for tensor in self.entry.outputs
        }

    def map(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        return [self(inputs) for inputs in batches]

    def close(self) -> None:
        self.gpu.loaded.remove(self.key)
        self.gpu.weights -= self.gpu.sizes[self.key].weights


@pytest.fixture
def gpu(bundle: Bundle, manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> Gpu:
    sizes = heavy_unets(manifest)
    write_build(bundle, sizes)
    gpu = Gpu(sizes)
    module = types.SimpleNamespace(create=lambda name, device, threads: gpu)
    monkeypatch.setitem(registry._MODULES, "tensorrt_rtx", "made up")
    monkeypatch.setattr(registry, "import_module", lambda name: module)
    return gpu


MODAL = np.zeros((FRAMES, HEIGHT, WIDTH), bool)
RGB = np.zeros((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
MAPS = np.linspace(0, 1, MODAL.size, dtype=np.float32).reshape(MODAL.shape)


def run(model: amodal.Model, **options: Any) -> None:
    seen = model.segment(MODAL, rgb=RGB, **{"steps": 2, **options})
    options.pop("samples", None)
    model.complete(RGB, MODAL, seen.masks, **{"steps": 2, **options})


@pytest.mark.parametrize("index", range(4))
def test_a_run_takes_what_was_planned_and_in_the_way_that_was_planned(
    index: int, bundle: Bundle, gpu: Gpu, manifest: Manifest
) -> None:
    way = list(plans(manifest, gpu.sizes, RunShape()))[index]
    with amodal.load(bundle.path, "tensorrt_rtx", memory="auto", vram=way.peak_bytes) as model:
        assert (model.memory, model.plan) == (WAYS[index][0], way)
        run(model)
        arrays = max(phase.buffer_bytes for phase in way.phases)
        assert way.peak_bytes - arrays <= gpu.peak <= way.peak_bytes
        assert gpu.rows == ([2] * 4 if rows_of(way) == "batched" else [1] * 8)
        assert sorted(gpu.loaded) == (sorted(way.weights) if way.memory == "resident" else [])
    assert gpu.loaded == []


def test_nothing_is_loaded_where_nothing_fits(bundle: Bundle, gpu: Gpu) -> None:
    with pytest.raises(MemoryBudgetError, match=r"0\.1 GB of GPU memory are not enough"):
        amodal.load(bundle.path, "tensorrt_rtx", memory="auto", vram="100MB")
    with pytest.raises(MemoryBudgetError, match="with resident memory"):
        amodal.load(bundle.path, "tensorrt_rtx", memory="resident", vram="230MB")
    assert gpu.ever == []
    assert amodal.load(bundle.path, "tensorrt_rtx", memory="sequential", vram="230MB").memory == "sequential"


def test_without_a_limit_the_memory_is_what_was_asked_for(bundle: Bundle, gpu: Gpu) -> None:
    wishes: list[Any] = ["auto", "resident", "sequential"]
    found = [amodal.load(bundle.path, "tensorrt_rtx", memory=wish) for wish in wishes]
    assert [model.memory for model in found] == ["resident", "resident", "sequential"]
    assert [rows_of(model.plan) for model in found if model.plan] == 3 * ["batched"]


@pytest.mark.slow
def test_a_run_that_takes_more_than_was_planned_is_held_to_the_limit(
    bundle: Bundle, gpu: Gpu, manifest: Manifest
) -> None:
    def peak(shape: RunShape, memory: Any, rows: Any) -> int:
        return make_plan(manifest, gpu.sizes, shape, memory, rows).peak_bytes

    budget = peak(RunShape(), "sequential", "batched")
    with amodal.load(bundle.path, "tensorrt_rtx", memory="auto", vram=budget) as model:
        assert model.plan is not None
        assert (model.memory, rows_of(model.plan)) == ("sequential", "batched")
        run(model, samples=3)  # 2 more samples' conditioning beside the U-Net: one row at a time makes room for it
        assert gpu.rows == [1] * 12 + [2] * 2
        loads = len(gpu.ever)
        with pytest.raises(MemoryBudgetError, match="`samples="):
            model.segment(MODAL, rgb=RGB, samples=3, cfg_rows="batched")
        with pytest.raises(MemoryBudgetError, match="`samples="):
            model.segment(MODAL, depth=MAPS, samples=5000)
        with pytest.raises(InputError, match="`decode_chunk=3`: these engines decode 1 to 2"):
            model.complete(RGB, MODAL, MODAL, decode_chunk=3)
        assert len(gpu.ever) == loads, "refused before anything was loaded"


@pytest.mark.parametrize(
    "run_with",
    [
        lambda model, large: model.segment(MODAL, rgb=large),
        lambda model, large: model.segment(MODAL, depth=large[..., 0]),
        lambda model, large: model.complete(large, MODAL, MODAL),
        lambda model, large: model.complete(list(large), MODAL, MODAL),
        lambda model, large: model.complete(RGB, MODAL, large[..., 0] > 0),
    ],
    ids=["rgb for depth", "depth", "rgb", "list", "amodal"],
)
def test_the_largest_of_the_pictures_is_planned_for(
    run_with: Any, bundle: Bundle, gpu: Gpu, manifest: Manifest
) -> None:
    budget = make_plan(manifest, gpu.sizes, RunShape(), "resident", "batched").peak_bytes
    with amodal.load(bundle.path, "tensorrt_rtx", memory="resident", vram=budget) as model:
        with pytest.raises(MemoryBudgetError, match="`vram`"):
            run_with(model, np.zeros((FRAMES, 1080, 1920, 3), np.uint8))
        assert gpu.ever == []
        model.complete(np.zeros((FRAMES, 3, HEIGHT, WIDTH), np.float32), MODAL, MODAL, steps=1)


def test_a_model_planned_for_one_stage_does_not_run_the_other(bundle: Bundle, gpu: Gpu, manifest: Manifest) -> None:
    one = RunShape(("segment",), depth=False)
    resident = make_plan(manifest, gpu.sizes, one, "resident", "batched")
    with amodal.load(bundle.path, "tensorrt_rtx", memory="auto", vram=resident.peak_bytes, shape=one) as model:
        assert model.plan == resident
        model.segment(MODAL, depth=MAPS, steps=2)
        with pytest.raises(InputError, match="loaded for segment alone; load it for complete too"):
            model.complete(RGB, MODAL, MODAL)


@pytest.mark.parametrize(
    ("samples", "smaller"),
    [(2000, RunShape(("segment",), samples=2000)), (1450, RunShape(depth=False, samples=1450))],
    ids=["the other stage", "depth"],
)
def test_what_is_loaded_already_counts_in_resident_memory(
    samples: int, smaller: RunShape, bundle: Bundle, gpu: Gpu, manifest: Manifest
) -> None:
    budget = make_plan(manifest, gpu.sizes, RunShape(), "resident", "batched").peak_bytes
    assert make_plan(manifest, gpu.sizes, smaller, "resident", "batched").fits(budget), "by itself"
    with amodal.load(bundle.path, "tensorrt_rtx", memory="resident", vram=budget) as model:
        model.segment(MODAL, rgb=RGB, steps=2)
        given = {"rgb": RGB} if smaller.depth else {"depth": MAPS}
        with pytest.raises(MemoryBudgetError, match="with resident memory"):
            model.segment(MODAL, **given, samples=samples, cfg_rows="batched")


def test_a_model_planned_to_be_given_depth_does_not_compute_it(bundle: Bundle, gpu: Gpu) -> None:
    (bundle.path / "engines" / "tensorrt_rtx-1.2-sm86" / "depth.json").unlink()
    with pytest.raises(EngineNotFoundError, match="no engine of depth"):
        amodal.load(bundle.path, "tensorrt_rtx")
    with amodal.load(bundle.path, "tensorrt_rtx", shape=RunShape(depth=False)) as model:
        model.segment(MODAL, depth=MAPS, steps=2)
        with pytest.raises(InputError, match="loaded for given depth; pass it"):
            model.segment(MODAL, rgb=RGB, steps=2)


def test_the_rows_asked_for_are_planned_for(bundle: Bundle, gpu: Gpu, manifest: Manifest) -> None:
    shape = RunShape(cfg_rows="separate")
    with amodal.load(bundle.path, "tensorrt_rtx", memory="auto", vram="1GB", shape=shape) as model:
        assert model.plan is not None
        assert (model.plan.memory, rows_of(model.plan)) == ("resident", "separate")
        run(model)
    assert set(gpu.rows) == {1}


def test_on_a_cpu_auto_is_resident_and_a_limit_on_gpu_memory_is_refused(bundle: Bundle) -> None:
    pytest.importorskip("onnxruntime")
    with amodal.load(bundle.path, memory="auto") as model:
        assert (model.memory, model.plan) == ("resident", None)
    with pytest.raises(InputError, match="`vram`: backend onnxruntime uses no GPU memory; leave it out"):
        amodal.load(bundle.path, vram="6GB")
    with pytest.raises(InputError, match="`engine_dir`: backend onnxruntime runs graphs, not engines"):
        amodal.load(bundle.path, engine_dir="engines")
    with pytest.raises(InputError, match="memory 'half' is unknown; expected resident or sequential, or auto"):
        amodal.load(bundle.path, memory="half")  # type: ignore[arg-type]


def test_engines_are_looked_for_where_they_were_put(bundle: Bundle, gpu: Gpu, tmp_path: Path) -> None:
    with pytest.raises(EngineNotFoundError, match=f"--engine-dir {tmp_path}"):
        amodal.load(bundle.path, "tensorrt_rtx", engine_dir=tmp_path)
    (bundle.path / "engines").rename(tmp_path / "kept")
    plan = amodal.load(bundle.path, "tensorrt_rtx", engine_dir=tmp_path / "kept").plan
    assert isinstance(plan, MemoryPlan)
