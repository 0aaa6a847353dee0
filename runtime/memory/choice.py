"""Which way of running is taken: the fastest whose plan fits, or a refusal that says what would fit."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice, product
from typing import Literal, NamedTuple, get_args

from ..backends import EngineNeeds
from ..builds.finding import EngineBuild, find_build
from ..builds.store import EngineBackend, engine_folder
from ..bundle.manifest import Manifest
from ..bundle.reading import Bundle
from ..errors import InputError, MemoryBudgetError
from ..execution.components import Memory
from ..execution.family import Family
from ..execution.run import Run
from ..paths import PathLike
from .plan import Footprint, MemoryPlan, footprints_of, parse_bytes, plan_memory

MemoryWish = Literal["auto", "resident", "sequential"]
Vram = str | int | None

MEMORIES: tuple[Memory, ...] = ("resident", "sequential")


@dataclass(frozen=True)
class Planner:
    """Plans runs of one bundle with engines whose records are known.

    Attributes:
        footprints: of every component that a run uses.
    """

    family: Family
    manifest: Manifest
    footprints: Mapping[str, Footprint]

    def plans(self, run: Run | None, memories: tuple[Memory, ...] = MEMORIES) -> Iterator[MemoryPlan]:
        """The plans of every way to make a run, the fastest first.

        Loading a component again for each clip costs seconds, so that `resident` comes first.
        """
        resolved = self.family.calls(self.manifest, run).run
        for memory, variant in product(memories, resolved.variants()):
            yield plan_memory(self.family, self.manifest, self.footprints, variant, memory)

    def choose(
        self,
        run: Run | None,
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
        tried = list(self.plans(run, memories))
        for plan in tried:
            if plan.fits(budget):
                return plan
        assert budget is not None
        least = min(tried, key=lambda plan: plan.peak_bytes)
        smaller = [
            f"{option} ({_words(plan.peak_bytes)}{', an estimate' if plan.estimated else ''})"
            for option, plan in self._smaller(least.run, budget, memories)
        ]
        fix = f"What would fit: {'; '.join(smaller)}." if smaller else "No single smaller setting would fit either."
        where = f"in the {least.peak.name} phase of {least.peak.task} ({least.peak.runs})"
        raise MemoryBudgetError(
            f"{budget / 1e9:g} GB of GPU memory are {because}: the least is {_words(least.peak_bytes)}, {where}, "
            f"with {_way(least)}. {fix}"
        )

    def _smaller(self, run: Run, budget: int, memories: tuple[Memory, ...]) -> Iterator[tuple[str, MemoryPlan]]:
        """Settings that need less and fit, each by itself: how to ask for it, and its plan."""

        def fitting(smaller: Run, memories: tuple[Memory, ...] = memories) -> MemoryPlan | None:
            return next((plan for plan in self.plans(smaller, memories) if plan.fits(budget)), None)

        other = fitting(run.open_variant(), MEMORIES)
        if other is not None:
            yield _way(other), other
        for kind in run.smaller(self.manifest):  # of each the largest that fits
            fits = ((option, plan) for option, smaller in kind if (plan := fitting(smaller)) is not None)
            yield from islice(fits, 1)


@dataclass(frozen=True)
class Planned:
    """A model's plan, and what it takes to hold every run to it.

    Attributes:
        budget: in bytes; None for no limit.
        plan: of the run that the model was loaded for.
        build: the engines that it was made from.
    """

    planner: Planner
    budget: int | None
    plan: MemoryPlan
    build: EngineBuild | None = None

    def fit_to_budget(self, run: Run) -> Run:
        """Returns a run in the variant that fits: its own; or where that is open the plan's, or where the run takes
        more than was planned for, a smaller one.

        Raises:
            InputError: something for which the model was not loaded.
            MemoryBudgetError: the run does not fit in the memory mode of the plan.
        """
        planned, planner = self.plan.run, self.planner
        for task in run.tasks:
            if task not in planned.tasks:
                loaded = " and ".join(planned.tasks)
                raise InputError(f"this model was loaded for {loaded} alone; load it for {task} too.")
        resolved = planner.family.calls(planner.manifest, run).run
        together = resolved.beside(planned, self.plan.memory == "resident")
        return planner.choose(together, self.budget, (self.plan.memory,)).run


class MemoryRequest(NamedTuple):
    """How much GPU memory a model may take, and for which runs.

    Attributes:
        memory: `auto` for what fits and is fastest.
        vram: the most that may be taken, in bytes or as in `parse_bytes`; None for no limit.
        engine_dir: where the engines are; None for the bundle's own folder.
        run: what will be run; None for every task of the bundle, with its default settings.
    """

    memory: MemoryWish = "resident"
    vram: Vram = None
    engine_dir: PathLike | None = None
    run: Run | None = None


class Executor(NamedTuple):
    """What a backend says of itself that planning needs.

    Attributes:
        needs: which engines it can run; None for any.
        on_gpu: whether it runs graphs on a GPU: there is no plan then, as nothing tells their activations before they
            run, and the backend itself holds them to the limit.
        free: bytes that are free on the GPU now, which a plan must not exceed either; None where that is not known.
    """

    needs: EngineNeeds | None = None
    on_gpu: bool = False
    free: int | None = None


def plan_model(
    bundle: Bundle,
    family: Family,
    backend: str,
    request: MemoryRequest | None = None,
    executor: Executor | None = None,
) -> Planned | None:
    """The plan of a model on a backend that runs engines; None for one that runs graphs.

    Args:
        request: None for resident memory without a limit.
        executor: None where the backend is not there.

    Raises:
        InputError: an unknown `memory`, or a limit on the memory that this backend does not use.
        EngineError: the engines that the run needs are not there, or not of this bundle.
        MemoryBudgetError: no way of running fits.
    """
    memory, vram, engine_dir, run = request or MemoryRequest()
    needs, on_gpu, free = executor or Executor()
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
    budget = budget_of(vram)
    calls = family.calls(bundle.manifest, run)
    profiles = {key: family.profiles(bundle.manifest, key) for key in calls.components}
    wanted = (None, None) if needs is None else (needs.target, needs.version)
    build = find_build(bundle, engine_folder(bundle.path, engine_dir), backend, profiles, *wanted)
    planner = Planner(family, bundle.manifest, footprints_of(build.records.values()))
    memories = MEMORIES if memory == "auto" else (memory,)
    if free is not None and (budget is None or free < budget):
        because = "free here and not enough, unless other programs are closed"
        plan = planner.choose(calls.run, free, memories, because)
    else:
        plan = planner.choose(calls.run, budget, memories)
    return Planned(planner, budget, plan, build)


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


def _way(plan: MemoryPlan) -> str:
    variant = plan.run.variant
    return f"{plan.memory} memory{f' with {variant}' if variant else ''}"
