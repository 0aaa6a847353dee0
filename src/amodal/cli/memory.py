"""`amodal inspect --memory`: what GPU memory a bundle's engines take, before any is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import BytesType, SizeType, human_bytes, print_json, table

if TYPE_CHECKING:
    from amodal.runtime.builds.finding import EngineBuild
    from amodal.runtime.families import Bundle
    from amodal.runtime.memory.plan import MemoryPlan

_OPTIONS = (
    click.option("--memory", is_flag=True, help="Show the GPU memory of a run; the options below are for that."),
    click.option("--backend", type=click.Choice(["tensorrt_rtx", "tensorrt"]), help="Default: tensorrt_rtx."),
    click.option("--target", metavar="GPUS", help="Engines for what: sm86, portable, this. Default: the newest."),
    click.option("--engine-dir", type=click.Path(path_type=Path), help="Where they lie, as given to `amodal build`."),
    click.option("--stage", type=click.Choice(["segment", "complete", "both"]), help="Default: what the bundle has."),
    click.option("--size", type=SizeType(), help="An estimate for frames of another size."),
    click.option("--mode", type=click.Choice(["auto", "resident", "sequential"]), help="Default: auto, which is both."),
    click.option("--vram", type=BytesType(), help="GPU memory there is, say 6GB: what fits, or exit code 2."),
    click.option(
        "--picture", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Draw it: .png or .svg."
    ),
)


def memory_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options of `--memory`, for `amodal inspect`."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def show_memory(bundle: str, as_json: bool, options: dict[str, Any]) -> None:
    """Prints what a run takes, phase by phase, and which way of running is chosen.

    Raises:
        MemoryBudgetError: nothing fits; it is raised once all is printed.
        EngineError: there are no engines for it.
    """
    from amodal.runtime.errors import MemoryBudgetError
    from amodal.runtime.families import Bundle
    from amodal.runtime.memory.choice import MEMORIES, planner_for

    from .families import run_to_plan

    picture, budget, mode = options["picture"], options["vram"], options["mode"]
    if picture is not None:
        from .memory_picture import check_picture

        check_picture(picture)
    opened = Bundle(bundle)
    run = run_to_plan(opened, options)
    backend, engine_dir = options["backend"] or "tensorrt_rtx", options["engine_dir"]
    planner, build = planner_for(opened, opened.family, run, backend, engine_dir, options["target"])
    memories = MEMORIES if mode in (None, "auto") else (mode,)
    ways = list(planner.plans(run, memories))
    chosen, refusal = None, None
    try:
        chosen = planner.choose(run, budget, memories)
    except MemoryBudgetError as error:
        refusal = error
    shown = [_best([way for way in ways if way.memory == memory], budget) for memory in memories]
    if as_json:
        print_json(_plain(opened, build, ways, budget, chosen))
    else:
        click.echo(_text(bundle, build, ways, shown, budget, chosen))
    if picture is not None:
        from .memory_picture import draw

        draw(picture, shown, budget)
        click.echo(f"Wrote {picture}.", err=as_json)
    if refusal is not None:
        raise refusal


def _best(ways: list[MemoryPlan], budget: int | None) -> MemoryPlan:
    """The fastest that fits, or if none does, the one that takes least."""
    return next((way for way in ways if way.fits(budget)), min(ways, key=lambda way: way.peak_bytes))


def _plain(
    bundle: Bundle, build: EngineBuild, ways: list[MemoryPlan], budget: int | None, chosen: MemoryPlan | None
) -> dict[str, Any]:
    return {
        "bundle": str(bundle.path),
        "engines": str(build.folder),
        "version": build.version,
        "target": build.target,
        "budget_bytes": budget,
        "chosen": ways.index(chosen) if chosen is not None else None,
        "plans": [{"fits": way.fits(budget), **way.as_json()} for way in ways],
    }


def _text(
    bundle: str,
    build: EngineBuild,
    ways: list[MemoryPlan],
    shown: list[MemoryPlan],
    budget: int | None,
    chosen: MemoryPlan | None,
) -> str:
    run = shown[0].run
    lines = [f"{bundle}, {' and '.join(run.tasks)}, {run.pictures}".rstrip(", "), f"engines  {build.folder}"]
    if shown[0].estimated:
        lines.append("An estimate: the engines are of another size; activations are taken to grow with the area.")
    lines += ["", _ways(ways, budget)]
    for plan in shown:
        lines += ["", f"{_way(plan)}:", _phases(plan, budget)]
        if plan.memory == "resident":
            largest = max(plan.activations, key=lambda key: plan.activations[key])
            lines.append(f"All share one scratch, as large as {largest} needs.")
    lines += ["", _components(ways)]
    lines.append("The CUDA context comes on top, some hundred MB; only a GPU can tell.")
    if budget is not None and chosen is not None:
        lines.append(f"Chosen for {human_bytes(budget)}: {_way(chosen)}, which takes {human_bytes(chosen.peak_bytes)}.")
    return "\n".join(lines)


def _way(plan: MemoryPlan) -> str:
    return f"{plan.memory}, {plan.run.variant}" if plan.run.variant else plan.memory


def _ways(ways: list[MemoryPlan], budget: int | None) -> str:
    head = ["memory", "in the phase", "running", "peak"]
    rows = [[_way(w), f"{w.peak.task} {w.peak.name}", w.peak.runs, human_bytes(w.peak_bytes)] for w in ways]
    return _with_verdict(head, rows, [w.peak_bytes for w in ways], budget, 3)


def _phases(plan: MemoryPlan, budget: int | None) -> str:
    head = ["phase", "resident", "scratch", "buffers", "peak"]
    rows = [
        [
            f"{phase.task} {phase.name}",
            human_bytes(phase.resident_bytes),
            human_bytes(phase.scratch),
            human_bytes(phase.buffer_bytes),
            human_bytes(phase.peak_bytes),
        ]
        for phase in plan.phases
    ]
    rows.append(["peak of the run", "", "", "", human_bytes(plan.peak_bytes)])
    return _with_verdict(head, rows, [*(p.peak_bytes for p in plan.phases), plan.peak_bytes], budget)


def _with_verdict(head: list[str], rows: list[list[str]], peaks: list[int], budget: int | None, texts: int = 1) -> str:
    if budget is not None:
        head = [*head, "fits"]
        rows = [[*row, "yes" if peak <= budget else "no"] for row, peak in zip(rows, peaks, strict=True)]
    return table(head, rows, texts)


def _components(ways: list[MemoryPlan]) -> str:
    """Weights, and activations in each variant of the run."""
    variants = {way.run.variant: way for way in ways}
    first = ways[0]
    rows = []
    for key, weights in first.weights.items():
        activations = dict.fromkeys(way.activations[key] for way in variants.values())
        rows.append([key, human_bytes(weights), " / ".join(map(human_bytes, activations))])
    rows.append(["total", human_bytes(sum(first.weights.values())), ""])
    return table(["component", "weights", "activations"], rows)
