"""What clips come to: beside float32, beside the truth, beside other ways to run them."""

from __future__ import annotations

from typing import Literal, TypeAlias

from amodal.runtime.families.diffusion_vas.config import StageName

from .about import Executed, Record, Seconds, Work

Against: TypeAlias = Literal["twin", "diffusers"]


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

    Attributes:
        against: what `reference` is; None in older files, where its text alone tells.
    """

    kind: Literal["fidelity"] = "fidelity"
    work: Work
    executed: Executed
    reference: str
    stages: list[StageFidelity]
    against: Against | None = None

    @property
    def compared_with(self) -> Against:
        """`against`, whatever the file's age."""
        return self.against or ("diffusers" if self.reference.startswith("the reference pipeline") else "twin")


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

    Attributes:
        workers: processes that ran at a time, each slowed by the others; None in older files.
    """

    kind: Literal["quality"] = "quality"
    executed: Executed
    scenes: int
    presets: list[Preset]
    baselines: dict[str, float]
    workers: int | None = None


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
        device: on which they were compared. threads: of those on a CPU. None in older files.
    """

    kind: Literal["peers"] = "peers"
    work: Work
    peers: list[Peer]
    refused: dict[str, str] = {}
    device: str | None = None
    threads: int | None = None
