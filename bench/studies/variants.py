"""What each way of writing a graph costs an engine: `python -m amodal.bench.studies.variants`, on any machine.

Every variant of every component asked for is compiled, one after the other, and what the compiler says of it is laid
side by side: device memory, layers, file, time. Speed needs the GPU.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.console import Console

from amodal.engines.build import BuildSettings, target_of
from amodal.engines.compilation import compile_graph, describe
from amodal.runtime.builds.profiles import profiles_of
from amodal.runtime.errors import AmodalError, EngineBuildError, InputError

if TYPE_CHECKING:
    from amodal.export.checkpoints.checkpoint import StageCheckpoint
    from amodal.export.families.diffusion_vas.plan import ExportSettings
    from amodal.export.graph.writer import Graph

Size = tuple[int, int]


@dataclass(frozen=True)
class Row:
    """One component in one variant.

    Attributes:
        weights_bytes, activation_bytes: device memory; the latter by profile.
        layers: as read.
        error: why there is no engine, if there is none.
    """

    component: str
    variant: str
    weights_bytes: int = 0
    activation_bytes: dict[str, int] | None = None
    layers: int = 0
    engine_bytes: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    error: str | None = None


def compare_variants(
    checkpoint: StageCheckpoint,
    kinds: Sequence[str],
    variants: Sequence[str],
    *,
    size: Size,
    frames: int,
    target: str,
) -> Iterator[Row]:
    """Compiles components of a first-stage checkpoint for TensorRT for RTX, in half precision.

    Args:
        kinds: components by their names in the vocabulary.
        variants: names in `amodal.export.graph.variants.VARIANTS`.

    Raises:
        InputError: an unknown component or target.
        BackendUnavailableError: the compiler is not installed.
    """
    from amodal.export.families.diffusion_vas.plan import ExportSettings

    settings = BuildSettings(target=target)
    aim = target_of(settings, describe(settings.backend))
    with TemporaryDirectory() as folder:
        shared: dict[str, dict[str, Any]] = {}
        for variant in variants:
            export = ExportSettings(size=size, frames=frames, variant=variant)
            for kind in kinds:
                graph = _graph(checkpoint, kind, export)
                file = Path(folder) / f"{variant}-{kind}.onnx"
                places = graph.save(file, shared=shared.get(kind))
                shared[kind] = {**shared.get(kind, {}), **places}
                engine = Path(folder) / "engine"
                profiles = profiles_of(kind, graph.inputs, frames, export.decode_chunk)
                try:
                    made = compile_graph(file, settings.backend, aim, profiles, {}, engine)
                except EngineBuildError as error:
                    yield Row(kind, variant, error=str(error))
                    continue
                yield Row(
                    kind,
                    variant,
                    made.weights_bytes,
                    made.activation_bytes,
                    made.layers[0],
                    made.bytes,
                    made.seconds,
                    made.peak_bytes,
                )


@dataclass(frozen=True)
class CpuRow:
    """One component in one variant, in float32 on ONNX Runtime's CPU provider: seconds per call, raw."""

    component: str
    variant: str
    seconds: list[float]


def time_variants(
    checkpoint: StageCheckpoint,
    kinds: Sequence[str],
    variants: Sequence[str],
    *,
    size: Size,
    frames: int,
    repeats: int,
) -> list[CpuRow]:
    """Runs components of a first-stage checkpoint on random input, variant after variant in turns.

    The first turn warms up and does not count. `unet` gets both rows, `vae_decoder` a whole chunk.

    Raises:
        InputError: an unknown component or variant.
    """
    import onnxruntime as ort

    from amodal.export.families.diffusion_vas.plan import ExportSettings

    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # one's threads would slow the next down
    rows: list[CpuRow] = []
    with TemporaryDirectory() as folder:
        runs: list[tuple[Any, dict[str, Any]]] = []
        for kind in kinds:
            for variant in variants:
                export = ExportSettings(size=size, frames=frames, variant=variant, precision="fp32")
                graph = _graph(checkpoint, kind, export)
                file = Path(folder) / f"{variant}-{kind}.onnx"
                graph.save(file)
                (profile,) = profiles_of(kind, graph.inputs, frames, export.decode_chunk)[-1:]
                shapes: dict[str, Any] = {entry.name: entry.shape for entry in graph.inputs}
                shapes |= {name: largest for name, (_, largest, _) in profile.shapes.items()}
                rng = np.random.default_rng(0)
                inputs = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
                session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
                runs.append((session, inputs))
                rows.append(CpuRow(kind, variant, []))
        for turn in range(repeats + 1):
            for row, (session, inputs) in zip(rows, runs, strict=True):
                begin = time.perf_counter()
                session.run(None, inputs)
                if turn:
                    row.seconds.append(time.perf_counter() - begin)
    return rows


def _graph(checkpoint: StageCheckpoint, kind: str, export: ExportSettings) -> Graph:
    from amodal.export.families.diffusion_vas.plan import stage_components

    components = {c.kind: c for c in stage_components("segment", checkpoint, export)}
    if kind not in components:
        raise InputError(f"component {kind!r} is unknown; expected one or more of {', '.join(components)}.")
    return components[kind].write(export.size)


_HEAD = "| component | variant | weights GB | activations GB | layers read | engine GB | seconds | host peak GB |"


def _line(row: Row) -> str:
    if row.activation_bytes is None:
        return f"| {row.component} | {row.variant} | {row.error} | | | | | |"
    activations = " / ".join(f"{size / 1e9:.3f}" for size in row.activation_bytes.values())
    cells = (
        f"{row.weights_bytes / 1e9:.3f}",
        activations,
        str(row.layers),
        f"{row.engine_bytes / 1e9:.3f}",
        f"{row.seconds:.0f}",
        f"{row.peak_bytes / 1e9:.1f}",
    )
    return f"| {row.component} | {row.variant} | {' | '.join(cells)} |"


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--segment", metavar="DIR|HF_ID", help="Checkpoint of the first stage. Default: random weights.")
@click.option("--random", "kind", type=click.Choice(["diffusion-vas", "tiny"]), default="diffusion-vas")
@click.option("--components", default="unet,vae_decoder", show_default=True, metavar="NAMES")
@click.option("--variants", metavar="NAMES", help="Default: all that are for engines.")
@click.option("--height", type=int, default=256, show_default=True)
@click.option("--width", type=int, default=512, show_default=True)
@click.option("--frames", type=int, default=25, show_default=True)
@click.option("--target", default="sm86", show_default=True)
@click.option("--cpu", "repeats", type=click.IntRange(min=1), metavar="N", help="Time N calls on this CPU instead.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line instead of a Markdown table.")
def main(**options: Any) -> None:
    """Device memory and build time of every variant, as TensorRT for RTX tells them, or its time on this CPU."""
    try:
        from amodal.export.checkpoints.checkpoint import random_checkpoint, read_checkpoint
        from amodal.export.graph.variants import VARIANTS

        checkpoint = (
            read_checkpoint(options["segment"])
            if options["segment"]
            else random_checkpoint(options["kind"], "segment", 0)
        )
        names = (
            options["variants"].split(",") if options["variants"] else [n for n in VARIANTS if n.startswith("engine")]
        )
        if options["repeats"]:
            _print_times(checkpoint, [*names, "cpu"] if not options["variants"] else names, options)
            return
        rows = compare_variants(
            checkpoint,
            options["components"].split(","),
            names,
            size=(options["height"], options["width"]),
            frames=options["frames"],
            target=options["target"],
        )
        if not options["as_json"]:
            click.echo(f"{_HEAD}\n|---|---|---:|---:|---:|---:|---:|---:|")
        with Console(stderr=True).status("compiling"):
            for row in rows:
                click.echo(json.dumps(asdict(row)) if options["as_json"] else _line(row))
    except AmodalError as error:
        raise click.ClickException(str(error)) from error


def _print_times(checkpoint: StageCheckpoint, names: list[str], options: dict[str, Any]) -> None:
    rows = time_variants(
        checkpoint,
        options["components"].split(","),
        names,
        size=(options["height"], options["width"]),
        frames=options["frames"],
        repeats=options["repeats"],
    )
    if options["as_json"]:
        for row in rows:
            click.echo(json.dumps(asdict(row)))
        return
    click.echo("| component | variant | median s | of the first |\n|---|---|---:|---:|")
    first = {row.component: row for row in reversed(rows)}
    for row in rows:
        median, base = statistics.median(row.seconds), statistics.median(first[row.component].seconds)
        click.echo(f"| {row.component} | {row.variant} | {median:.4f} | {median / base:.2f} |")


if __name__ == "__main__":
    main()
