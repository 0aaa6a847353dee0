"""Chooses the fastest way of running that fits a memory budget, or says what would fit."""

from __future__ import annotations

import logging
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
from ..errors import EngineError, EngineNotFoundError, InputError, MemoryBudgetError
from ..execution.components import Memory
from ..execution.family import Family
from ..execution.run import Run
from ..paths import PathLike
from .plan import Footprint, MemoryPlan, footprints_of, parse_bytes, plan_memory
from .recorded import MemoryRecord, read_memory

_LOG = logging.getLogger(__name__)

MemoryWish = Literal["auto", "resident", "sequential"]
Vram = str | int | None

MEMORIES: tuple[Memory, ...] = ("resident", "sequential")


@dataclass(frozen=True)
class Planner:
    """Plans runs of one bundle.

    Attributes:
        footprints: of every component that a run uses, from the records of its engines or graphs.
    """

    family: Family
    manifest: Manifest
    footprints: Mapping[str, Footprint]

    def plans(self, run: Run | None, memories: tuple[Memory, ...] = MEMORIES) -> Iterator[MemoryPlan]:
        """Yields the plans of every way to make a run, the fastest first.

        `resident` comes first, since loading a component again for each clip takes seconds.
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
        """Returns the first of `plans` that fits a budget in bytes; None is no limit.

        Args:
            because: why the budget is too small, for the message.

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
        """Yields single settings that would fit: the option to set, and its plan."""

        def fitting(smaller: Run, memories: tuple[Memory, ...] = memories) -> MemoryPlan | None:
            return next((plan for plan in self.plans(smaller, memories) if plan.fits(budget)), None)

        other = fitting(run.open_variant(), MEMORIES)
        if other is not None:
            yield _way(other), other
        for kind in run.smaller(self.manifest):  # the largest of each kind that fits
            fits = ((option, plan) for option, smaller in kind if (plan := fitting(smaller)) is not None)
            yield from islice(fits, 1)


@dataclass(frozen=True)
class Planned:
    """A model's memory plan, which every run must keep to.

    Attributes:
        budget: in bytes; None for no limit.
        plan: of the run that the model was loaded for.
        build: the engines that the plan is based on.
    """

    planner: Planner
    budget: int | None
    plan: MemoryPlan
    build: EngineBuild | None = None

    def fit_to_budget(self, run: Run) -> Run:
        """Returns the run in its own variant, or if that is open, in the plan's or a smaller one that fits.

        Raises:
            InputError: the model was not loaded for this run.
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
        memory: `auto` for the fastest that fits.
        vram: limit in bytes or as in `parse_bytes`; None for none.
        engine_dir: folder of the engines; None for the bundle's own.
        run: the run to plan for; None for every task of the bundle with its default settings.
    """

    memory: MemoryWish = "resident"
    vram: Vram = None
    engine_dir: PathLike | None = None
    run: Run | None = None


class BackendFacts(NamedTuple):
    """The facts about a backend that planning needs.

    Attributes:
        needs: engines it can run; None for any.
        on_gpu: whether it runs graphs on a GPU. There is a plan only if the bundle's graphs were measured
            (`recording.py`). Otherwise only the weights are compared with a limit, and the backend itself enforces it.
        free: bytes free on the GPU now, which a plan must not exceed; None if unknown.
    """

    needs: EngineNeeds | None = None
    on_gpu: bool = False
    free: int | None = None


def plan_model(
    bundle: Bundle,
    family: Family,
    backend: str,
    request: MemoryRequest | None = None,
    facts: BackendFacts | None = None,
) -> Planned | None:
    """Plans a model on a backend that runs engines, or graphs that were measured on a GPU.

    Returns None for other graphs, whose weights it compares with the limit.

    Args:
        request: None for resident memory without a limit.
        facts: None if the backend is not created.

    Raises:
        InputError: an unknown `memory`, or an option that this backend does not use.
        EngineError: the engines that the run needs are missing, or not of this bundle.
        MemoryBudgetError: no way of running fits.
    """
    memory, vram, engine_dir, run = request or MemoryRequest()
    needs, on_gpu, free = facts or BackendFacts()
    if memory not in get_args(MemoryWish):
        raise InputError(f"memory {memory!r} is unknown; expected resident or sequential, or auto.")
    if backend not in get_args(EngineBackend):
        if vram is not None and not on_gpu:
            unused = "`vram`", "uses no GPU memory"
        elif engine_dir is not None:
            unused = "`engine_dir`", "runs graphs, not engines"
        else:
            return _plan_graphs(bundle, family, request or MemoryRequest(), free) if on_gpu else None
        raise InputError(f"{unused[0]}: backend {backend} {unused[1]}; leave it out, or choose another `backend`.")
    budget = budget_of(vram)
    target, version = (None, None) if needs is None else (needs.target, needs.version)
    planner, build = planner_for(bundle, family, run, backend, engine_dir, target, version)
    return Planned(planner, budget, _chosen(planner, run, memory, budget, free), build)


def _chosen(planner: Planner, run: Run | None, memory: MemoryWish, budget: int | None, free: int | None) -> MemoryPlan:
    memories = MEMORIES if memory == "auto" else (memory,)
    limit, because = budget, "not enough (`vram`)"
    if free is not None and (budget is None or free < budget):
        limit, because = free, "free here and not enough, unless other programs are closed"
    return planner.choose(run, limit, memories, because)


def _plan_graphs(bundle: Bundle, family: Family, request: MemoryRequest, free: int | None) -> Planned | None:
    """Plans graphs on a GPU from their record; without one, compares their weights with the limit."""
    memory, vram, _, run = request
    budget = budget_of(vram)
    try:
        planner, _ = recorded_planner(bundle, family, run)
    except EngineNotFoundError:
        planner = None
    except EngineError as error:
        if budget is not None:
            raise
        _LOG.warning("no plan of GPU memory: %s", error)
        planner = None
    if planner is not None:
        return Planned(planner, budget, _chosen(planner, run, memory, budget, free))
    if budget is not None:
        _require_room_for_weights(bundle, family, budget, memory, run)
    return None


def recorded_planner(bundle: Bundle, family: Family, run: Run | None) -> tuple[Planner, MemoryRecord]:
    """Returns a planner with what a run's graphs took on a GPU, and its record.

    Raises:
        EngineNotFoundError: they were not measured.
        EngineStaleError, EngineCorruptError: the record is of other graphs, or damaged.
    """
    record = read_memory(bundle)
    footprints = record.footprints(bundle, family.calls(bundle.manifest, run).components)
    return Planner(family, bundle.manifest, footprints), record


def _require_room_for_weights(bundle: Bundle, family: Family, limit: int, memory: MemoryWish, run: Run | None) -> None:
    """Raises MemoryBudgetError if a limit in bytes is below what the weights of a run's graphs take."""
    components = family.calls(bundle.manifest, run).components
    sizes = {key: bundle.component(key).loaded_bytes for key in components}
    largest = max(sizes, key=lambda key: sizes[key])
    need, whose, fix = sum(sizes.values()), f"the weights of {len(sizes)} networks", "allow more"
    if memory == "sequential":
        need, whose = sizes[largest], f"the weights of {largest}, the largest network,"
    elif sizes[largest] < limit:
        fix += ', or choose `memory="sequential"`'
    if need > limit:
        raise MemoryBudgetError(
            f"{limit / 1e9:g} GB of GPU memory are not enough (`vram`): {whose} take {_words(need)}, and activations "
            f"come on top; {fix}."
        )


def planner_for(
    bundle: Bundle,
    family: Family,
    run: Run | None,
    backend: str,
    engine_dir: PathLike | None = None,
    target: str | None = None,
    version: str | None = None,
) -> tuple[Planner, EngineBuild]:
    """Finds the engines of a run, and returns a planner with their records; see `find_build` for arguments and errors.

    Args:
        run: None for every task of the bundle with its default settings.
    """
    profiles = {key: family.profiles(bundle.manifest, key) for key in family.calls(bundle.manifest, run).components}
    build = find_build(bundle, engine_folder(bundle.path, engine_dir), backend, profiles, target, version)
    return Planner(family, bundle.manifest, footprints_of(build.records.values())), build


def budget_of(vram: Vram) -> int | None:
    """Converts a limit to bytes; raises InputError if it is not an amount of memory."""
    if vram is None:
        return None
    if isinstance(vram, str):
        return parse_bytes(vram)
    if isinstance(vram, bool) or vram < 1:
        raise InputError(f"{vram} bytes of GPU memory allowed; expected 1 or more, or text like 6GB.", field="vram")
    return vram


def _words(count: int) -> str:
    """Formats a need, rounded up so that a budget of the written size is enough."""
    tenths = math.ceil(count / 1e5)
    return f"{tenths / 10:.1f} MB" if tenths < 10_000 else f"{math.ceil(count / 1e6) / 1e3:.3f} GB"


def _way(plan: MemoryPlan) -> str:
    variant = plan.run.variant
    return f"{plan.memory} memory{f' with {variant}' if variant else ''}"
