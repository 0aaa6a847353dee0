"""What a results file holds: raw samples with their units, and everything needed to know what they are of.

One file, `results.json`, is one `Results`. Every measurement keeps its raw samples; medians, percentiles and ratios are
computed when they are shown (`bench/statistics.py`), so that nothing has to be measured again to be seen otherwise.
Times are seconds, memory is bytes, arithmetic is floating-point operations (a multiply-add is two).
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from statistics import median
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from amodal.runtime.errors import InputError
from amodal.runtime.frames import PathLike
from amodal.runtime.manifest import Precision, StageName

SCHEMA_VERSION = 1
Seconds: TypeAlias = list[float]
"""Raw samples, in the order they were taken."""


class Record(BaseModel):
    """Base of all parts: frozen, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Gpu(Record):
    """A GPU: `capability` as in `sm86`, memory in bytes, versions of driver and CUDA."""

    name: str
    capability: str
    memory: int
    driver: str
    cuda: str


class Machine(Record):
    """Where it was measured; no names of hosts or people.

    Attributes:
        system: operating system and architecture.
        cpu: model name. cores: those that may be used. memory: bytes.
    """

    system: str
    python: str
    cpu: str
    cores: int
    memory: int
    gpu: Gpu | None = None

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that are equal for equal hardware, whatever its software."""
        gpu = (self.gpu.name, self.gpu.memory) if self.gpu else None
        return hashlib.sha256(repr((self.cpu, self.cores, round(self.memory / 2**30), gpu)).encode()).hexdigest()[:12]


class Subject(Record):
    """The bundle that was measured.

    Attributes:
        name: of its folder.
        manifest: sha256 of its manifest, and with it of all weights and graphs.
    """

    name: str
    manifest: str
    stages: list[StageName]
    frames: int
    size: tuple[int, int]
    precision: str


class Work(Record):
    """What a clip is asked to do; see `amodal.runtime.stage.Settings`.

    Attributes:
        depth: computed from the frames by the bundle's own component, not given.
    """

    stages: list[StageName]
    frames: int
    size: tuple[int, int]
    steps: int = 25
    guidance: float = 1.5
    churn: float = 0.0
    seed: int = 23
    samples: int = 1
    depth: bool = False


class Executed(Record):
    """How it was executed: a backend's own description, and the memory mode."""

    backend: str
    version: str
    device: str
    memory: str
    options: dict[str, str] = {}


class Clip(Record):
    """One clip's times.

    Attributes:
        seconds: from raw arrays to masks and RGB on the host.
        processor: processor time of all threads meanwhile.
        components: seconds by component, `segment/unet` for instance; what is missing to `seconds` is everything
            outside the networks.
        steps: seconds of each denoising step, by stage.
        device: on a GPU, seconds by phase between events on the stream; copies apart. None elsewhere.
    """

    seconds: float
    processor: float
    components: dict[str, float]
    steps: dict[str, Seconds]
    device: dict[str, float] | None = None


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
    clips: list[Clip]
    overhead: float | None = None
    warnings: list[str] = []


class Phase(Record):
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
    phases: list[Phase]
    warnings: list[str] = []


class StageFidelity(Record):
    """One stage beside the float32 run.

    Attributes:
        sigmas: noise level that each step begins with.
        latents: relative L2 difference after each step.
        masks_iou: of all frames together; None for `complete`.
        frames_mean, frames_max: absolute difference of decoded pictures, of 255.
    """

    stage: StageName
    sigmas: list[float] = []
    latents: list[float]
    masks_iou: float | None
    frames_mean: float
    frames_max: int


class Fidelity(Record):
    """`amodal bench fidelity`: against `reference`, a run in float32, from the same noise.

    Stage `complete` is given the true masks in both, so that it does not depend on what `segment` drew.
    """

    kind: Literal["fidelity"] = "fidelity"
    work: Work
    executed: Executed
    reference: str
    stages: list[StageFidelity]


class Preset(Record):
    """Quality and time of one named setting; measures in [0, 1], strict mode, see `bench/quality/`."""

    name: str
    work: Work
    miou: float
    miou_occ: float | None
    flicker: float | None
    seconds: Seconds


class Quality(Record):
    """`amodal bench quality`: over `scenes` unseen scenes; `baselines` have no time."""

    kind: Literal["quality"] = "quality"
    executed: Executed
    scenes: int
    presets: list[Preset]
    baselines: dict[str, float]


class Peer(Record):
    """One way of doing the same work.

    Attributes:
        name: `diffusers`, `diffusers + torch.compile`, or a backend of ours, with its device unless that is the CPU.
        description: versions, arithmetic, threads, and what is compiled.
        seconds: a clip each, warm. first: seconds of the first clip, with what happens only then: compilation, and the
            loading of our components.
        host_peak: bytes of its process.
        device_peak: bytes on the GPU during the first clip, as the driver counts its process; None without one.
        allocator_peak: the same by torch's own count of what it handed out; None where it is not torch, or on a CPU.
        agreement: with the first peer, after the first clip: `segment_latents_relative_l2`, `masks_iou`,
            `segment_frames_mean` (absolute difference of decoded pictures, of 255), and the same of `complete`; empty
            of the first itself.
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
    """`amodal bench peers`: clips in turns, so that the i-th samples of all peers belong together.

    Attributes:
        refused: peers whose results are not those of the first, and in what: no time of theirs is reported.
    """

    kind: Literal["peers"] = "peers"
    work: Work
    peers: list[Peer]
    refused: dict[str, str] = {}


class ComponentCost(Record):
    """A component's part of a clip, counted from its graph; see `bench/flops.py` for what is counted how.

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


Measurement = Annotated[Latency | Memory | Fidelity | Quality | Peers | Roofline | Scaling, Field(discriminator="kind")]


class Skipped(Record):
    """What was not measured, why, and what would change that."""

    what: str
    reason: str
    remedy: str = ""


class Results(Record):
    """A results file.

    Attributes:
        created: UTC, ISO 8601. versions: of amodal and the libraries that were used.
        finished: False in a file that an interrupted suite left.
    """

    schema_version: int = SCHEMA_VERSION
    created: str
    versions: dict[str, str]
    machine: Machine
    bundle: Subject
    measurements: list[Measurement] = []
    skipped: list[Skipped] = []
    finished: bool = True

    def of(self, kind: str) -> list[Measurement]:
        """Its measurements of one kind."""
        return [m for m in self.measurements if m.kind == kind]


def read_results(path: PathLike) -> Results:
    """Reads a results file, or the `results.json` in a folder.

    Raises:
        InputError: it is missing, no results file, or of another schema.
    """
    file = Path(path)
    if file.is_dir():
        file /= "results.json"
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error}); give a results.json of `amodal bench`.") from error
    found = _version(text)
    if found is not None and found != SCHEMA_VERSION:
        raise InputError(
            f"{file} has results of schema {found}, this version reads {SCHEMA_VERSION}; measure again with this "
            "version, or read it with the one that wrote it."
        )
    try:
        return Results.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"{file} is no results file ({at}: {first['msg']}); write one with `amodal bench`.") from error


def _version(text: str) -> int | None:
    class Versioned(BaseModel):
        schema_version: int

    try:
        return Versioned.model_validate_json(text).schema_version
    except ValidationError:
        return None
