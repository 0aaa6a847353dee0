"""Time and memory of clips, and how both grow."""

from __future__ import annotations

from typing import Literal

from .about import Executed, Record, Seconds, Work


class ClipTimes(Record):
    """One clip's times.

    Attributes:
        seconds: from raw arrays to masks and RGB on the host.
        processor: processor time of all threads meanwhile.
        components: seconds by component, `segment/unet` for instance; what is missing to `seconds` is everything
            outside the networks.
        steps: seconds of each denoising step, by stage; on a GPU the device's.
        device: on a GPU, seconds by phase between events on the stream; copies apart. None elsewhere.
        gaps: on a GPU, by stage, seconds on the stream from the end of one denoising step's U-Net to the beginning of
            the next's: the sampler's own kernels, and whatever the device waits for. None elsewhere.
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

        On a GPU components take what they take there: for the host their calls are over when they are queued.
        """
        if self.device is None:
            return self.components
        return {**self.device, **{name: s for name, s in self.components.items() if name.endswith("/load")}}

    @property
    def outside(self) -> float:
        """Seconds outside the networks: sampler, noise, pre- and post-processing; loading is not among them."""
        return self.seconds - sum(self.parts.values())


class Latency(Record):
    """`amodal bench latency`.

    Attributes:
        cold: seconds of what happens once: `import`, `open`, `load`, `first clip`; each in a new process.
        clips: after warm-up.
        overhead: share of a clip that measuring itself took, in [0, 1].
        warnings: why the figures may not be what the machine can do.
    """

    kind: Literal["latency"] = "latency"
    work: Work
    executed: Executed
    cold: dict[str, float]
    clips: list[ClipTimes]
    overhead: float | None = None
    warnings: list[str] = []


class Span(Record):
    """A stretch of time with a name, in seconds from the first sample."""

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
        host: resident set of the process. host_peak: the highest, as the kernel counted it.
        host_before: before the bundle was opened, libraries imported.
        device: as NVML saw it, of `process` and of the whole `device`; empty without a GPU.
        allocators: peaks by the allocators' own count (`cupy pool`, `scratch`).
        planned: what the plan said, by phase; empty where nothing is planned.
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
    """One setting of a sweep: its value, clips and the highest memory."""

    value: float
    seconds: Seconds
    peak: int


class Sweep(Record):
    """How a clip grows along one axis: `seconds = fixed + each * value`, fitted to the medians.

    Attributes:
        axis: `frames`, `pixels`, `steps` or `samples`.
        exponent: of a power law through the same points.
        skipped: values that could not be run, and why.
    """

    axis: str
    unit: str
    points: list[Point]
    fixed: float
    each: float
    exponent: float
    skipped: dict[str, str] = {}


class Scaling(Record):
    """`amodal bench scaling`."""

    kind: Literal["scaling"] = "scaling"
    work: Work
    executed: Executed
    sweeps: list[Sweep]
