"""What verifying a bundle found: rows, what is wrong in them, and what comes near its limit."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Any, get_args

from amodal.runtime.backends import DEFAULT
from amodal.runtime.builds.store import EngineBackend
from amodal.runtime.bundle.manifest import Precision
from amodal.runtime.errors import InputError
from amodal.runtime.paths import PathLike

from .ranges import HALF_MAX, LIMIT, Range, over


@dataclass(frozen=True)
class VerifySettings:
    """What to verify.

    Attributes:
        backend: `onnxruntime` to run the graphs; `tensorrt_rtx` or `tensorrt` for their engines, which are run too
            where the GPU is.
        components: keys or kinds; None for all, and the whole pipeline.
        steps: sampler steps.
        seed: of the scene and of the noise.
        threads: CPU threads; None for all cores.
        target, engine_dir: of the engines; see `BuildSettings`.
        build: build the engines that are missing first.
    """

    backend: str = DEFAULT
    components: tuple[str, ...] | None = None
    steps: int = 25
    seed: int = 23
    threads: int | None = None
    target: str = "portable"
    engine_dir: PathLike | None = None
    build: bool = False

    def __post_init__(self) -> None:
        engines = get_args(EngineBackend)
        if self.backend not in (DEFAULT, *engines):
            known = ", ".join((DEFAULT, *engines))
            raise InputError(f"backend {self.backend} cannot be verified; expected one of {known}.", field="backend")
        if self.backend == DEFAULT and (self.build or self.engine_dir is not None):
            raise InputError(
                f'`build` and `engine_dir` are for engines, {DEFAULT} has none; choose `backend="{engines[0]}"`.'
            )
        if self.steps < 1 or self.seed < 0:
            raise InputError(
                f"`steps={self.steps}` and `seed={self.seed}`: expected 1 or more steps, a seed from 0 on."
            )


@dataclass(frozen=True)
class ComponentCheck:
    """A component beside its float32 twin.

    Attributes:
        component: key in the bundle.
        precision: of its arithmetic.
        calls: compared.
        difference: relative L2 over all calls, of the worst output; infinite where one is not finite.
        limit: the largest that is right.
        ranges: greatest absolute values of its FLOAT16 tensors, the largest first; none in float32.
        problems: what is wrong, as sentences; none if it is right.
    """

    component: str
    precision: Precision
    calls: int
    difference: float
    limit: float
    ranges: tuple[Range, ...]
    problems: tuple[str, ...]

    @property
    def greatest(self) -> float | None:
        """Of all FLOAT16 tensors; None in float32."""
        return self.ranges[0].greatest if self.ranges else None


@dataclass(frozen=True)
class StageCheck:
    """A whole task beside the same in float32 twins, from the same noise.

    Attributes:
        stage: the task.
        latents: largest relative L2 difference of what it gives as floats, which of Diffusion-VAS are the last latents;
            infinite where it is not finite.
        limit: the largest that is right.
        mask_iou: of the masks, all frames together; None for a task that gives none.
        frames_max, frames_mean: absolute difference of the decoded pictures, of 255; None where there are none.
        problems: see `ComponentCheck`.
    """

    stage: str
    latents: float
    limit: float
    mask_iou: float | None
    frames_max: int | None
    frames_mean: float | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class EngineCheck:
    """A component's engine: its file, why it was built now (None if it was not), and what is wrong."""

    component: str
    file: str | None
    built: str | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """What was found.

    Attributes:
        bundle: its folder.
        notes: what these checks do not show.
    """

    bundle: str
    settings: VerifySettings
    components: tuple[ComponentCheck, ...] = ()
    stages: tuple[StageCheck, ...] = ()
    engines: tuple[EngineCheck, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def problems(self) -> list[tuple[str, str]]:
        """What is wrong: component or stage, and a sentence."""
        found = [(row.component, row.problems) for row in self.components]
        found += [(row.component, row.problems) for row in self.engines]
        found += [(f"stage {row.stage}", row.problems) for row in self.stages]
        return [(name, problem) for name, problems in found for problem in problems]

    @property
    def warnings(self) -> list[tuple[str, str]]:
        """What is right and near its limit: component, and a sentence."""
        found = []
        for row in self.components:
            near = [r for r in over(row.ranges) if r.greatest <= HALF_MAX]
            if near:
                found.append(
                    (row.component, f"{named(near)} beyond {LIMIT:.0f}; half precision ends at {HALF_MAX:.0f}.")
                )
        return found

    @property
    def ok(self) -> bool:
        """Whether every check was passed."""
        return not self.problems

    def as_json(self, most_ranges: int = 10) -> dict[str, Any]:
        """Plain form; numbers that are not finite are None.

        Args:
            most_ranges: how many tensors of each component are listed.
        """
        components = []
        for row in self.components:
            plain = _plain(row)
            plain["ranges"] = [
                {**r._asdict(), "layer": r.layer, "greatest": _finite(r.greatest)} for r in row.ranges[:most_ranges]
            ]
            components.append({**plain, "half_tensors": len(row.ranges), "beyond_limit": len(over(row.ranges))})
        return {
            "bundle": self.bundle,
            "ok": self.ok,
            "backend": self.settings.backend,
            "steps": self.settings.steps,
            "seed": self.settings.seed,
            "components": components,
            "stages": [_plain(row) for row in self.stages],
            "engines": [_plain(row) for row in self.engines],
            "warnings": [f"{name}: {warning}" for name, warning in self.warnings],
            "notes": list(self.notes),
        }


def named(ranges: list[Range]) -> str:
    """The beginning of a sentence: `3 tensors, the greatest 2.0e+04 at down_blocks.0/Conv_5 (v12), go`."""
    first = ranges[0]
    value = f"{first.greatest:.1e} at {first.node} ({first.tensor})"
    return f"a tensor, {value}, goes" if len(ranges) == 1 else f"{len(ranges)} tensors, the greatest {value}, go"


def _plain(row: ComponentCheck | StageCheck | EngineCheck) -> dict[str, Any]:
    plain: dict[str, Any] = {"ok": not row.problems}
    for field in fields(row):
        value = getattr(row, field.name)
        plain[field.name] = _finite(value) if isinstance(value, float) else value
    return {**plain, "problems": list(row.problems)}


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
