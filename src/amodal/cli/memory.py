"""`amodal inspect --memory`: the GPU memory that a bundle's engines or graphs need, before any is loaded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from amodal.runtime.errors import InputError, MissingDependencyError, OutputError

from .console import BYTES, SIZE, human_bytes, print_json, table
from .options import FILE, MEMORY_MODES, combined, engine_option, stage_option

if TYPE_CHECKING:
    from amodal.runtime.execution.run import Run
    from amodal.runtime.families import Bundle
    from amodal.runtime.memory.choice import Planner
    from amodal.runtime.memory.plan import MemoryPlan

_SUFFIXES = (".png", ".svg")
_MB = 1e6

memory_options = combined(
    click.option("--memory", is_flag=True, help="Show the GPU memory of a run. The options below need it."),
    click.option(
        "--backend", type=click.Choice(["tensorrt_rtx", "tensorrt", "onnxruntime"]), help="Default: tensorrt_rtx."
    ),
    click.option("--device", metavar="NAME", help="With onnxruntime: cuda or cuda:1, where its graphs were measured."),
    click.option("--record", is_flag=True, default=None, help="Measure the graphs on the GPU here first, and keep it."),
    click.option("--target", metavar="GPUS", help="Use the engines for sm86, portable, this. Default: the newest."),
    engine_option,
    stage_option,
    click.option("--size", type=SIZE, metavar="HxW", help="Estimate the memory for frames of another size."),
    click.option("--mode", type=MEMORY_MODES, help="Memory mode to plan for. Default: auto, which shows both."),
    click.option("--vram", type=BYTES, help="Available GPU memory (6GB): show what fits; exit code 2 if nothing does."),
    click.option("--picture", type=FILE, metavar="PNG|SVG", help="Draw the memory."),
)


class _Source(NamedTuple):
    """What a plan is based on, in a line and as JSON."""

    line: str
    document: dict[str, str | None]


def show_memory(bundle: str, as_json: bool, options: dict[str, Any]) -> None:
    """Prints the memory of a run, phase by phase, and the memory mode that is chosen.

    Raises:
        MemoryBudgetError: nothing fits; raised after everything is printed.
        EngineError: the engines are missing, or the graphs were not measured.
        InputError: options that do not go together.
    """
    from amodal.runtime.errors import MemoryBudgetError
    from amodal.runtime.families import Bundle
    from amodal.runtime.memory.choice import MEMORIES

    from .families import run_to_plan

    picture, budget, mode = options["picture"], options["vram"], options["mode"]
    if picture is not None:
        _check_picture(picture)
    opened = Bundle(bundle)
    run = run_to_plan(opened, options)
    planner, source = _planner(opened, run, options)
    memories = MEMORIES if mode in (None, "auto") else (mode,)
    plans = list(planner.plans(run, memories))
    chosen, refusal = None, None
    try:
        chosen = planner.choose(run, budget, memories)
    except MemoryBudgetError as error:
        refusal = error
    longer = [
        (name, list(planner.plans(one, memories))) for name, one in plans[0].run.open_variant().longer(opened.manifest)
    ]
    shown = [_best([plan for plan in plans if plan.memory == memory], budget) for memory in memories]
    if as_json:
        by_name = {name: [plan.as_json() for plan in some] for name, some in longer}
        print_json({**_as_json(opened, source, plans, budget, chosen), "long_clips": by_name})
    else:
        lines = [*_head(bundle, source, shown[0]), *_text(plans, shown, budget, chosen), *_longer(longer, budget)]
        click.echo("\n".join(lines))
    if picture is not None:
        _draw(picture, shown, budget)
        click.echo(f"Wrote {picture}.", err=as_json)
    if refusal is not None:
        raise refusal


def _planner(bundle: Bundle, run: Run, options: dict[str, Any]) -> tuple[Planner, _Source]:
    """Returns a planner for the engines or the measured graphs that the options name; errors as in `show_memory`."""
    from amodal.runtime.memory.choice import planner_for, recorded_planner
    from amodal.runtime.memory.recorded import record_file

    backend, engine_dir = options["backend"] or "tensorrt_rtx", options["engine_dir"]
    if backend == "onnxruntime":
        _check_graphs(options)
        if options["record"]:
            _record(bundle, options["device"])
        planner, record = recorded_planner(bundle, bundle.family, run)
        file = str(record_file(bundle))
        measured = {"record": file, "version": record.version, "measured_on": record.measured_on}
        line = f"measured  {file}\n          onnxruntime {record.version} on {record.measured_on}"
        return planner, _Source(line, {"engines": None, "target": None, **measured})
    for option in ("device", "record"):
        if options[option] is not None:
            raise InputError(
                f"--{option} is for graphs, and {backend} runs engines; leave it out, or add --backend onnxruntime."
            )
    planner, build = planner_for(bundle, bundle.family, run, backend, engine_dir, options["target"])
    folder = str(build.folder)
    return planner, _Source(f"engines  {folder}", {"engines": folder, "version": build.version, "target": build.target})


def _check_graphs(options: dict[str, Any]) -> None:
    if not (options["device"] or "").startswith("cuda"):
        raise InputError("--memory of onnxruntime is that of a GPU; add --device cuda.")
    for option in ("target", "engine_dir"):
        if options[option] is not None:
            raise InputError(f"--{option.replace('_', '-')} is for engines, and onnxruntime runs graphs; leave it out.")


def _record(bundle: Bundle, device: str) -> None:
    """Measures a bundle's graphs on the GPU here."""
    from amodal.runtime import backends
    from amodal.runtime.memory.recorded import write_memory
    from amodal.runtime.memory.recording import record_memory

    from .progress import component_lines

    with component_lines(quiet=False) as progress:
        found = record_memory(bundle, bundle.family, backends.create("onnxruntime", device=device), progress=progress)
    write_memory(bundle, found)


def _best(plans: list[MemoryPlan], budget: int | None) -> MemoryPlan:
    """The fastest plan that fits, or the smallest if none does."""
    return next((plan for plan in plans if plan.fits(budget)), min(plans, key=lambda plan: plan.peak_bytes))


def _as_json(
    bundle: Bundle, source: _Source, plans: list[MemoryPlan], budget: int | None, chosen: MemoryPlan | None
) -> dict[str, Any]:
    return {
        "bundle": str(bundle.path),
        **source.document,
        "budget_bytes": budget,
        "chosen": plans.index(chosen) if chosen is not None else None,
        "plans": [{"fits": plan.fits(budget), **plan.as_json()} for plan in plans],
    }


def _head(bundle: str, source: _Source, plan: MemoryPlan) -> list[str]:
    lines = [f"{bundle}, {' and '.join(plan.run.tasks)}, {plan.run.pictures}".rstrip(", "), source.line]
    if plan.estimated:
        what = "graphs were measured at" if plan.own_arenas else "engines are of"
        lines.append(f"An estimate: the {what} another size; activations are assumed to grow with the area.")
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
        if plan.memory == "resident" and plan.own_arenas:
            yield "Each network has an arena of its own; the U-Net's stays, the others are freed after their calls."
        elif plan.memory == "resident":
            largest = max(plan.activations, key=lambda key: plan.activations[key])
            yield f"All components share one scratch buffer, as large as {largest} needs."
    yield f"\n{_components(plans)}"
    yield "The CUDA context adds a few hundred MB; only a GPU shows how many."
    if budget is not None and chosen is not None:
        yield f"Chosen for {human_bytes(budget)}: {_name(chosen)}, which takes {human_bytes(chosen.peak_bytes)}."


def _longer(longer: list[tuple[str, list[MemoryPlan]]], budget: int | None) -> Iterator[str]:
    """Peaks of long clips, whose blocks take more than a single clip, by the objects that are denoised together."""
    if not longer:
        return
    rows = [[name, _name(plan), plan.peak.name, human_bytes(plan.peak_bytes)] for name, some in longer for plan in some]
    peaks = [plan.peak_bytes for _, some in longer for plan in some]
    yield "\nLong clips, a block at a time:"
    yield _with_verdict(["objects", "memory", "in the phase", "peak"], rows, peaks, budget, 3)


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


def _check_picture(file: Path) -> None:
    """Checks, before anything is computed, that `_draw` can write the file."""
    if file.suffix.lower() not in _SUFFIXES:
        raise InputError(f"--picture {file}: expected a name that ends in {' or '.join(_SUFFIXES)}.")
    if not file.parent.is_dir():
        raise InputError(f"--picture {file}: {file.parent} is not a folder; create it first.")
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f'--picture needs matplotlib, which cannot be imported ({error}); run `pip install "amodal[export]"`.'
        ) from error


def _draw(file: Path, plans: list[MemoryPlan], budget: int | None) -> None:
    """Draws one panel per plan: weights by component, scratch and buffers, and a line for the budget."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 5.5 * len(plans), 5), layout="constrained")
    keys = list(plans[0].weights)
    colours = {key: colormaps["tab20"](index % 14) for index, key in enumerate(keys)}
    legend: dict[str, Any] = {}
    for place, plan in enumerate(plans):
        title = ", ".join(filter(None, [plan.memory, plan.run.variant, "an estimate" if plan.estimated else ""]))
        axes = figure.add_subplot(1, len(plans), place + 1, title=title, ylabel="MB")
        for index, phase in enumerate(plan.phases):
            layers: list[tuple[str, Any, int]] = [(key, colours[key], phase.resident.get(key, 0)) for key in keys]
            layers += [("scratch", "#bbbbbb", phase.scratch), ("buffers", "#333333", phase.buffer_bytes)]
            bottom = 0.0
            for name, colour, size in layers:
                if size:
                    legend[name] = axes.bar(index, size / _MB, 0.8, bottom=bottom, color=colour)
                    bottom += size / _MB
        if budget is not None:
            legend["budget"] = axes.axhline(budget / _MB, color="#cc0000", linestyle="--")
        names = [f"{phase.task} {phase.name}" for phase in plan.phases]
        axes.set_xticks(range(len(names)), names, rotation=60, ha="right")
    top = max([plan.peak_bytes for plan in plans] + ([budget] if budget else []))
    for axes in figure.axes:
        axes.set_ylim(0, 1.05 * top / _MB)
    figure.legend(legend.values(), legend.keys(), loc="outside right upper", fontsize="small")
    part = file.with_name(f".{file.name}.partial-{os.getpid()}")
    try:
        figure.savefig(part, format=file.suffix[1:].lower(), dpi=100)
        os.replace(part, file)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise OutputError(f"--picture {file} cannot be written ({error.strerror or error}).") from error
