"""Results compared with float32, with the truth, and with other implementations."""

from __future__ import annotations

from typing import Literal, TypeAlias

from amodal.runtime.families.diffusion_vas.config import StageName

from .about import Executed, Record, Seconds, Work

Against: TypeAlias = Literal["twin", "diffusers"]


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

    In both runs, stage `complete` receives the true masks, so it does not depend on the output of `segment`.

    Attributes:
        against: kind of reference; None in older files, where only the text of `reference` shows it.
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
        workers: processes that ran at the same time and slowed each other; None in older files.
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
