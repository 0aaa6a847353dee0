"""Tells Depth Anything checkpoints of relative depth from those of metric distances.

Both have the same tensors under the same names; they differ in the last activation. A transformers folder says in its
config which it is, the authors' files only by their names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from amodal.runtime.errors import CheckpointError

CheckpointKind = Literal["relative", "metric"]


def distance_of_name(source: str, file: Path) -> int | None:
    """Returns the largest distance of a state dict, in metres, by the authors' names; None if they say nothing.

    Raises:
        CheckpointError: it is Depth Anything V1 by its name.
    """
    if re.match(r"depth_anything_vit[sbl]14", file.name):
        raise CheckpointError(
            f"{file} is Depth Anything V1 by its name, of which the head reads other blocks; give "
            "depth_anything_v2_vitl.pth, or V1 as a transformers folder.",
            field="depth",
        )
    words = {*re.split(r"[^a-z]+", f"{source} {file.name}".lower())}
    if "vkitti" in words:
        return 80
    return 20 if words & {"metric", "hypersim"} else None


def distance_of_config(config: Mapping[str, Any], path: Path) -> int | None:
    """Returns the largest distance in metres that a transformers config names; None if depth is relative.

    Raises:
        CheckpointError: a kind that is neither.
    """
    kind, most = config.get("depth_estimation_type", "relative"), config.get("max_depth") or 1
    if kind not in ("relative", "metric") or not isinstance(most, (int, float)) or most != round(most) or most <= 0:
        raise CheckpointError(
            f"{path} is not for Depth Anything V2: depth_estimation_type is {kind!r} and max_depth {most!r}; expected "
            "'relative', or 'metric' and a whole number of metres."
        )
    return int(most) if kind == "metric" else None


def refuse_metric(source: str, because: str) -> CheckpointError:
    """Returns the error for a metric checkpoint of which nobody said that it is meant."""
    return CheckpointError(
        f"{source} is a metric checkpoint, as its {because} says: it gives distances, where `segment` expects relative "
        'depth (nearer is larger); say `depth_kind="metric"` to have them inverted, or give a relative one such as '
        "depth_anything_v2_vitl.pth.",
        field="depth",
    )
