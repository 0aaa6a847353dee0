"""The result of verifying a bundle: checks with their problems, and warnings of values near a limit."""

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
        backend: `onnxruntime` for the graphs; `tensorrt_rtx` or `tensorrt` for the engines, which also run if their GPU
            is present.
        components: keys or kinds; None for all and the whole pipeline.
        steps: sampler steps.
        seed: of the scene and the noise.
        threads: CPU threads; None for all cores.
        target, engine_dir: of the engines; see `BuildSettings`.
        build: build missing engines first.
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
            given = f"`steps={self.steps}` and `seed={self.seed}`"
            raise InputError(f"{given}: expected 1 or more steps, a seed from 0 on.")


@dataclass(frozen=True)
class ComponentCheck:
    """A component compared with its float32 twin.

    Attributes:
        component: key in the bundle.
        precision: of its arithmetic.
        calls: number of calls compared.
        difference: relative L2 over all calls, of the worst output; infinite if a value is not finite.
        limit: largest accepted difference.
        ranges: greatest absolute values of its FLOAT16 tensors, the largest first; empty in float32.
        problems: sentences; empty if the check passed.
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
        """Greatest value of all FLOAT16 tensors; None in float32."""
        return self.ranges[0].greatest if self.ranges else None


@dataclass(frozen=True)
class StageCheck:
    """A whole task compared with its run in float32 twins, from the same noise.

    Attributes:
        stage: name of the task.
        latents: largest relative L2 difference of its float results (for Diffusion-VAS the last latents); infinite if a
            value is not finite.
        limit: largest accepted difference.
        mask_iou: IoU of the masks over all frames; None for a task without masks.
        frames_max, frames_mean: absolute difference of the pictures, in levels of 255; None for a task without.
        problems: sentences; empty if the check passed.
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
    """A component's engine: its file, the reason if it was built now, and its problems as sentences."""

    component: str
    file: str | None
    built: str | None
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """All checks of a bundle.

    Attributes:
        bundle: its folder.
        notes: what the checks do not cover.
    """

    bundle: str
    settings: VerifySettings
    components: tuple[ComponentCheck, ...] = ()
    stages: tuple[StageCheck, ...] = ()
    engines: tuple[EngineCheck, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def problems(self) -> list[tuple[str, str]]:
        """Problems of all checks: component or stage, and a sentence."""
        found = [(row.component, row.problems) for row in self.components]
        found += [(row.component, row.problems) for row in self.engines]
        found += [(f"stage {row.stage}", row.problems) for row in self.stages]
        return [(name, problem) for name, problems in found for problem in problems]

    @property
    def warnings(self) -> list[tuple[str, str]]:
        """Values that are valid but near the limit: component, and a sentence."""
        limits = f"beyond {LIMIT:.0f}; half precision ends at {HALF_MAX:.0f}."
        near = {row.component: [r for r in over(row.ranges) if r.greatest <= HALF_MAX] for row in self.components}
        return [(component, f"{named(ranges)} {limits}") for component, ranges in near.items() if ranges]

    @property
    def ok(self) -> bool:
        """Whether every check passed."""
        return not self.problems

    def as_json(self, most_ranges: int = 10) -> dict[str, Any]:
        """Returns a JSON-ready form with None for numbers that are not finite.

        Args:
            most_ranges: how many tensors of each component to list.
        """
        components = []
        for row in self.components:
            ranges = [{**_finite(r._asdict()), "layer": r.layer} for r in row.ranges[:most_ranges]]
            counts = {"half_tensors": len(row.ranges), "beyond_limit": len(over(row.ranges))}
            components.append({**_plain(row), "ranges": ranges, **counts})
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
    """Begins a sentence: `3 tensors, the greatest 2.0e+04 at down_blocks.0/Conv_5 (v12), go`."""
    first = ranges[0]
    value = f"{first.greatest:.1e} at {first.node} ({first.tensor})"
    return f"a tensor, {value}, goes" if len(ranges) == 1 else f"{len(ranges)} tensors, the greatest {value}, go"


def _plain(row: ComponentCheck | StageCheck | EngineCheck) -> dict[str, Any]:
    values = {field.name: getattr(row, field.name) for field in fields(row)}
    return {"ok": not row.problems, **_finite(values), "problems": list(row.problems)}


def _finite(values: dict[str, Any]) -> dict[str, Any]:
    return {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in values.items()}
