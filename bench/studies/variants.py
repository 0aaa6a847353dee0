"""What each way of writing a graph costs an engine: `python -m amodal.bench.studies.variants`, on any machine.

Compiles every variant of the given components one after the other, and tabulates what the compiler reports: device
memory, layers, file size, time. Speed needs the GPU.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.console import Console

from amodal.engines.build import BuildSettings, target_of
from amodal.engines.compilation import compile_graph, describe
from amodal.runtime.backends.onnxruntime.library import import_onnxruntime
from amodal.runtime.builds.store import Profile
from amodal.runtime.errors import EngineBuildError, InputError
from amodal.runtime.families.diffusion_vas.calls import profiles_of

from . import reported_errors

if TYPE_CHECKING:
    from amodal.export.checkpoints.checkpoint import StageCheckpoint
    from amodal.export.families.diffusion_vas.plan import ExportSettings
    from amodal.export.graph.writer import Graph


Written = tuple[str, str, "Graph", Path, tuple[Profile, ...]]
"""A component in a variant, on disk with the shapes it must accept."""


@dataclass(frozen=True)
class Built:
    """An engine of one component in one variant; `activation_bytes` by profile; `error`: why there is none."""

    component: str
    variant: str
    weights_bytes: int = 0
    activation_bytes: dict[str, int] | None = None
    layers: int = 0
    engine_bytes: int = 0
    seconds: float = 0.0
    peak_bytes: int = 0
    error: str | None = None

    def __str__(self) -> str:
        if self.activation_bytes is None:
            return f"| {self.component} | {self.variant} | {self.error} | | | | | |"
        activations = " / ".join(f"{size / 1e9:.3f}" for size in self.activation_bytes.values())
        cells = f"{self.weights_bytes / 1e9:.3f} | {activations} | {self.layers} | {self.engine_bytes / 1e9:.3f}"
        return f"| {self.component} | {self.variant} | {cells} | {self.seconds:.0f} | {self.peak_bytes / 1e9:.1f} |"


@dataclass(frozen=True)
class Timed:
    """Seconds per call of one component in one variant, in float32 on ONNX Runtime's CPU provider."""

    component: str
    variant: str
    seconds: list[float]


def write_graphs(
    checkpoint: StageCheckpoint,
    components: Sequence[str],
    variants: Sequence[str],
    settings: ExportSettings,
    folder: Path,
) -> Iterator[Written]:
    """Writes each component of a first-stage checkpoint in each variant.

    Raises:
        InputError: an unknown component or variant.
    """
    from amodal.export.families.diffusion_vas.plan import stage_components

    for kind in components:
        places: dict[str, Any] = {}
        for variant in variants:
            plans = {c.kind: c for c in stage_components("segment", checkpoint, replace(settings, variant=variant))}
            if kind not in plans:
                raise InputError(f"component {kind!r} is unknown; expected one or more of {', '.join(plans)}.")
            graph, file = plans[kind].write(settings.size), folder / f"{variant}-{kind}.onnx"
            places |= graph.save(file, shared=places)
            profiles = profiles_of(kind, graph.inputs, settings.frames, settings.decode_chunk)
            yield kind, variant, graph, file, profiles


def build_engines(graphs: Iterable[Written], target: str) -> Iterator[Built]:
    """Compiles graphs for TensorRT for RTX, in half precision.

    Raises:
        InputError: an unknown target.
        BackendUnavailableError: the compiler is not installed.
    """
    settings = BuildSettings(target=target)
    aim = target_of(settings, describe(settings.backend))
    with Console(stderr=True).status("compiling"):
        for kind, variant, _, file, profiles in graphs:
            try:
                made = compile_graph(file, settings.backend, aim, profiles, file.with_name("engine"))
            except EngineBuildError as error:
                yield Built(kind, variant, error=str(error))
                continue
            memory, layers = (made.weights_bytes, made.activation_bytes), made.layers[0]
            yield Built(kind, variant, *memory, layers, made.bytes, made.seconds, made.peak_bytes)


def time_graphs(graphs: Iterable[Written], repeats: int) -> list[Timed]:
    """Runs graphs on random input, in turns, of which the first is a warm-up.

    `unet` gets both CFG rows, `vae_decoder` a whole chunk.
    """
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # spinning threads slow the next session
    rows: list[Timed] = []
    runs: list[tuple[Any, dict[str, Any]]] = []
    for kind, variant, graph, file, profiles in graphs:
        shapes: dict[str, Any] = {entry.name: entry.shape for entry in graph.inputs}
        shapes |= {name: largest for name, (_, largest, _) in profiles[-1].shapes.items()}
        rng = np.random.default_rng(0)
        inputs = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
        runs.append((ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]), inputs))
        rows.append(Timed(kind, variant, []))
    for turn in range(repeats + 1):
        for row, (session, inputs) in zip(rows, runs, strict=True):
            begin = time.perf_counter()
            session.run(None, inputs)
            if turn:
                row.seconds.append(time.perf_counter() - begin)
    return rows


_BUILT = """| component | variant | weights GB | activations GB | layers read | engine GB | seconds | host peak GB |
|---|---|---:|---:|---:|---:|---:|---:|"""
_TIMED = "| component | variant | median s | of the first |\n|---|---|---:|---:|"


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
@reported_errors()
def main(target: str, repeats: int | None, as_json: bool, **options: Any) -> None:
    """Device memory and build time of every variant with TensorRT for RTX, or its time on this CPU."""
    from amodal.export.checkpoints.checkpoint import random_checkpoint, read_checkpoint
    from amodal.export.families.diffusion_vas.plan import ExportSettings
    from amodal.export.graph.variants import VARIANTS

    segment, components = options["segment"], options["components"].split(",")
    checkpoint = read_checkpoint(segment) if segment else random_checkpoint(options["kind"], "segment", 0)
    default = [name for name in VARIANTS if name.startswith("engine")] + ["cpu"] * bool(repeats)
    variants = options["variants"].split(",") if options["variants"] else default
    size, precision = (options["height"], options["width"]), "fp32" if repeats else "fp16"
    settings = ExportSettings(size=size, frames=options["frames"], precision=precision)  # type: ignore[arg-type]
    with TemporaryDirectory() as folder:
        graphs = write_graphs(checkpoint, components, variants, settings, Path(folder))
        rows: Iterable[Built | Timed] = time_graphs(graphs, repeats) if repeats else build_engines(graphs, target)
        if not as_json:
            click.echo(_TIMED if repeats else _BUILT)
        first: dict[str, float] = {}
        for row in rows:
            if as_json:
                click.echo(json.dumps(asdict(row)))
            elif isinstance(row, Built):
                click.echo(row)
            else:
                median = statistics.median(row.seconds)
                share = median / first.setdefault(row.component, median)
                click.echo(f"| {row.component} | {row.variant} | {median:.4f} | {share:.2f} |")


if __name__ == "__main__":
    main()
