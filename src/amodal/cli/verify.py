"""`amodal verify`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .console import NamesType, print_json, table

if TYPE_CHECKING:
    from amodal.engines.verification import Verification

_MOST = 10


@click.command("verify")
@click.argument("bundle", type=click.Path())
@click.option(
    "--backend",
    metavar="NAME",
    default="onnxruntime",
    show_default=True,
    help="onnxruntime to run the graphs; tensorrt_rtx or tensorrt to look at their engines.",
)
@click.option(
    "--target",
    metavar="GPUS",
    default="portable",
    show_default=True,
    help="Of the engines, as given to `amodal build`.",
)
@click.option("--engine-dir", type=click.Path(path_type=Path), help="Where engines lie, as given to `amodal build`.")
@click.option("--build", is_flag=True, help="Build the engines that are missing or stale first.")
@click.option(
    "--components", type=NamesType(), help="Only these, by key or kind: unet,vae_decoder; and not the whole pipeline."
)
@click.option(
    "--steps", type=click.IntRange(min=1), default=25, show_default=True, help="Sampler steps; a few are quicker."
)
@click.option("--seed", type=click.IntRange(min=0), default=23, show_default=True, help="Of the scene and the noise.")
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads; default: all.")
@click.option("--ranges", is_flag=True, help=f"Print the {_MOST} tensors with the greatest values of each fp16 graph.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON to standard output.")
@click.option("-q", "--quiet", is_flag=True, help="Print only what is wrong, to standard error.")
def command(**options: Any) -> int:
    """Whether a bundle computes what it should; exit code 1 if it does not.

    Every graph is compared with its float32 twin (the same stored weights, all arithmetic in float32) on inputs
    recorded from a run over a drawn scene, and then the whole pipeline with that of the twins. In fp16 graphs the
    greatest value of every half-precision tensor is measured: beyond 65504 a GPU overflows. On a CPU, ONNX Runtime
    computes half precision in float32 and rounds or overflows at norms only: the differences are less than a GPU's
    will be.

    With --backend tensorrt_rtx or tensorrt, every engine must be there, undamaged, and built from this very graph.
    Where the GPU is that they were built for, they are then run and compared in the same way.

    \b
    Examples:
      amodal verify bundle
      amodal verify bundle --steps 4             (quicker)
      amodal verify bundle --components unet --ranges
      amodal verify bundle --backend tensorrt_rtx --target sm86 --build
    """
    from amodal.engines.verification import VerifySettings
    from amodal.engines.verify import verify_bundle
    from amodal.runtime.families import Bundle

    from .progress import Watcher

    settings = VerifySettings(
        backend=options["backend"],
        components=options["components"],
        steps=options["steps"],
        seed=options["seed"],
        threads=options["threads"],
        target=options["target"],
        engine_dir=options["engine_dir"],
        build=options["build"],
    )
    with Watcher(options["quiet"]).doing() as progress:
        found = verify_bundle(Bundle(options["bundle"]), settings, progress)
    if options["as_json"]:
        print_json(found.as_json(_MOST))
    elif options["quiet"]:
        for name, problem in found.problems:
            click.echo(f"FAIL {name}: {problem}", err=True)
    else:
        click.echo("\n".join(_text(found, options["ranges"])))
    return 0 if found.ok else 1


def _text(found: Verification, with_ranges: bool) -> list[str]:
    parts = [rows for rows in (_components(found), _stages(found), _engines(found)) if rows]
    if with_ranges:
        parts += _ranges(found)
    said = [f"FAIL {name}: {problem}" for name, problem in found.problems]
    said += [f"Warning: {name}: {problem}" for name, problem in found.warnings]
    said += [f"Note: {note}" for note in found.notes]
    verdict = (
        "FAILED"
        if not found.ok
        else "its engines are there, whole and of these graphs"
        if found.engines
        else "verified"
    )
    return ["\n\n".join(parts), *said, f"{found.bundle}: {verdict}."]


def _components(found: Verification) -> str:
    rows = [
        [
            row.component,
            _result(row.problems),
            row.precision,
            str(row.calls),
            _number(row.difference),
            f"{row.limit:.0e}",
            "-" if row.greatest is None else _number(row.greatest),
        ]
        for row in found.components
    ]
    return (
        table(("component", "result", "arithmetic", "calls", "difference", "limit", "greatest"), rows, 3)
        if rows
        else ""
    )


def _stages(found: Verification) -> str:
    rows = [
        [
            row.stage,
            _result(row.problems),
            _number(row.latents),
            f"{row.limit:.0e}",
            "-" if row.mask_iou is None else f"{row.mask_iou:.4f}",
            "-" if row.frames_max is None else f"{row.frames_max} ({row.frames_mean:.3f})",
        ]
        for row in found.stages
    ]
    return table(("stage", "result", "latents", "limit", "mask IoU", "frames, most (mean)"), rows, 2) if rows else ""


def _engines(found: Verification) -> str:
    rows = [
        [row.component, _result(row.problems), "built" if row.built else "found" if row.file else "-", row.file or "-"]
        for row in found.engines
    ]
    return table(("component", "result", "engine", "file"), rows, 4) if rows else ""


def _ranges(found: Verification) -> list[str]:
    tables = []
    for row in found.components:
        if row.ranges:
            lines = [[r.node, r.tensor, _number(r.greatest)] for r in row.ranges[:_MOST]]
            tables.append(table((row.component, "tensor", "greatest"), lines, 2))
    return tables


def _result(problems: tuple[str, ...]) -> str:
    return "FAIL" if problems else "ok"


def _number(value: float) -> str:
    return f"{value:.1e}" if math.isfinite(value) else "not finite"
