"""Reading of checkpoint files: JSON, and the shards of an index."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from amodal.runtime.errors import CheckpointError


def read_json(path: Path) -> dict[str, Any]:
    """Reads a JSON object.

    Raises:
        CheckpointError: the file is missing, or not a JSON object.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing; expected a whole checkpoint (model_index.json, unet/, vae/, image_encoder/, "
            "scheduler/): check the path, or download it again."
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON ({one_line(error)}); download it again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object; download it again.")
    return content


def shards_of(index: Path) -> list[Path]:
    """Returns the safetensors files that an index (*.safetensors.index.json) names.

    Raises:
        CheckpointError: the index names none, or one is missing.
    """
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map; download it again.")
    shards = [index.parent / Path(str(name)).name for name in sorted(set(map(str, weight_map.values())))]
    for shard in shards:
        if not shard.is_file():
            raise CheckpointError(f"{shard} is missing, which {index.name} names; download the checkpoint again.")
    return shards


def one_line(error: Exception) -> str:
    """Returns an exception's message in a form that fits into a sentence."""
    text = f"unknown {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(text.split()).rstrip(".") or type(error).__name__
