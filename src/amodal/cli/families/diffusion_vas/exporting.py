"""What `amodal export` does."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from amodal.cli.console import settings_from
from amodal.cli.progress import ComponentLines, Watcher
from amodal.runtime.bundle.manifest import MANIFEST_NAME
from amodal.runtime.errors import InputError, MissingDependencyError
from amodal.runtime.files.atomic import check_output

if TYPE_CHECKING:
    from amodal.export.bundle import Exported

_NEEDED = ("torch", "diffusers", "transformers", "safetensors", "onnx", "onnx_ir", "onnxruntime")


def export_job(options: dict[str, Any]) -> list[Exported]:
    """Reads the checkpoints and exports them; returns one row per component."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise MissingDependencyError(
            f'export needs {", ".join(missing)}, not installed here; run `pip install "amodal[export]"`.'
        )
    random = options["random_kind"]
    given = [f"--{name}" for name in ("segment", "complete") if options[name]]
    if random and given:
        raise InputError(f"--random makes its own weights; omit {' and '.join(given)}, or omit --random.")
    if not (random or given):
        raise InputError("nothing to export: give --segment CHECKPOINT, --complete CHECKPOINT, both, or --random tiny.")
    if options["random_depth"] and (options["depth"] or not random):
        raise InputError("--random-depth needs --random, and cannot be combined with --depth.")
    inputs = [options[name] for name in ("segment", "complete", "depth") if options[name]]
    check_output(options["out"], options["overwrite"], MANIFEST_NAME, inputs)

    watcher = Watcher(options["quiet"])
    if watcher.hidden:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with watcher.doing("importing torch"):
        from amodal.export.bundle import export_bundle
        from amodal.export.checkpoints.checkpoint import random_checkpoint, read_checkpoint
        from amodal.export.depth_anything.network import load_depth, random_depth
        from amodal.export.families.diffusion_vas.plan import ExportSettings, plan_export

        settings = settings_from(ExportSettings, options)
    stages: dict[Any, Any] = {}
    depth = None
    with watcher.doing("reading checkpoints"):
        for stage in ("segment", "complete"):
            if random:
                stages[stage] = random_checkpoint(random, stage, options["seed"])
            elif options[stage]:
                weights, revision = options["weights"], options["revision"]
                stages[stage] = read_checkpoint(options[stage], variant=weights, revision=revision)
        if options["depth"]:
            depth = load_depth(options["depth"])
        elif random:
            size = options["random_depth"] or {"diffusion-vas": "large", "tiny": "tiny"}[random]
            depth = None if size == "none" else random_depth(size, options["seed"])
    with ComponentLines(watcher).show() as lines:
        plan = plan_export(stages, depth, settings)
        return export_bundle(options["out"], plan, overwrite=options["overwrite"], inputs=inputs, progress=lines)
