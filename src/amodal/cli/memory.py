"""`amodal inspect --memory`: the GPU memory that a bundle's engines need, before any is loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import BYTES, SIZE, human_bytes, print_json, table
from .options import MEMORIES, combined, engine_option, stage_option

if TYPE_CHECKING:
    from amodal.runtime.builds.finding import EngineBuild
    from amodal.runtime.families import Bundle
    from amodal.runtime.memory.plan import MemoryPlan

memory_options = combined(
    click.option("--memory", is_flag=True, help="Show the GPU memory of a run. The options below need it."),
    click.option("--backend", type=click.Choice(["tensorrt_rtx", "tensorrt"]), help="Default: tensorrt_rtx."),
    click.option("--target", metavar="GPUS", help="Use the engines for sm86, portable, this. Default: the newest."),
    engine_option,
    stage_option,
    click.option("--size", type=SIZE, metavar="HxW", help="Estimate the memory for frames of another size."),
    click.option("--mode", type=MEMORIES, help="Memory mode to plan for. Default: auto, which shows both."),
    click.option(
        "--vram",
        type=BYTES,
        help="Available GPU memory, for instance 6GB: shows what fits; exit code 2 if nothing does.",
    ),
    click.option(
        "--picture",
        type=click.Path(dir_okay=False, path_type=Path),
        metavar="FILE",
        help="Draw the memory to a .png or .svg file.",
    ),
)


def show_memory(bundle: str, as_json: bool, options: dict[str, Any]) -> None:
    """Prints the memory of a run, phase by phase, and the memory mode that is chosen.

    Raises:
        MemoryBudgetError: nothing fits; raised after everything is printed.
        EngineError: the engines are missing.
    """
    from amodal.runtime.builds.finding import find_build
    from amodal.runtime.builds.store import engine_folder
    from amodal.runtime.errors import MemoryBudgetError
    from amodal.runtime.families import Bundle
    from amodal.runtime.memory.choice import MEMORIES, Planner
    from amodal.runtime.memory.plan import footprints_of

    from .families import run_to_plan

    picture, budget, mode = options["picture"], options["vram"], options["mode"]
    if picture is not None:
        from .memory_picture import check_picture

        check_picture(picture)
    opened = Bundle(bundle)
    family, manifest = opened.family, opened.manifest
    run = run_to_plan(opened, options)
    profiles = {key: family.profiles(manifest, key) for key in family.calls(manifest, run).components}
    folder = engine_folder(bundle, options["engine_dir"])
    build = find_build(opened, folder, options["backend"] or "tensorrt_rtx", profiles, options["target"])
    planner = Planner(family, manifest, footprints_of(build.records.values()))
    memories = MEMORIES if mode in (None, "auto") else (mode,)
    plans = list(planner.plans(run, memories))
    chosen, refusal = None, None
    try:
        chosen = planner.choose(run, budget, memories)
    except MemoryBudgetError as error:
        refusal = error
    shown = [_best([plan for plan in plans if plan.memory == memory], budget) for memory in memories]
    if as_json:
        print_json(_as_json(opened, build, plans, budget, chosen))
    else:
        click.echo("\n".join([*_head(bundle, build, shown[0]), *_text(plans, shown, budget, chosen)]))
    if picture is not None:
        from .memory_picture import draw

        draw(picture, shown, budget)
        click.echo(f"Wrote {picture}.", err=as_json)
    if refusal is not None:
        raise refusal


def _best(plans: list[MemoryPlan], budget: int | None) -> MemoryPlan:
    """The fastest plan that fits, or the smallest if none does."""
    return next((plan for plan in plans if plan.fits(budget)), min(plans, key=lambda plan: plan.peak_bytes))


def _as_json(
    bundle: Bundle, build: EngineBuild, plans: list[MemoryPlan], budget: int | None, chosen: MemoryPlan | None
) -> dict[str, Any]:
    return {
        "bundle": str(bundle.path),
        "engines": str(build.folder),
        "version": build.version,
        "target": build.target,
        "budget_bytes": budget,
        "chosen": plans.index(chosen) if chosen is not None else None,
        "plans": [{"fits": plan.fits(budget), **plan.as_json()} for plan in plans],
    }


def _head(bundle: str, build: EngineBuild, plan: MemoryPlan) -> list[str]:
    lines = [f"{bundle}, {' and '.join(plan.run.tasks)}, {plan.run.pictures}".rstrip(", "), f"engines  {build.folder}"]
    if plan.estimated:
        lines.append("An estimate: the engines are of another size; activations are assumed to grow with the area.")
    return [*lines, ""]


def _text(
    plans: list[MemoryPlan], shown: list[MemoryPlan], budget: int | None, chosen: MemoryPlan | None
) -> Iterator[str]:
    rows = [[_name(p), f"{p.peak.task} {p.peak.name}", p.peak.runs, human_bytes(p.peak_bytes)] for p in plans]
    head = ["memory", "in the phase", "running", "peak"]
    yield _with_verdict(head, rows, [plan.peak_bytes for plan in plans], budget, 3)
    for plan in shown:
        yield f"\n{_name(plan)}:"
        yield _phases(plan, budget)
        if plan.memory == "resident":
            largest = max(plan.activations, key=lambda key: plan.activations[key])
            yield f"All components share one scratch buffer, as large as {largest} needs."
    yield f"\n{_components(plans)}"
    yield "The CUDA context adds some hundred MB, which only a GPU can tell."
    if budget is not None and chosen is not None:
        yield f"Chosen for {human_bytes(budget)}: {_name(chosen)}, which takes {human_bytes(chosen.peak_bytes)}."


def _name(plan: MemoryPlan) -> str:
    return f"{plan.memory}, {plan.run.variant}" if plan.run.variant else plan.memory


def _phases(plan: MemoryPlan, budget: int | None) -> str:
    rows = [
        [f"{phase.task} {phase.name}"]
        + [human_bytes(n) for n in (phase.resident_bytes, phase.scratch, phase.buffer_bytes, phase.peak_bytes)]
        for phase in plan.phases
    ]
    rows.append(["peak of the run", "", "", "", human_bytes(plan.peak_bytes)])
    peaks = [*(phase.peak_bytes for phase in plan.phases), plan.peak_bytes]
    return _with_verdict(["phase", "resident", "scratch", "buffers", "peak"], rows, peaks, budget)


def _with_verdict(head: list[str], rows: list[list[str]], peaks: list[int], budget: int | None, texts: int = 1) -> str:
    if budget is not None:
        head = [*head, "fits"]
        rows = [[*row, "yes" if peak <= budget else "no"] for row, peak in zip(rows, peaks, strict=True)]
    return table(head, rows, texts)


def _components(plans: list[MemoryPlan]) -> str:
    """Weights, and activations in each variant of the run."""
    variants = {plan.run.variant: plan for plan in plans}
    weights = plans[0].weights
    rows = []
    for key, size in weights.items():
        activations = dict.fromkeys(plan.activations[key] for plan in variants.values())
        rows.append([key, human_bytes(size), " / ".join(map(human_bytes, activations))])
    rows.append(["total", human_bytes(sum(weights.values())), ""])
    return table(["component", "weights", "activations"], rows)
