"""How close to this machine's limits a bundle runs, and the least time that GPUs would need.

Three kinds of figures are kept apart. *Counted*: operations and bytes of the graphs (`flops.py`). *Measured*: this
machine's ceilings (`ceilings.py`) and seconds of each component. *Predicted*: seconds per frame of GPUs, from published
figures (`gpus.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from statistics import median
from typing import Any, Literal, get_args

import psutil

from amodal.runtime.backends import create
from amodal.runtime.builds.store import EngineBackend
from amodal.runtime.errors import EngineError, MemoryBudgetError
from amodal.runtime.execution.run import Run
from amodal.runtime.families import Bundle
from amodal.runtime.memory.choice import Planner, planner_for
from amodal.runtime.paths import PathLike
from amodal.runtime.progress import Progress, silent

from ..families import clip_maker
from ..running.clips import Execution, Runner
from ..running.machine import executed_of
from ..schema import Ceilings, ComponentCost, Prediction, Roofline, Work, fill_a_gpu
from .ceilings import measure_ceilings
from .flops import count_run
from .gpus import GPUS, GpuSpec, find_gpu

LIKELY_SHARE = 0.47
"""Share of a published dense FP16 rate that the best known runtime reaches with this U-Net.

NVIDIA's TensorRT demo of SVD takes 27.5 s for 25 steps of 25 frames of 576x1024 on an A100 SXM: 25 x 159.9 TFLOP (the
unchanged U-Net, both CFG rows) in that time are 145 TFLOPS of 312. On an H100 PCIe, at 19.1 s, it was 28 %.
"""

BUSY = 0.2
"""Share of all processors' time that other programs may use without a warning."""

PAPER_SECONDS = 0.95
"""Per frame on one RTX 3090 in FP16 (Diffusion-VAS, supplement, section 6.2), which does not say whether for one stage
or both, and with depth or without."""


def measure_roofline(
    bundle: Bundle,
    work: Work,
    execution: Execution,
    *,
    runner: Runner | None = None,
    clips: int = 2,
    gpus: Iterable[GpuSpec] = GPUS,
    likely_share: float = LIKELY_SHARE,
    progress: Progress = silent,
) -> Roofline:
    """Counts a clip, measures ceilings, runs clips and predicts the times of GPUs, if the networks fill one.

    Args:
        work: the clip; see `amodal.bench.running.machine.work_of`.
        execution: the backend, its device and threads; the records in its `engine_dir` give the memory of a run.
        runner: runs the same work; None to run no clip and measure only the ceilings.
        clips: number of clips after one that warms up; each component's median is recorded.
        likely_share: share of the published rates at which `likely` is predicted.

    Raises:
        BackendUnavailableError: the backend cannot be used here.
        MissingDependencyError: onnx is not installed.
        BundleError: the operations of a graph cannot be counted.
    """
    steps = 3 if runner is None else 4 + clips
    progress("counting operations", "", 0, steps)
    maker = clip_maker(bundle.manifest.family)
    on_engines = run = maker.run_of(work)
    if runner is None:
        backend = create(execution.backend, device=execution.device, threads=execution.threads)
    else:
        backend, run = runner.model.backend, maker.run_of(work, runner.model)
    counted = count_run(bundle, run)
    for_engines = counted if run == on_engines else count_run(bundle, on_engines)
    progress("measuring this machine's ceilings", "", 1, steps)
    warnings = list(_busy())
    ceilings, seconds = measure_ceilings(backend), {}
    if runner is not None:
        least = floor_here(counted, ceilings, work) * work.frames
        seconds = _component_seconds(runner, clips, f"at least {least:.2g} s a clip", progress)
        progress("measuring this machine's ceilings", "", steps - 1, steps)
        # Disturbances only lower a ceiling, and may have occurred during one of the two measurements.
        ceilings = max(ceilings, measure_ceilings(backend), key=lambda found: found.rate)
    fits = _memory_of(bundle, on_engines.open_variant(), execution.engine_dir)
    return Roofline(
        work=work,
        executed=None if runner is None else executed_of(runner.model),
        components=[cost.model_copy(update={"seconds": seconds.get(cost.component)}) for cost in counted],
        ceilings=ceilings,
        predictions=[
            each
            for gpu in (gpus if fill_a_gpu(for_engines) else ())
            for each in predict(for_engines, work, gpu, likely_share, fits(gpu))
        ],
        warnings=warnings,
    )


def _busy() -> Iterator[str]:
    share = psutil.cpu_percent(interval=0.2) / 100
    if share > BUSY:
        yield (
            f"other programs used {share:.0%} of the processors while ceilings were measured; those come out too low, "
            "and shares of them too high: measure again on a quiet machine."
        )


def _component_seconds(runner: Runner, clips: int, remark: str, progress: Progress) -> dict[str, float]:
    """Median seconds of each component (`segment/unet`) over clips, after a short one; on a GPU the device's."""
    samples: dict[str, list[float]] = {}
    progress(f"warming up, {remark}", "", 2, 4 + clips)
    runner.clip(steps=1)
    for number in range(1, clips + 1):
        progress(f"running clip {number} of {clips}, {remark}", "", 2 + number, 4 + clips)
        times = runner.clip().times
        for name, seconds in (times.device or times.components).items():
            samples.setdefault(name, []).append(seconds)
    return {name: median(each) for name, each in samples.items()}


def floor_here(components: Iterable[ComponentCost], ceilings: Ceilings, work: Work) -> float:
    """Returns the least seconds per frame at this machine's ceilings, with perfect fusion and only the components."""
    return sum(cost.floor(ceilings.rate, ceilings.copies) for cost in components) / work.frames


def share_in_paper(measured: Roofline) -> dict[str, float] | None:
    """Computes the share of the RTX 3090's published rate that 0.95 s/frame would be, by stages, without depth.

    None if the paper timed another clip: with other settings, or with U-Nets of another size.
    """
    work = measured.work
    if (work.frames, work.size, work.steps, work.guidance) != (25, (256, 512), 25, 1.5):
        return None
    if not all(5e14 < cost.products < 1e15 for cost in measured.components if cost.component.endswith("/unet")):
        return None
    card = find_gpu("RTX 3090")
    networks = [cost for cost in measured.components if not cost.component.endswith("/depth")]
    shares: dict[str, float] = {}
    for stage in work.stages:
        costs = [cost for cost in networks if cost.component.startswith(stage)]
        (prediction,) = (p for p in predict(costs, work, card) if p.accumulation == "fp32")
        shares[stage] = prediction.floor / PAPER_SECONDS
    return shares if len(shares) == 1 else {**shares, "both": sum(shares.values())}


def predict(
    components: Iterable[ComponentCost],
    work: Work,
    gpu: GpuSpec,
    likely_share: float = LIKELY_SHARE,
    memory: Mapping[str, Any] | None = None,
) -> Iterator[Prediction]:
    """Predicts the least seconds per frame of a GPU, once for each published rate of FP16 products.

    The floor of a clip is the sum over its components of the longer of two times: its products at the published rate
    (that of TF32 for float32 components), and its weights, inputs and outputs at the published bandwidth.

    Args:
        components: counted as engines call them.
        memory: what `memory_on` returns; None if it is not known.
    """
    costs, bandwidth = list(components), 1e9 * gpu.gigabytes_per_second
    tf32 = 1e12 * (gpu.fp16_sums if gpu.fp32_sums is None else gpu.fp32_sums) / 2
    sums: dict[Literal["fp32", "fp16"], float | None] = {"fp32": gpu.fp32_sums, "fp16": gpu.fp16_sums}
    if gpu.fp32_sums == gpu.fp16_sums:
        del sums["fp16"]
    for accumulation, teraflops in sums.items():
        if teraflops is None:
            continue
        rates = {"fp16": 1e12 * teraflops, "fp32": tf32}
        clip = sum(cost.floor(rates[cost.precision], bandwidth) for cost in costs)
        likely = sum(cost.floor(likely_share * rates[cost.precision], bandwidth) for cost in costs)
        yield Prediction(
            gpu=gpu.name,
            accumulation=accumulation,
            rate=rates["fp16"],
            rate_single=rates["fp32"],
            bandwidth=bandwidth,
            vram=gpu.vram,
            floor=clip / work.frames,
            likely=likely / work.frames,
            likely_share=likely_share,
            source=gpu.source,
            **(memory or {}),
        )


def _memory_of(bundle: Bundle, run: Run, engine_dir: PathLike | None) -> Callable[[GpuSpec], dict[str, Any]]:
    """Returns `memory_on` for the records of the engines that were built last; they may be of another GPU."""
    for backend in get_args(EngineBackend):
        with suppress(EngineError):
            planner, _ = planner_for(bundle, bundle.family, run, backend, engine_dir)
            return partial(memory_on, planner, run)
    return lambda gpu: {}


def memory_on(planner: Planner, run: Run, gpu: GpuSpec) -> dict[str, Any]:
    """Plans the memory of a run on a GPU; returns the fields of a `Prediction`. The CUDA context is not included."""
    try:
        plan = planner.choose(run, gpu.vram)
    except MemoryBudgetError:
        plan = min(planner.plans(run), key=lambda plan: plan.peak_bytes)
    return {"planned": plan.peak_bytes, "way": f"{plan.memory}, {plan.run.variant}", "fits": plan.fits(gpu.vram)}
