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
    from amodal.engines.verification import ComponentCheck, EngineCheck, StageCheck, Verification

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

    from .progress import activity

    with activity(options["quiet"]) as progress:
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
    notes = [in_options(f"Note: {note}") for note in found.notes]
    passed = "all engines are present, undamaged and built from these graphs" if found.engines else "verified"
    verdict = f"{found.bundle}: {passed if found.ok else 'FAILED'}."
    return ["\n\n".join(tables), *_problems(found), *warnings, *notes, verdict]


def _tables(found: Verification) -> list[str]:
    components = [
        [
            c.component,
            _result(c),
            c.precision,
            str(c.calls),
            _number(c.difference),
            f"{c.limit:.0e}",
            _number(c.greatest),
        ]
        for c in found.components
    ]
    stages = [
        [
            *(s.stage, _result(s), _number(s.latents), f"{s.limit:.0e}"),
            "-" if s.mask_iou is None else f"{s.mask_iou:.4f}",
            "-" if s.frames_max is None else f"{s.frames_max} ({s.frames_mean:.3f})",
        ]
        for s in found.stages
    ]
    engines = [
        [e.component, _result(e), "built" if e.built else "found" if e.file else "-", e.file or "-"]
        for e in found.engines
    ]
    tables = (
        (("component", "result", "arithmetic", "calls", "difference", "limit", "greatest"), components, 3),
        (("stage", "result", "latents", "limit", "mask IoU", "frames, most (mean)"), stages, 2),
        (("component", "result", "engine", "file"), engines, 4),
    )
    return [table(head, rows, texts) for head, rows, texts in tables if rows]


def _result(check: ComponentCheck | StageCheck | EngineCheck) -> str:
    return "FAIL" if check.problems else "ok"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1e}" if math.isfinite(value) else "not finite"
