"""Draws the memory of a run: stacked bars, phase by phase."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from amodal.runtime.errors import InputError, MissingDependencyError, OutputError
from amodal.runtime.memory.plan import MemoryPlan

_SUFFIXES = (".png", ".svg")
_MB = 1e6


def check_picture(file: Path) -> None:
    """Checks, before anything is computed, that `draw` can write the file.

    Raises:
        InputError: it is neither .png nor .svg, or its folder does not exist.
        MissingDependencyError: matplotlib is not installed.
    """
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


def draw(file: Path, plans: Sequence[MemoryPlan], budget: int | None) -> None:
    """Draws one panel per plan: weights by component, scratch and buffers, and a line for the budget.

    Raises:
        OutputError: the file cannot be written.
    """
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
