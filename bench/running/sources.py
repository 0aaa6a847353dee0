"""The checkpoints that a bundle was made from, where they are still at hand, and the same networks at another size."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, cast

from amodal.runtime.bundle.manifest import ComponentEntry
from amodal.runtime.errors import ExportError, InputError, MissingDependencyError
from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.config import StageName

if TYPE_CHECKING:
    from amodal.export.checkpoints.checkpoint import StageCheckpoint

Checkpoints: TypeAlias = Mapping[StageName, str | Path | None]
"""Where the checkpoints of stages lie; None for those that the manifest names."""

_RANDOM = re.compile(r"random (\S+) \(seed (\d+)\)")


def checkpoints_of(
    bundle: Bundle,
    given: Checkpoints | None = None,
    stages: Collection[StageName] | None = None,
) -> dict[StageName, StageCheckpoint]:
    """Opens the checkpoint of each of a bundle's stages: the one given, or the one the manifest names.

    Args:
        stages: only these.

    Raises:
        MissingDependencyError: no torch.
        InputError: one is not at hand; says which option gives it.
        CheckpointError: it cannot be read.
    """
    if find_spec("torch") is None or find_spec("diffusers") is None:
        raise MissingDependencyError('this needs torch and diffusers; `pip install "amodal[export,bench]"`.')
    from amodal.export.checkpoints.checkpoint import random_checkpoint, read_checkpoint

    found: dict[StageName, StageCheckpoint] = {}
    for stage, entry in cast(Any, bundle.manifest.tasks).items():
        if stages is not None and stage not in stages:
            continue
        place = (given or {}).get(stage)
        random = _RANDOM.fullmatch(entry.source)
        if place is not None:
            found[stage] = read_checkpoint(place)
        elif random is not None:
            found[stage] = random_checkpoint(cast(Any, random[1]), stage, int(random[2]))
        elif Path(entry.source).is_dir() and Path(entry.source).is_absolute():
            found[stage] = read_checkpoint(entry.source)
        else:
            raise InputError(
                f"the checkpoint of stage {stage}, {entry.source}, is not at hand; give it with `{stage}`.",
                field=stage,
            )
    return found


def export_again(
    bundle: Bundle,
    checkpoints: Mapping[StageName, StageCheckpoint],
    out: Path,
    *,
    size: tuple[int, int] | None = None,
    frames: int | None = None,
) -> Path:
    """Exports a bundle's networks for another clip, as the bundle itself was, without depth; returns the new folder.

    Raises:
        ExportError: no clip of that size can be exported, or the bundle's graphs are in a form that this version has
            not.
    """
    from amodal.export.bundle import export_bundle
    from amodal.export.families.diffusion_vas.plan import ExportSettings, plan_export

    config = bundle.config
    unet = next(entry for entry in bundle.manifest.components.values() if entry.kind == "unet")
    settings = ExportSettings(
        size=size or config.size,
        frames=frames or config.frames,
        precision=unet.precision,
        stored=unet.stored,
        context=config.context_layout,
        decode_chunk=config.decode_chunk,
        variant=_variant_name(unet),
        check="none",
    )
    export_bundle(out, plan_export(checkpoints, settings=settings))
    return out


def _variant_name(unet: ComponentEntry) -> str:
    from amodal.export.graph.variants import VARIANTS

    recorded = dict(unet.variant)
    for name, variant in VARIANTS.items():
        if recorded.items() <= variant.as_dict().items():
            return name
    raise ExportError(
        f"the bundle's graphs are of a form that this version does not write ({recorded.get('name', 'unnamed')}); "
        "export it again."
    )
