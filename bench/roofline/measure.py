"""How near to what is possible a bundle runs here, and what GPUs would take at the least.

Three kinds of figures that must not be mixed. *Counted*: operations and bytes of the graphs (`flops.py`).
*Measured*: this machine's ceilings (`ceilings.py`) and seconds of each component. *Predicted*: seconds per frame
of GPUs, from what their maker published (`gpus.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from statistics import median
from typing import Any

import psutil

from amodal.runtime.backends import Backend, create
from amodal.runtime.errors import EngineError, MemoryBudgetError
from amodal.runtime.execution.run import Run
from amodal.runtime.families import Bundle
from amodal.runtime.memory.choice import Planner, planner_for
from amodal.runtime.paths import PathLike
from amodal.runtime.progress import Progress, silent

from ..families import clip_maker
from ..running.clips import Execution, Runner, times_of
from ..running.machine import executed_of
from ..schema import Ceilings, ComponentCost, Prediction, Roofline, Work
from .ceilings import measure_ceilings
from .clip_cost import count_run
from .gpus import GPUS, GpuSpec, find_gpu

LIKELY_SHARE = 0.47
"""Share of a published dense FP16 rate that others' best runtime reaches with this U-Net.

NVIDIA's TensorRT demo of SVD takes 27.5 s for 25 steps of 25 frames of 576x1024 on an A100 SXM: 25 x 159.9 TFLOP (the
untouched U-Net, both CFG rows) in that time are 145 TFLOPS of 312. On an H100 PCIe, at 19.1 s, it was 28 %.
"""

BUSY = 0.2
"""Share of all processors' time that others may use before it is said."""

PAPER_SECONDS = 0.95
"""Per frame on one RTX 3090 in FP16 (Diffusion-VAS, supplement, section 6.2); whether of one stage or of both, and
with depth or without, it does not say."""

_ENGINES = ("tensorrt_rtx", "tensorrt")


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
    """Counts a clip, measures ceilings, runs clips, predicts.

    Args:
        work: the clip; see `amodal.bench.running.machine.work_of`.
        execution: the backend, its device and threads; its `engine_dir` has the records that say what memory a run
            takes.
        runner: runs the same work; None to run no clip and only measure the ceilings.
        clips: to run after one that warms up; each component's median counts.
        likely_share: share of the published rates at which `likely` is predicted.

    Raises:
        BackendUnavailableError: the backend, or what measures its ceilings, is missing.
        MissingDependencyError: onnx is not installed.
        BundleError: a graph whose operations cannot be counted.
    """
    steps = 3 if runner is None else 4 + clips
    progress("counting operations", "", 0, steps)
    maker, model = clip_maker(bundle.manifest.family), None if runner is None else runner.model
    on_engines = maker.run_of(work)
    executor, executed = (_backend(execution), None) if model is None else (model.backend, executed_of(model))
    run = on_engines if model is None else maker.run_of(work, model)
    counted = count_run(bundle, run)
    for_engines = counted if run == on_engines else count_run(bundle, on_engines)
    progress("measuring this machine's ceilings", "", 1, steps)
    warnings = list(_busy())
    ceilings, seconds = measure_ceilings(executor), {}
    if runner is not None:
        least = floor_here(counted, ceilings, work) * work.frames
        seconds = run_clips(
            runner,
            clips,
            lambda what, phase="", done=0, total=None: progress(
                f"{what}, at least {least:.2g} s a clip", phase, 2 + done, steps
            ),
        )
        progress("measuring this machine's ceilings", "", steps - 1, steps)
        # Whatever else a machine does only lowers a ceiling, and may have been there in one of two moments.
        ceilings = max(ceilings, measure_ceilings(executor), key=lambda found: found.rate)
    needs = Needs.of(bundle, work, execution.engine_dir)
    return Roofline(
        work=work,
        executed=executed,
        components=[cost.model_copy(update={"seconds": seconds.get(cost.component)}) for cost in counted],
        ceilings=ceilings,
        predictions=[
            prediction for gpu in gpus for prediction in predict(for_engines, work, gpu, likely_share, needs=needs)
        ],
        warnings=warnings,
    )


def _backend(execution: Execution) -> Backend:
    return create(execution.backend, device=execution.device, threads=execution.threads)


def _busy() -> Iterator[str]:
    share = psutil.cpu_percent(interval=0.2) / 100
    if share > BUSY:
        yield (
            f"other programs used {share:.0%} of the processors while ceilings were measured; those come out too low, "
            "and shares of them too high: measure again on a quiet machine."
        )


def floor_here(components: Iterable[ComponentCost], ceilings: Ceilings, work: Work) -> float:
    """The least seconds per frame by this machine's ceilings: nothing outside the components, and no fusion missed."""
    return sum(cost.floor(ceilings.rate, ceilings.copies) for cost in components) / work.frames


def share_in_paper(measured: Roofline) -> dict[str, float] | None:
    """Share of the RTX 3090's published rate that the paper's 0.95 s/frame would be, by stages, without depth.

    None if the clip is not the one it timed: other settings, or U-Nets of another size.
    """
    work = measured.work
    if (work.frames, work.size, work.steps, work.guidance) != (25, (256, 512), 25, 1.5):
        return None
    if not all(5e14 < cost.products < 1e15 for cost in measured.components if cost.component.endswith("/unet")):
        return None
    card = find_gpu("RTX 3090")
    shares: dict[str, float] = {}
    for stage in work.stages:
        costs = [cost for cost in measured.components if cost.component.startswith(stage)]
        networks = [cost for cost in costs if not cost.component.endswith("/depth")]
        (prediction,) = (p for p in predict(networks, work, card) if p.accumulation == "fp32")
        shares[stage] = prediction.floor / PAPER_SECONDS
    return shares if len(shares) == 1 else {**shares, "both": sum(shares.values())}


def predict(
    components: Iterable[ComponentCost],
    work: Work,
    gpu: GpuSpec,
    likely_share: float = LIKELY_SHARE,
    *,
    needs: Needs | None = None,
) -> Iterator[Prediction]:
    """The least seconds per frame of a GPU, once for each kind of sums whose rate is published and another.

    The floor of a clip is the sum over its components of the longer of two times: its products at the published rate
    (that of TF32 where it computes in float32), and its weights, inputs and outputs at the published bandwidth.

    Args:
        components: counted as engines call them.
        needs: what memory a run takes; None if it is not known.
    """
    costs = list(components)
    sums: dict[str, float | None] = {"fp32": gpu.fp32_sums, "fp16": gpu.fp16_sums}
    if gpu.fp32_sums == gpu.fp16_sums:
        del sums["fp16"]
    memory = needs.on(gpu) if needs is not None else {}
    for accumulation, teraflops in sums.items():
        if teraflops is None:
            continue
        rates = {"fp16": 1e12 * teraflops, "fp32": 1e12 * gpu.tf32}
        clip = sum(cost.floor(rates[cost.precision], gpu.bandwidth) for cost in costs)
        likely = sum(cost.floor(likely_share * rates[cost.precision], gpu.bandwidth) for cost in costs)
        yield Prediction(
            gpu=gpu.name,
            accumulation="fp32" if accumulation == "fp32" else "fp16",
            rate=rates["fp16"],
            rate_single=rates["fp32"],
            bandwidth=gpu.bandwidth,
            vram=gpu.vram,
            floor=clip / work.frames,
            likely=likely / work.frames,
            likely_share=likely_share,
            source=gpu.source,
            **memory,
        )


def run_clips(runner: Runner, clips: int, progress: Progress = silent) -> dict[str, float]:
    """Median seconds of each component (`segment/unet`) over clips, after one short clip to warm up.

    On a GPU they are the device's own, between events on its stream.
    """
    samples: dict[str, list[float]] = {}
    progress("warming up", "", 0, clips + 1)
    runner.clip(steps=1)
    for index in range(clips):
        progress(f"running clip {index + 1} of {clips}", "", index + 1, clips + 1)
        clip = times_of(runner.clip())
        for name, seconds in (clip.device or clip.components).items():
            samples.setdefault(name, []).append(seconds)
    return {name: median(each) for name, each in samples.items()}


@dataclass(frozen=True)
class Needs:
    """What a run takes by the records of engines, which may be of other GPUs; the CUDA context comes on top."""

    planner: Planner
    shape: Run

    @classmethod
    def of(cls, bundle: Bundle, work: Work, engine_dir: PathLike | None) -> Needs | None:
        """From the engines that were built last; None if there are none for all components."""
        shape = clip_maker(bundle.manifest.family).run_of(work).open_variant()
        for backend in _ENGINES:
            with suppress(EngineError):
                return cls(planner_for(bundle, bundle.family, shape, backend, engine_dir)[0], shape)
        return None

    def on(self, gpu: GpuSpec) -> dict[str, Any]:
        """Whether it fits, and how: the fields of a `Prediction`."""
        try:
            plan = self.planner.choose(self.shape, gpu.vram)
        except MemoryBudgetError:
            plan = min(self.planner.plans(self.shape), key=lambda way: way.peak_bytes)
        return {
            "planned": plan.peak_bytes,
            "way": f"{plan.memory}, {plan.run.variant}",
            "fits": plan.fits(gpu.vram),
        }
