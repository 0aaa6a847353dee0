"""The base of all records, and what was measured: machine, bundle, settings and backend."""

from __future__ import annotations

import hashlib
from typing import TypeAlias

from pydantic import BaseModel, ConfigDict

Seconds: TypeAlias = list[float]
"""Raw samples, in the order they were measured."""


class Record(BaseModel):
    """Base class of all records: frozen, no unknown fields, no NaN or infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Gpu(Record):
    """A GPU: `capability` such as `sm86`, memory in bytes, versions of driver and CUDA."""

    name: str
    capability: str
    memory: int
    driver: str
    cuda: str


class Machine(Record):
    """The machine, without host or user names: usable `cores`, `memory` in bytes, operating system and architecture."""

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
    """The bundle: its folder's name, and the sha256 of its manifest, which covers all weights and graphs."""

    name: str
    manifest: str
    stages: list[str]
    frames: int
    size: tuple[int, int]
    precision: str


class Work(Record):
    """The settings of a clip, as in `amodal.runtime.families.diffusion_vas.stage.Settings`.

    `depth` means that the bundle's own component computes it from the frames. `steps` is 0 for a family that does not
    sample; `guidance` and `churn` then mean nothing.
    """

    stages: list[str]
    frames: int
    size: tuple[int, int]
    steps: int = 25
    guidance: float = 1.5
    churn: float = 0.0
    seed: int = 23
    samples: int = 1
    depth: bool = False


class Executed(Record):
    """The backend's description of itself, and the memory mode."""

    backend: str
    version: str
    device: str
    memory: str
    options: dict[str, str] = {}
