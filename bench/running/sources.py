"""The checkpoints of a bundle, and its networks exported again at another size."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from amodal.runtime.errors import ExportError, InputError, MissingDependencyError
from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.config import StageName

if TYPE_CHECKING:
    from amodal.export.checkpoints.checkpoint import StageCheckpoint

Checkpoints: TypeAlias = Mapping[StageName, str | Path | None]
"""Path of each stage's checkpoint; None for the one that the manifest names."""

_RANDOM = re.compile(r"random (\S+) \(seed (\d+)\)")


def checkpoints_of(
    bundle: Bundle, given: Checkpoints | None = None, stages: Collection[StageName] | None = None
) -> dict[StageName, StageCheckpoint]:
    """Opens the checkpoint of each stage: the given one, or the one that the manifest names.

    Args:
        stages: None for all of the bundle.

    Raises:
        MissingDependencyError: torch or diffusers is not installed.
        InputError: a checkpoint is not available; the message names the option for it.
        CheckpointError: a checkpoint cannot be read.
    """
    if find_spec("torch") is None or find_spec("diffusers") is None:
        raise MissingDependencyError('this needs torch and diffusers; `pip install "amodal[export,bench]"`.')
    from amodal.export.checkpoints.checkpoint import random_checkpoint, read_checkpoint

    found: dict[StageName, StageCheckpoint] = {}
    for stage, entry in cast(Any, bundle.manifest.tasks).items():
        if stages is not None and stage not in stages:
            continue
        path, source = (given or {}).get(stage), Path(entry.source)
        random = _RANDOM.fullmatch(entry.source)
        if path is None and random is not None:
            found[stage] = random_checkpoint(cast(Any, random[1]), stage, int(random[2]))
        elif path is not None or (source.is_dir() and source.is_absolute()):
            found[stage] = read_checkpoint(source if path is None else path)
        else:
            raise InputError(
                f"the checkpoint of stage {stage}, {entry.source}, is not available; give it with `{stage}`.",
                field=stage,
            )
    return found


def export_again(
    bundle: Bundle, checkpoints: Mapping[StageName, StageCheckpoint], out: Path, size: tuple[int, int], frames: int
) -> None:
    """Exports a bundle's networks, without depth, with the same settings for another size or number of frames.

    Raises:
        ExportError: the size cannot be exported, or this version does not know the form of the bundle's graphs.
    """
    from amodal.export.bundle import export_bundle
    from amodal.export.families.diffusion_vas.plan import ExportSettings, plan_export
    from amodal.export.graph.variants import VARIANTS

    config = bundle.config
    unet = next(entry for entry in bundle.manifest.components.values() if entry.kind == "unet")
    recorded = dict(unet.variant)
    variant = next((name for name, v in VARIANTS.items() if recorded.items() <= v.as_dict().items()), None)
    if variant is None:
        name = recorded.get("name", "unnamed")
        raise ExportError(f"this version does not write graphs in the bundle's variant ({name}); export it again.")
    settings = ExportSettings(
        size=size,
        frames=frames,
        precision=unet.precision,
        stored=unet.stored,
        context=config.context_layout,
        decode_chunk=config.decode_chunk,
        variant=variant,
        check="none",
    )
    export_bundle(out, plan_export(checkpoints, settings=settings))
