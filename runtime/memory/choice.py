"""Which way of running is taken: the fastest whose plan fits, or a refusal that says what would fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Literal, get_args

from ..backends import EngineNeeds
from ..builds.finding import EngineBuild, find_build
from ..builds.store import EngineBackend, engine_folder
from ..bundle.manifest import Manifest, StageName
from ..bundle.reading import Bundle
from ..errors import InputError, MemoryBudgetError
from ..execution.components import Memory
from ..families.diffusion_vas.stage import Settings
from ..paths import PathLike
from ..sampling.guidance import is_guided
from .buffers import RunShape, needed_components
from .plan import CfgCalls, Footprint, MemoryPlan, footprints_of, frame_multiple, parse_bytes, plan_memory

MemoryWish = Literal["auto", "resident", "sequential"]
Vram = str | int | None

MEMORIES: tuple[Memory, ...] = ("resident", "sequential")


def plans(
    manifest: Manifest,
    footprints: Mapping[str, Footprint],
    shape: RunShape,
    memories: tuple[Memory, ...] = MEMORIES,
) -> Iterator[MemoryPlan]:
    """The plans of every way of running that is allowed, the fastest first.

    Loading a component again for each clip costs seconds, so that `resident` comes first; two CFG rows in one call
    read the weights once for both, which saves a part of each step. Without guidance there is one row, and one way.
    """
    calls: tuple[CfgCalls, ...] = ("batched", "separate")
    if shape.cfg_rows != "auto":
        calls = (shape.cfg_rows,)
    for memory, cfg_rows in product(memories, calls if shape.guided else calls[:1]):
        yield plan_memory(manifest, footprints, shape, memory, cfg_rows)


def choose(
    manifest: Manifest,
    footprints: Mapping[str, Footprint],
    shape: RunShape,
    budget: int | None,
    memories: tuple[Memory, ...] = MEMORIES,
    because: str = "not enough (`vram`)",
) -> MemoryPlan:
    """The first of `plans` that fits a budget in bytes; without a budget the first.

    Args:
        because: what the message says of a budget that is too small.

    Raises:
        MemoryBudgetError: none fits; the message says what is needed where, and which smaller settings would fit.
    """
    tried = list(plans(manifest, footprints, shape, memories))
    for plan in tried:
        if plan.fits(budget):
            return plan
    assert budget is not None
    least = min(tried, key=lambda plan: plan.peak_bytes)
    smaller = [
        f"{option} ({_words(plan.peak_bytes)}{', an estimate' if plan.estimated else ''})"
        for option, plan in _smaller(manifest, footprints, least.shape, budget, memories)
    ]
    mend = f"What would fit: {'; '.join(smaller)}." if smaller else "No single smaller setting would fit either."
    where = f"in the {least.peak.name} phase of {least.peak.stage} ({least.peak.runs})"
    raise MemoryBudgetError(
        f"{budget / 1e9:g} GB of GPU memory are {because}: the least is {_words(least.peak_bytes)}, {where}, "
        f"with {least.memory} memory and {least.cfg_rows} CFG rows. {mend}"
    )


def _smaller(
    manifest: Manifest,
    footprints: Mapping[str, Footprint],
    shape: RunShape,
    budget: int,
    memories: tuple[Memory, ...],
) -> Iterator[tuple[str, MemoryPlan]]:
    """Settings that need less and fit, each by itself: how to ask for it, and its plan."""

    def fitting(smaller: RunShape, memories: tuple[Memory, ...] = memories) -> MemoryPlan | None:
        found = plans(manifest, footprints, smaller, memories)
        return next((plan for plan in found if plan.fits(budget)), None)

    assert shape.decode_chunk is not None
    other = fitting(replace(shape, cfg_rows="auto"), MEMORIES)
    if other is not None:
        yield f"{other.memory} memory with {other.cfg_rows} CFG rows", other
    kinds: list[Iterator[tuple[str, RunShape]]] = [
        ((f"`samples={n}`", replace(shape, samples=n)) for n in range(shape.samples - 1, 0, -1)),
        ((f"`decode_chunk={n}`", replace(shape, decode_chunk=n)) for n in range(shape.decode_chunk - 1, 0, -1)),
        (
            (f"a bundle exported for frames of {h}x{w}", replace(shape, size=(h, w)))
            for h, w in _smaller_sizes(manifest, shape)
        ),
    ]
    if len(shape.stages) > 1:
        alone = ((f"the {stage} stage alone", replace(shape, stages=(stage,))) for stage in shape.stages)
        kinds = [*(iter([one]) for one in alone), *kinds]
    for kind in kinds:  # of each the largest that fits
        fits = ((option, plan) for option, smaller in kind if (plan := fitting(smaller)) is not None)
        yield from islice(fits, 1)


def _smaller_sizes(manifest: Manifest, shape: RunShape) -> Iterator[tuple[int, int]]:
    """Frame sizes below a run's, of nearly the same form, the largest first."""
    height, width = shape.size or manifest.size
    multiple = frame_multiple(manifest)
    for rows in range((height - 1) // multiple, 0, -1):
        yield rows * multiple, max(round(rows * width / height), 1) * multiple


@dataclass(frozen=True)
class Planned:
    """A model's plan, and what it takes to hold every run to it.

    Attributes:
        budget: in bytes; None for no limit.
        plan: of the run that the model was loaded for.
        build: the engines that it was made from.
    """

    manifest: Manifest
    footprints: Mapping[str, Footprint]
    budget: int | None
    plan: MemoryPlan
    build: EngineBuild | None = None

    def settle(
        self, stage: StageName, settings: Settings, samples: int, depth: bool, given: tuple[int, int] | None = None
    ) -> Settings:
        """The settings of one run, with its CFG rows settled: those asked for; or with `auto` the plan's, or where the
        run takes more than was planned for, one after the other.

        Args:
            depth: whether it is computed. In resident memory what the plan has loaded stays loaded beside.
            given: (h, w) of the pictures that are handed over; None for the bundle's.

        Raises:
            InputError: a stage, or depth, for which the model was not loaded.
            MemoryBudgetError: the run does not fit in the memory mode of the plan.
        """
        planned = self.plan.shape
        if stage not in planned.stages:
            raise InputError(f"this model was loaded for stage {planned.stages[0]} alone; load it for {stage} too.")
        if depth and self.manifest.depth is not None and "depth" not in self.footprints:
            raise InputError("this model was loaded to be given depth; pass it, or load it for runs that compute it.")
        resident = self.plan.memory == "resident"
        shape = RunShape(
            stages=planned.stages if resident else (stage,),
            depth=depth or (resident and planned.depth),
            guided=is_guided(settings.guidance),
            steps=settings.steps,
            samples=samples,
            decode_chunk=settings.decode_chunk,
            cfg_rows=settings.cfg_rows,
            given=given,
        )
        if shape.cfg_rows == "auto" and self.plan.cfg_rows == "separate":
            shape = replace(shape, cfg_rows="separate")
        plan = choose(self.manifest, self.footprints, shape, self.budget, (self.plan.memory,))
        return replace(settings, cfg_rows=plan.cfg_rows)


def plan_model(
    bundle: Bundle,
    backend: str,
    memory: MemoryWish = "resident",
    *,
    vram: Vram = None,
    engine_dir: PathLike | None = None,
    shape: RunShape | None = None,
    needs: EngineNeeds | None = None,
    on_gpu: bool = False,
    free: int | None = None,
) -> Planned | None:
    """The plan of a model on a backend that runs engines; None for one that runs graphs.

    Args:
        memory: `auto` for what fits and is fastest.
        vram: the most GPU memory that may be taken, in bytes or as in `parse_bytes`; None for no limit.
        needs: which engines the backend can run; None for any.
        on_gpu: whether graphs run on a GPU: there is no plan then, as nothing tells their activations before they run,
            and the backend itself holds them to `vram`.
        free: bytes that are free on the GPU now, which a plan must not exceed either; None where that is not known.
        shape: what will be run; None for every stage of the bundle, with the settings of `Model.segment`.

    Raises:
        InputError: an unknown `memory`, or a limit on the memory that this backend does not use.
        EngineError: the engines that the run needs are not there, or not of this bundle.
        MemoryBudgetError: no way of running fits.
    """
    if memory not in get_args(MemoryWish):
        raise InputError(f"memory {memory!r} is unknown; expected resident or sequential, or auto.")
    if backend not in get_args(EngineBackend):
        for name, given, why in (
            ("vram", vram, "uses no GPU memory"),
            ("engine_dir", engine_dir, "runs graphs, not engines"),
        ):
            if given is not None and not (on_gpu and name == "vram"):
                raise InputError(f"`{name}`: backend {backend} {why}; leave it out, or choose another `backend`.")
        return None
    budget, shape = budget_of(vram), shape or RunShape()
    folder = engine_folder(bundle.path, engine_dir)
    wanted = (None, None) if needs is None else (needs.target, needs.version)
    build = find_build(bundle, folder, backend, needed_components(bundle.manifest, shape), *wanted)
    footprints = footprints_of(build.records.values())
    memories = MEMORIES if memory == "auto" else (memory,)
    if free is not None and (budget is None or free < budget):
        because = "free here and not enough, unless other programs are closed"
        plan = choose(bundle.manifest, footprints, shape, free, memories, because)
    else:
        plan = choose(bundle.manifest, footprints, shape, budget, memories)
    return Planned(bundle.manifest, footprints, budget, plan, build)


def budget_of(vram: Vram) -> int | None:
    """A limit in bytes, however it was given.

    Raises:
        InputError: it is no amount of memory.
    """
    if vram is None or isinstance(vram, str):
        return None if vram is None else parse_bytes(vram)
    if isinstance(vram, bool) or vram < 1:
        raise InputError(f"{vram} bytes of GPU memory allowed; expected 1 or more, or text like 6GB.", field="vram")
    return vram


def _words(count: int) -> str:
    """A need in words, rounded up, so that a budget of what is written is enough."""
    tenths = math.ceil(count / 1e5)
    return f"{tenths / 10:.1f} MB" if tenths < 10_000 else f"{math.ceil(count / 1e6) / 1e3:.3f} GB"
