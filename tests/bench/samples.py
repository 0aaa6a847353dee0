"""A results file with everything in it, as if measured; its figures are made up and far from any machine's."""

from __future__ import annotations

from typing import Any

import numpy as np

from amodal.bench.schema import (
    Ceilings,
    ClipTimes,
    ComponentCost,
    Executed,
    Fidelity,
    Gpu,
    Latency,
    Machine,
    Measurement,
    Memory,
    Peer,
    Peers,
    Point,
    Prediction,
    Preset,
    Quality,
    Results,
    Roofline,
    Scaling,
    Skipped,
    Span,
    StageFidelity,
    Subject,
    Sweep,
    Timeline,
    Work,
)

WORK = Work(stages=["segment", "complete"], frames=25, size=(256, 512), steps=25)
CPU = Executed(backend="onnxruntime", version="9.9.9", device="cpu", memory="resident", options={"threads": "2"})
GPU = Executed(backend="tensorrt_rtx", version="9.9.9", device="cuda:0", memory="sequential")
_SHARES = {
    "segment/image_encoder": 0.01,
    "segment/vae_encoder": 0.03,
    "segment/unet_conditioner": 0.002,
    "segment/unet": 0.38,
    "segment/vae_decoder": 0.07,
    "complete/image_encoder": 0.01,
    "complete/vae_encoder": 0.03,
    "complete/unet_conditioner": 0.002,
    "complete/unet": 0.37,
    "complete/vae_decoder": 0.07,
}


def noisy(rng: np.random.Generator, value: float, count: int, noise: float = 0.02) -> list[float]:
    """Samples around a median, some far above it."""
    late = np.where(rng.random(count) < 0.1, rng.exponential(0.1, count), 0)
    return (value * np.exp(rng.normal(0, noise, count) + late)).tolist()


def make_clips(
    rng: np.random.Generator, total: float, count: int, slower: float = 1.0, device: bool = False
) -> list[ClipTimes]:
    clips = []
    for whole in noisy(rng, total, count):
        parts = {name: whole * share * rng.normal(1, 0.01) for name, share in _SHARES.items()}
        parts["segment/unet"] *= slower
        seconds = sum(parts.values()) + 0.026 * whole
        steps = {s: (parts[f"{s}/unet"] / 25 * rng.normal(1, 0.01, 25)).tolist() for s in ("segment", "complete")}
        events = {"networks": 0.95 * seconds, "sampler": 0.01 * seconds, "copies": 0.005 * seconds} if device else None
        clips.append(ClipTimes(seconds=seconds, processor=1.9 * seconds, components=parts, steps=steps, device=events))
    return clips


def make_latency(executed: Executed = CPU, total: float = 111.0, count: int = 12, seed: int = 1, **how: Any) -> Latency:
    rng = np.random.default_rng(seed)
    return Latency(
        work=WORK,
        executed=executed,
        cold={"import": 0.444, "open": 0.111, "load": 3.33, "first clip": 1.3 * total},
        clips=make_clips(rng, total, count, **how),
        overhead=0.0011,
        warnings=["another process used 33 % of a core meanwhile"] if executed is CPU else [],
    )


def make_memory(executed: Executed = CPU, gpu: bool = False) -> Memory:
    kinds = {"vae_encoder": "encode", "unet_conditioner": "condition", "unet": "denoise", "vae_decoder": "decode"}
    names = [f"{stage}/{kind}" for stage in WORK.stages for kind in kinds]
    levels = [1.1, 1.2, 2.2, 1.8, 1.3, 1.3, 2.1, 1.7]
    widths = [6, 2, 60, 12, 6, 2, 58, 12]
    times = np.linspace(0, sum(widths) + 8, 2000)
    level, phases, begin = np.full(times.shape, 0.6), [], 4.0
    for name, height, width in zip(names, levels, widths, strict=True):
        level[(times >= begin) & (times < begin + width)] = height
        phases.append(Span(name=name, begin=begin, end=begin + width))
        begin += width
    level += 0.05 * np.abs(np.sin(times))
    host = Timeline(seconds=times.tolist(), bytes=(level * 1e9).astype(int).tolist())
    on_device = Timeline(seconds=times.tolist(), bytes=(2.5 * level * 1e9).astype(int).tolist())
    whole = Timeline(seconds=times.tolist(), bytes=((2.5 * level + 0.7) * 1e9).astype(int).tolist())
    return Memory(
        work=WORK,
        executed=executed,
        host=host,
        host_peak=max(host.bytes) + 11_000_000,
        host_before=555_000_000,
        device={"process": on_device, "device": whole} if gpu else {},
        allocators={"cupy pool": 1_234_000_000, "scratch": 2_345_000_000} if gpu else {},
        planned={_phase(name, kinds): int(2.6e9 * height) for name, height in zip(names, levels, strict=True) if gpu},
        phases=phases,
    )


def _phase(name: str, kinds: dict[str, str]) -> str:
    stage, _, kind = name.partition("/")
    return f"{stage}/{kinds[kind]}"


def make_fidelity(executed: Executed = CPU, start: float = 2e-6) -> Fidelity:
    growth = (start * np.geomspace(1, 30, 25)).tolist()
    return Fidelity(
        work=WORK,
        executed=executed,
        reference="float32 onnxruntime",
        stages=[
            StageFidelity(stage="segment", latents=growth, masks_iou=0.9977, frames_mean=0.033, frames_max=11),
            StageFidelity(
                stage="complete", latents=[1.5 * x for x in growth], masks_iou=None, frames_mean=0.22, frames_max=22
            ),
        ],
    )


def make_quality() -> Quality:
    rng = np.random.default_rng(7)
    presets = [
        ("full", 25, 0.8111, 0.5111, 111.0),
        ("balanced", 12, 0.8088, 0.5022, 55.5),
        ("fast", 6, 0.7888, 0.4666, 28.8),
        ("no guidance", 25, 0.7777, 0.4444, 66.6),
        ("draft", 3, 0.7111, 0.3333, 15.5),
    ]
    return Quality(
        executed=CPU,
        scenes=44,
        presets=[
            Preset(
                name=name,
                work=WORK.model_copy(update={"steps": steps, "stages": ["segment"]}),
                miou=miou,
                miou_occ=occ,
                flicker=0.0333,
                seconds=noisy(rng, s, 8),
            )
            for name, steps, miou, occ, s in presets
        ],
        baselines={"modal mIoU": 0.6111, "convex mIoU": 0.6666, "convex mIoU_occ": 0.2222},
    )


def make_peers() -> Peers:
    rng = np.random.default_rng(8)
    drift = np.linspace(1, 1.05, 8)
    named = [
        ("diffusers eager", "the reference pipeline, float32", 333.0),
        ("torch.compile", "the same, compiled", 222.0),
        ("amodal onnxruntime", "resident, 2 threads", 111.0),
    ]
    return Peers(
        work=WORK,
        peers=[
            Peer(
                name=name,
                description=description,
                seconds=(drift * noisy(rng, s, 8)).tolist(),
                first=1.5 * s,
                host_peak=int(1e7 * s),
                agreement={} if s == 333 else {"latents_relative_l2": 3.3e-6, "masks_iou": 0.9999},
            )
            for name, description, s in named
        ],
    )


def make_roofline() -> Roofline:
    rng = np.random.default_rng(9)
    costs = [("image_encoder", 2, 4e12, 1.2e9, 4e9, 3.3), ("vae_encoder", 2, 2e13, 3e8, 2e11, 6.6)]
    costs += [("unet", 50, 7.5e14, 1.5e11, 9e12, 83.0), ("vae_decoder", 8, 9e13, 2e9, 9e11, 15.0)]
    costs += [("unet_conditioner", 2, 1e10, 8e8, 1e9, 0.4)]
    rates = [("Imaginary 1000", "fp32", 1e14, 1e12, 12), ("Imaginary 1000", "fp16", 2e14, 1e12, 12)]
    rates += [("Imaginary 5000", "fp32", 4e14, 2e12, 48), ("Unobtainium <X>", "fp16", 9e14, 4e12, 96)]
    return Roofline(
        work=WORK,
        executed=CPU,
        components=[
            ComponentCost(
                component=f"segment/{name}",
                precision="fp32",
                calls=calls,
                flops={"matmul": 0.6 * f, "attention": 0.2 * f, "convolution": 0.19 * f, "other": 0.01 * f},
                weights=w,
                activations=a,
                boundary=0.2 * a,
                seconds=s,
            )
            for name, calls, f, w, a, s in costs
        ]
        + [
            ComponentCost(
                component="depth", precision="fp16", calls=1, flops={}, weights=1e9, activations=1e9, boundary=1e8
            )
        ],
        ceilings=Ceilings(
            precision="float32",
            library="Imaginary BLAS",
            side=1111,
            flops=noisy(rng, 1.1e13, 9),
            bandwidth=noisy(rng, 2.2e11, 9),
        ),
        predictions=[
            Prediction(
                gpu=gpu,
                accumulation=accumulation,  # type: ignore[arg-type]
                rate=rate,
                rate_single=rate / 2,
                bandwidth=bandwidth,
                vram=vram * 10**9,
                floor=8.6e14 / rate / 25,
                likely=8.6e14 / rate / 25 / 0.45,
                likely_share=0.45,
                planned=13 * 10**9,
                way="resident, batched",
                fits=vram > 13,
                source="a made-up data sheet",
            )
            for gpu, accumulation, rate, bandwidth, vram in rates
        ],
    )


def make_scaling() -> Scaling:
    rng = np.random.default_rng(10)
    axes = [("frames", "frames", [5, 10, 15, 20, 25], 4.0, 4.3), ("steps", "steps", [1, 5, 10, 25], 11.0, 4.0)]
    axes += [("pixels", "pixels", [8192, 32768, 131072], 3.0, 8.2e-4)]
    return Scaling(
        work=WORK,
        executed=CPU,
        sweeps=[
            Sweep(
                axis=axis,
                unit=unit,
                points=[
                    Point(value=x, seconds=noisy(rng, fixed + each * x, 5), peak=int(1e9 + 2e8 * x / values[0]))
                    for x in values
                ],
                fixed=fixed,
                each=each,
                exponent=0.93,
                skipped={"524288": "the bundle's size is fixed"} if axis == "pixels" else {},
            )
            for axis, unit, values, fixed, each in axes
        ],
    )


def make_results(*measurements: Measurement, **changes: Any) -> Results:
    """A results file, with everything that can be in it unless measurements are given."""
    every: list[Measurement] = [
        make_latency(),
        make_latency(GPU, total=22.2, count=111, device=True),
        make_memory(),
        make_memory(GPU, gpu=True),
        make_fidelity(),
        make_fidelity(GPU, start=3e-4),
        make_quality(),
        make_peers(),
        make_roofline(),
        make_scaling(),
    ]
    plain: dict[str, Any] = {
        "created": "2001-01-01T01:01:01Z",
        "versions": {"amodal": "9.9.9", "onnxruntime": "9.9.9", "numpy": "9.9.9"},
        "machine": Machine(
            system="Testix 1.1 x86_64",
            python="3.99.0",
            cpu="Imaginary CPU 11-core",
            cores=11,
            memory=111 * 10**9,
            gpu=Gpu(name="Imaginary 1000", capability="sm00", memory=12 * 10**9, driver="111.11", cuda="99.9"),
        ),
        "bundle": Subject(
            name="made-up bundle",
            manifest="ab" * 32,
            stages=["segment", "complete"],
            frames=25,
            size=(256, 512),
            precision="fp32",
        ),
        "measurements": list(measurements) or every,
        "skipped": [
            Skipped(
                what="peers: TensorRT", reason="tensorrt is not installed", remedy='pip install "amodal[tensorrt]"'
            ),
            Skipped(what="scaling: pixels", reason="the bundle's size is fixed"),
        ],
    }
    return Results(**{**plain, **changes})
