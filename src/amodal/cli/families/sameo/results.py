"""The result.json of `amodal run` for SAMEO."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amodal import __version__
from amodal.cli.environment import environment_of
from amodal.runtime.files.results import write_json
from amodal.runtime.model import Model

from .clock import Clock
from .sources import Boxes, Masks

MARKER = "result.json"
_OF_BOXES = ("detections", "images_json", "box_format", "first_id", "min_score")
_OF_MASKS = ("masks", "mask_kind", "missing_masks", "pair")


def write_result(
    folder: Path,
    files: list[str],
    options: Mapping[str, Any],
    model: Model,
    source: Boxes | Masks,
    count: int,
    clock: Clock,
) -> dict[str, Any]:
    """Writes result.json and returns its content; `count` masks were predicted."""
    objects = list(source.objects) if isinstance(source, Masks) else None
    said = {name: options[name] for name in ("images", *(_OF_BOXES if objects is None else _OF_MASKS))}
    said |= {name: None if options[name] is None else str(options[name]) for name in ("start", "stop", "stride")}
    settings = ("select", "threshold") if objects is None else ("select", "threshold", "unite", "points")
    work = sum(clock.seconds.values())
    result = {
        "schema_version": 1,
        "amodal_version": __version__,
        "files": [*files, MARKER],
        "inputs": {**said, **({} if objects is None else {"objects": objects}), "count": source.count},
        "settings": {"stages": ["predict"], **{name: options[name] for name in settings}, "memory": model.memory},
        "seconds": {"total": clock.total, **clock.seconds},
        "throughput": {
            "images": source.count,
            "masks": count,
            "images_per_second": source.count / work,
            "masks_per_second": count / work,
        },
        **environment_of(options["bundle"], model),
        "warnings": source.notes,
    }
    write_json(folder / MARKER, result)
    return result
