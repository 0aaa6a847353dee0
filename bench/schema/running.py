"""Time, memory, scaling and fidelity of clips."""

from __future__ import annotations

from typing import Literal, TypeAlias

from amodal.runtime.families.diffusion_vas.config import StageName

from .about import Executed, Record, Seconds, Work

Against: TypeAlias = Literal["twin", "diffusers"]
OUTSIDE = "outside the networks"


class ClipTimes(Record):
    """Times of one clip.

    Attributes:
        seconds: from raw arrays to masks and RGB on the host.
        processor: processor time of all threads meanwhile.
        components: seconds by component, such as `segment/unet`; the rest of `seconds` was spent outside the networks.
        steps: seconds of each denoising step, by stage; on a GPU measured on the device.
        device: on a GPU, seconds by phase between events on the stream, copies separately. None elsewhere.
        gaps: on a GPU, by stage, seconds on the stream from the end of one denoising step's U-Net to the start of the
            next: the sampler's own kernels, and whatever the device waits for. None elsewhere.
    """

    seconds: float
    processor: float
    components: dict[str, float]
    steps: dict[str, Seconds]
    device: dict[str, float] | None = None
    gaps: dict[str, Seconds] | None = None

    @property
    def parts(self) -> dict[str, float]:
        """Seconds by component, and of loading.

        On a GPU these are the device's times: on the host a call ends as soon as it is queued.
        """
        if self.device is None:
            return self.components
        return {**self.device, **{name: s for name, s in self.components.items() if name.endswith("/load")}}

    @property
    def outside(self) -> float:
        """Seconds outside the networks, loading excluded: sampler, noise, pre- and post-processing."""
        return self.seconds - sum(self.parts.values())


class Latency(Record):
    """`amodal bench latency`.

    Attributes:
        cold: seconds of what happens once: `import`, `open`, `load`, `first clip`; each in a new process.
        clips: after warm-up.
        overhead: share of a clip that measuring itself took, in [0, 1].
        warnings: reasons why the machine may be faster than these figures.
    """

    kind: Literal["latency"] = "latency"
    work: Work
    executed: Executed
    cold: dict[str, float]
    clips: list[ClipTimes]
    overhead: float | None = None
    warnings: list[str] = []

    @property
    def seconds(self) -> Seconds:
        """Seconds of each clip."""
        return [clip.seconds for clip in self.clips]

    @property
    def part_seconds(self) -> dict[str, Seconds]:
        """Seconds of each clip by component, and `OUTSIDE` of them."""
        names = dict.fromkeys(name for clip in self.clips for name in clip.parts)
        parts = {name: [clip.parts.get(name, 0.0) for clip in self.clips] for name in names}
        return {**parts, OUTSIDE: [clip.outside for clip in self.clips]}


class Span(Record):
    """A named period, in seconds from the first sample."""

    name: str
    begin: float
    end: float


class Timeline(Record):
    """Memory over time: seconds from the first sample, bytes."""

    seconds: Seconds
    bytes: list[int]


class Memory(Record):
    """`amodal bench memory`.

    Attributes:
        host: resident set of the process. host_peak: its maximum as counted by the kernel.
        host_before: before the bundle was opened, with libraries imported.
        device: as read from NVML, for the `process` and the whole `device`; empty without a GPU.
        allocators: peaks counted by the allocators themselves (`cupy pool`, `scratch`).
        planned: the plan's figure for each phase; empty if there is no plan.
    """

    kind: Literal["memory"] = "memory"
    work: Work
    executed: Executed
    host: Timeline
    host_peak: int
    host_before: int
    device: dict[str, Timeline] = {}
    allocators: dict[str, int] = {}
    planned: dict[str, int] = {}
    phases: list[Span]
    warnings: list[str] = []


class Point(Record):
    """One value of a sweep, with its clips and peak memory."""

    value: float
    seconds: Seconds
    peak: int


class Sweep(Record):
    """Growth along one axis: `seconds = fixed + each * value`, fitted to the medians of two or more points.

    Attributes:
        axis: `frames`, `pixels`, `steps` or `samples`.
        fixed, each: of the line; None if there are fewer points.
        exponent: of a power law through the same points; None if there are fewer.
        skipped: values that could not be run, and why.
    """

    axis: str
    unit: str
    points: list[Point]
    fixed: float | None = None
    each: float | None = None
    exponent: float | None = None
    skipped: dict[str, str] = {}

    def predicted(self, value: float) -> float | None:
        """Seconds at a value on the line that was fitted; None if there is none."""
        return None if self.fixed is None or self.each is None else self.fixed + self.each * value


class Scaling(Record):
    """`amodal bench scaling`."""

    kind: Literal["scaling"] = "scaling"
    work: Work
    executed: Executed
    sweeps: list[Sweep]


class StageFidelity(Record):
    """One stage compared with the float32 run.

    Attributes:
        sigmas: noise level at the start of each step.
        latents: relative L2 difference after each step.
        masks_iou: over all frames together; None for `complete`.
        frames_mean, frames_max: absolute difference of decoded pictures, in levels of 255.
    """

    stage: StageName
    sigmas: list[float] = []
    latents: list[float]
    masks_iou: float | None
    frames_mean: float
    frames_max: int


class Fidelity(Record):
    """`amodal bench fidelity`: compared with a float32 run from the same noise, described by `reference`.

    In both runs, stage `complete` receives the true masks, so it does not depend on the output of `segment`. Older
    files have no `against`; the text of `reference` shows it.
    """

    kind: Literal["fidelity"] = "fidelity"
    work: Work
    executed: Executed
    reference: str
    stages: list[StageFidelity]
    against: Against | None = None

    @property
    def compared_with(self) -> Against:
        """`against`, for older files too."""
        return self.against or ("diffusers" if self.reference.startswith("the reference pipeline") else "twin")
