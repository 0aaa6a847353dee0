"""What clips cost, what a machine can do, and what others could."""

from __future__ import annotations

from statistics import median
from typing import Literal

from pydantic import Field

from amodal.runtime.bundle.manifest import Precision

from .about import Executed, Record, Work


class ComponentCost(Record):
    """A component's part of a clip, counted from its graph; see `bench/roofline/flops.py` for what is counted how.

    Attributes:
        component: stage and kind, `segment/unet` for instance.
        precision: of its arithmetic.
        calls: in one clip.
        flops: of all calls, by kind of operator (`matmul`, `attention`, `convolution`, `other`).
        weights: bytes of weights that all calls read, once each.
        activations: bytes that all calls read and write if every operator reads its inputs and writes its outputs once.
        boundary: bytes of inputs and outputs of all calls, the part of that which no fusion saves.
        seconds: measured, of all calls; None where it was not run.
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
        """Floating-point operations of matrix products and convolutions, which are held against the ceiling."""
        return sum(count for kind, count in self.flops.items() if kind != "other")

    def floor(self, rate: float, bandwidth: float) -> float:
        """The least seconds at `rate` FLOP/s and `bandwidth` bytes/s: products, or weights and boundary, alone."""
        return max(self.products / rate, (self.weights + self.boundary) / bandwidth)

    def share_of(self, ceilings: Ceilings) -> float | None:
        """Products per second over what the machine reaches, in [0, 1] or a little above; None where it was not run."""
        return self.products / self.seconds / ceilings.rate if self.seconds else None


class Ceilings(Record):
    """What this machine reaches; raw samples.

    Attributes:
        precision: of the matrix products, `float32` or `float16, float32 accumulation`.
        library: what multiplied.
        side: of the square matrices, that of several which was fastest.
        flops: FLOP/s of each product. bandwidth: bytes/s of each copy, what is read and what is written together.
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


class Prediction(Record):
    """The least seconds per frame a GPU could take, from published rates; predicted, not measured.

    Attributes:
        rate: dense FLOP/s of FP16 products. rate_single: of TF32, for components that compute in float32.
        bandwidth: bytes/s. vram: bytes.
        floor: seconds per frame at the full rates. likely: at the share of them that `likely_share` says.
        planned: the most memory a run takes, by the records of engines; None where none were built.
        way: of running that is planned, `resident, batched` for instance: the fastest that fits, or the smallest.
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


class Roofline(Record):
    """`amodal bench roofline`.

    Attributes:
        executed: None where nothing was run, and calls are those that engines would get.
        ceilings: of what executes here.
        predictions: of a run with engines.
        warnings: why measured figures may not be what the machine can do.
    """

    kind: Literal["roofline"] = "roofline"
    work: Work
    executed: Executed | None
    components: list[ComponentCost]
    ceilings: Ceilings
    predictions: list[Prediction]
    warnings: list[str] = []
