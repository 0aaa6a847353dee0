"""`amodal verify`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import click

from .console import in_options, print_json, settings_from, table
from .options import (
    bundle_argument,
    components_option,
    engine_option,
    json_option,
    quiet_option,
    steps_option,
    target_option,
    threads_option,
)

if TYPE_CHECKING:
    from amodal.engines.verification import Verification

_MOST_RANGES = 10


@click.command("verify")
@bundle_argument
@click.option(
    "--backend",
    metavar="NAME",
    default="onnxruntime",
    help="onnxruntime to check the graphs; tensorrt_rtx or tensorrt to check their engines.",
)
@target_option
@engine_option
@click.option("--build", is_flag=True, help="First build the engines that are missing or out of date.")
@components_option
@steps_option()
@click.option("--seed", type=click.IntRange(min=0), default=23, help="Seed of the scene and the noise.")
@threads_option()
@click.option(
    "--ranges", is_flag=True, help=f"Print the {_MOST_RANGES} tensors with the largest values per fp16 graph."
)
@json_option("the result as JSON")
@quiet_option("Print only problems, to standard error.")
def command(**options: Any) -> int:
    """Check that a bundle computes what it should; exit code 1 if it does not.

    Each graph is compared with its float32 twin (the same stored weights, all arithmetic in float32) on inputs recorded
    from a run over a drawn scene. Then the whole pipeline is compared with that of the twins, unless --components
    selects some. In fp16 graphs, the largest value of each half-precision tensor is measured: a GPU overflows beyond
    65504. On a CPU, ONNX Runtime computes half precision in float32 and rounds or overflows at norms only, so the
    differences are smaller than those on a GPU.

    With --backend tensorrt_rtx or tensorrt, each engine must be present, undamaged, and built from this very graph. On
    a machine with the GPU that they were built for, the engines are also run and compared in the same way.

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

    with Watcher(options["quiet"]).doing() as progress:
        found = verify_bundle(Bundle(options["bundle"]), settings_from(VerifySettings, options), progress)
    if options["as_json"]:
        print_json(found.as_json(_MOST_RANGES))
    elif options["quiet"]:
        click.echo("".join(f"{line}\n" for line in _problems(found)), err=True, nl=False)
    else:
        click.echo("\n".join(_text(found, options["ranges"])))
    return 0 if found.ok else 1


def _problems(found: Verification) -> list[str]:
    return [in_options(f"FAIL {name}: {problem}") for name, problem in found.problems]


def _text(found: Verification, with_ranges: bool) -> list[str]:
    tables = _tables(found)
    if with_ranges:
        tables += [
            table(
                (row.component, "tensor", "greatest"),
                [[r.node, r.tensor, _number(r.greatest)] for r in row.ranges[:_MOST_RANGES]],
                2,
            )
            for row in found.components
            if row.ranges
        ]
    warnings = [in_options(f"Warning: {name}: {warning}") for name, warning in found.warnings]
    notes = [f"Note: {note}" for note in found.notes]
    passed = "all engines are present, undamaged and built from these graphs" if found.engines else "verified"
    verdict = f"{found.bundle}: {passed if found.ok else 'FAILED'}."
    return ["\n\n".join(tables), *_problems(found), *warnings, *notes, verdict]


def _tables(found: Verification) -> list[str]:
    components = [
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
    stages = [
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
    engines = [
        [row.component, _result(row.problems), "built" if row.built else "found" if row.file else "-", row.file or "-"]
        for row in found.engines
    ]
    tables = (
        (("component", "result", "arithmetic", "calls", "difference", "limit", "greatest"), components, 3),
        (("stage", "result", "latents", "limit", "mask IoU", "frames, most (mean)"), stages, 2),
        (("component", "result", "engine", "file"), engines, 4),
    )
    return [table(head, rows, texts) for head, rows, texts in tables if rows]


def _result(problems: tuple[str, ...]) -> str:
    return "FAIL" if problems else "ok"


def _number(value: float) -> str:
    return f"{value:.1e}" if math.isfinite(value) else "not finite"
