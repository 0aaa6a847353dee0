"""Clips compared with the truth, with other implementations, and with the limits of machines."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import median
from typing import Literal

from pydantic import Field

from amodal.runtime.bundle.manifest import Precision

from .about import Executed, Record, Seconds, Work


class Preset(Record):
    """Quality and time of one named setting; measures in [0, 1], strict mode, see `bench/quality/`."""

    name: str
    work: Work
    miou: float
    miou_occ: float | None
    flicker: float | None
    seconds: Seconds


class Quality(Record):
    """`amodal bench quality`: over `scenes` unseen scenes; `baselines` have no time.

    `workers` processes ran at the same time and slowed each other; None in older files.
    """

    kind: Literal["quality"] = "quality"
    executed: Executed
    scenes: int
    presets: list[Preset]
    baselines: dict[str, float]
    workers: int | None = None


class Peer(Record):
    """One implementation of the same work.

    Attributes:
        name: `diffusers`, `diffusers + torch.compile`, or an amodal backend, with its device unless that is the CPU.
        description: versions, arithmetic, threads, and what is compiled.
        seconds: of each clip, warm. first: of the first clip, including compilation and the loading of our components.
        host_peak: bytes of its process.
        device_peak: bytes on the GPU during the first clip, as the driver counts its process; None without a GPU.
        allocator_peak: the same as counted by torch's allocator; None without torch or on a CPU.
        agreement: with the first peer, after the first clip: `segment_latents_relative_l2`, `masks_iou`,
            `segment_frames_mean` (absolute difference of decoded pictures, of 255), and the same for `complete`; empty
            for the first peer.
    """

    name: str
    description: str
    seconds: Seconds
    first: float
    host_peak: int
    device_peak: int | None = None
    allocator_peak: int | None = None
    agreement: dict[str, float] = {}


class Peers(Record):
    """`amodal bench peers`: clips run in turns, so the i-th samples of all peers can be compared.

    Attributes:
        refused: peers whose results differ from the first one's, and how; their times are not reported.
        device: that they ran on. threads: if that is a CPU. None in older files.
    """

    kind: Literal["peers"] = "peers"
    work: Work
    peers: list[Peer]
    refused: dict[str, str] = {}
    device: str | None = None
    threads: int | None = None


class Ceilings(Record):
    """Measured limits of this machine; raw samples.

    Attributes:
        precision: of the matrix products, `float32` or `float16, float32 accumulation`.
        library: that computed the products. side: of the square matrices, the fastest of several.
        flops: FLOP/s of each product. bandwidth: bytes/s of each copy, reads plus writes.
    """

    precision: str
    library: str
    side: int
    flops: list[float] = Field(min_length=1)
    bandwidth: list[float] = Field(min_length=1)

    @property
    def rate(self) -> float:
        """Median FLOP/s."""
        return median(self.flops)

    @property
    def copies(self) -> float:
        """Median bytes/s."""
        return median(self.bandwidth)


class ComponentCost(Record):
    """Cost of a component in one clip, counted from its graph; see `bench/roofline/flops.py` for how.

    Attributes:
        component: stage and kind, such as `segment/unet`.
        precision: of its arithmetic.
        calls: in one clip.
        flops: of all calls, by kind of operator (`matmul`, `attention`, `convolution`, `other`).
        weights: bytes of weights that all calls read, once each.
        activations: bytes that all calls transfer if every operator reads its inputs and writes its outputs once.
        boundary: bytes of inputs and outputs of all calls, the part of `activations` that fusion cannot save.
        seconds: measured, of all calls; None if it was not run.
    """

    component: str
    precision: Precision
    calls: int
    flops: dict[str, float]
    weights: float
    activations: float
    boundary: float
    seconds: float | None = None

    @property
    def products(self) -> float:
        """Floating-point operations of matrix products and convolutions, which are compared with the ceiling."""
        return sum(count for kind, count in self.flops.items() if kind != "other")

    def floor(self, rate: float, bandwidth: float) -> float:
        """Least seconds at `rate` FLOP/s and `bandwidth` bytes/s: for products, or for weights and boundary alone."""
        return max(self.products / rate, (self.weights + self.boundary) / bandwidth)

    def share_of(self, ceilings: Ceilings) -> float | None:
        """Products per second divided by the ceiling, in [0, 1] or slightly above; None if it was not run."""
        return self.products / self.seconds / ceilings.rate if self.seconds else None


class Prediction(Record):
    """Predicted least seconds per frame on a GPU, from its published rates.

    Attributes:
        rate: dense FLOP/s in FP16. rate_single: in TF32, for components that compute in float32.
        bandwidth: bytes/s. vram: bytes.
        floor: seconds per frame at the full rates. likely: at `likely_share` of them.
        planned: peak memory of a run, from the records of engines; None if none were built.
        way: how the plan runs, such as `resident, batched`: the fastest way that fits, or the smallest.
        fits: whether `planned` is at most `vram`.
        source: of the published figures.
    """

    gpu: str
    accumulation: Literal["fp32", "fp16"]
    rate: float
    rate_single: float
    bandwidth: float
    vram: int
    floor: float
    likely: float
    likely_share: float
    planned: int | None = None
    way: str | None = None
    fits: bool | None = None
    source: str


LEAST_CALL = 1e12
"""Operations in the largest call of a network from which times on GPUs are predicted.

At a GPU's published rate this takes a millisecond or more. Smaller calls do not fill one: their time is that of
launching kernels, which no rate predicts. One call of the real U-Net is 15e12, one of the default model's 3e9.
"""


def fill_a_gpu(costs: Iterable[ComponentCost]) -> bool:
    """Whether the networks are large enough to predict their time on a GPU from its published rate."""
    return any(cost.products >= LEAST_CALL * cost.calls for cost in costs if cost.calls)


class Roofline(Record):
    """`amodal bench roofline`.

    Attributes:
        executed: None if nothing was run; the calls are then those of engines.
        ceilings: of the backend that ran.
        predictions: for a run with engines; none of networks that do not fill a GPU (`fill_a_gpu`).
        warnings: reasons why the machine may be faster than the measured figures.
    """

    kind: Literal["roofline"] = "roofline"
    work: Work
    executed: Executed | None
    components: list[ComponentCost]
    ceilings: Ceilings
    predictions: list[Prediction]
    warnings: list[str] = []
