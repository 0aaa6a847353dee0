"""What `amodal export` does, behind its options."""

from __future__ import annotations

from importlib.util import find_spec
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from amodal.runtime.atomic import check_output
from amodal.runtime.errors import InputError, MissingDependencyError
from amodal.runtime.manifest import MANIFEST_NAME

if TYPE_CHECKING:
    from amodal.export.bundle import Exported

_NEEDED = ("torch", "diffusers", "transformers", "safetensors", "onnx", "onnx_ir", "onnxruntime")


def export_job(options: dict[str, Any], console: Console) -> list[Exported]:
    """Reads what is to be exported and exports it; returns one row per component."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f'export needs {", ".join(missing)}, not installed here; `pip install "amodal[export]"` brings it.'
        )
    random = options["random_kind"]
    given = [f"--{name}" for name in ("segment", "complete") if options[name]]
    if random and given:
        raise InputError(f"--random makes its own weights; leave out {' and '.join(given)}, or leave out --random.")
    if not (random or given):
        raise InputError("nothing to export: give --segment CHECKPOINT, --complete CHECKPOINT, both, or --random tiny.")
    if options["random_depth"] and not random:
        raise InputError("--random-depth goes with --random; give a depth checkpoint with --depth.")
    inputs = [options[name] for name in ("segment", "complete", "depth") if options[name]]
    check_output(options["out"], options["overwrite"], MANIFEST_NAME, inputs)

    hidden = options["quiet"] or options["as_json"] or not console.is_terminal
    with console.status("importing torch") if not hidden else _Nothing():
        from amodal.export.bundle import export_bundle
        from amodal.export.checkpoint import random_checkpoint, read_checkpoint
        from amodal.export.depth import load_depth, random_depth
        from amodal.export.plan import ExportSettings

        settings = ExportSettings(
            size=options["size"],
            frames=options["frames"],
            precision=options["precision"],
            context=options["context"],
            decode_chunk=options["decode_chunk"],
            variant=options["variant"],
            check=options["check"],
        )
    stages: dict[Any, Any] = {}
    depth = None
    with console.status("reading checkpoints") if not hidden else _Nothing():
        for stage in ("segment", "complete"):
            if random:
                stages[stage] = random_checkpoint(random, stage, options["seed"])
            elif options[stage]:
                stages[stage] = read_checkpoint(
                    options[stage], variant=options["weights"], revision=options["revision"]
                )
        if options["depth"]:
            depth = load_depth(options["depth"])
        elif random:
            size = options["random_depth"] or {"diffusion-vas": "large", "tiny": "tiny"}[random]
            depth = None if size == "none" else random_depth(size, options["seed"])
    with _Bars(console, hidden) as progress:
        return export_bundle(
            options["out"],
            stages,
            depth,
            settings,
            overwrite=options["overwrite"],
            inputs=inputs,
            progress=progress,
        )


class _Nothing:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        pass


class _Bars:
    """Shows an export's progress as one bar per component."""

    def __init__(self, console: Console, hidden: bool) -> None:
        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(),
            DownloadColumn(),
            TextColumn("{task.fields[phase]:<10}"),
            TimeElapsedColumn(),
        )
        self._bars = Bars(*columns, console=console, disable=hidden)
        self._tasks: dict[str, Any] = {}
        self._current: Any = None

    def __enter__(self) -> _Bars:
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self._finish()
        self._bars.stop()

    def start(self, component: str, total_bytes: int) -> None:
        """See `amodal.export.bundle.Progress`."""
        self._finish()
        self._current = self._tasks[component] = self._bars.add_task(component, total=total_bytes, phase="write")

    def advance(self, count: int) -> None:
        """See `amodal.export.bundle.Progress`."""
        self._bars.advance(self._current, count)

    def phase(self, component: str, what: str) -> None:
        """See `amodal.export.bundle.Progress`."""
        if component in self._tasks:
            self._bars.update(self._tasks[component], phase=what)

    def _finish(self) -> None:
        if self._current is not None:
            self._bars.update(self._current, phase="done")
            self._bars.stop_task(self._current)
