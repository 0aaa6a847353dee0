"""What graphs took on a GPU when they were measured there: `memory/onnxruntime-cuda.json` in a bundle.

ONNX Runtime reports no activations before a graph runs. `recording.py` measures each component once; from then on runs
are planned as with engines.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

import platformdirs
from pydantic import Field, ValidationError

from ..builds.store import graph_hash
from ..bundle.manifest import Record
from ..bundle.reading import Bundle, packaged_name
from ..errors import EngineCorruptError, EngineNotFoundError, EngineStaleError, OutputError
from .plan import Footprint

RECORD_VERSION = 1
HOW_TO_RECORD = "`amodal inspect BUNDLE --memory --backend onnxruntime --device cuda --record` on a machine with a GPU"


class ComponentMemory(Record):
    """What one component took, in bytes of device memory.

    Attributes:
        graph: as `graph_hash` gives it; another graph needs another measurement.
        activation_bytes: of its arena and what a CUDA graph keeps beside it, by profile.
        kept: whether that stays between calls, as it does for a component that is repeated.
    """

    graph: str
    weights_bytes: int = Field(ge=0)
    activation_bytes: dict[str, int]
    kept: bool


class MemoryRecord(Record):
    """What the components of a bundle took.

    Attributes:
        version: of ONNX Runtime.
        measured_on: the GPU, or what stood in for it.
    """

    record_version: int = RECORD_VERSION
    version: str
    measured_on: str
    components: dict[str, ComponentMemory]

    def footprints(self, bundle: Bundle, components: Collection[str]) -> dict[str, Footprint]:
        """Returns the footprints of components, by key.

        Raises:
            EngineStaleError: a component is missing, or its graph has changed since.
        """
        found = {}
        for key in components:
            part = self.components.get(key)
            if part is None or part.graph != graph_hash(bundle, key):
                why = "lacks it" if part is None else "is of another graph"
                raise EngineStaleError(
                    f"the GPU memory of {key} is unknown: {record_file(bundle)} {why}; run {HOW_TO_RECORD}."
                )
            found[key] = Footprint(part.weights_bytes, part.activation_bytes, "kept" if part.kept else "freed")
        return found


def record_file(bundle: Bundle) -> Path:
    """Returns the path of a bundle's record; that of one of the package's own lies in the user's cache."""
    folder = bundle.path / "memory"
    if name := packaged_name(bundle.path):
        folder = platformdirs.user_cache_path("amodal") / "memory" / name
    return folder / "onnxruntime-cuda.json"


def read_memory(bundle: Bundle) -> MemoryRecord:
    """Reads a bundle's record.

    Raises:
        EngineNotFoundError: there is none.
        EngineCorruptError: it cannot be read, or another version of amodal wrote it.
    """
    file = record_file(bundle)
    try:
        document = json.loads(file.read_bytes())
        if document["record_version"] != RECORD_VERSION:
            raise ValueError(f"its version is {document['record_version']}, this amodal reads {RECORD_VERSION}")
        return MemoryRecord.model_validate(document)
    except FileNotFoundError:
        raise EngineNotFoundError(
            f"the GPU memory that the graphs of {bundle.path} take was not measured ({file} is missing); run "
            f"{HOW_TO_RECORD}."
        ) from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise EngineCorruptError(f"{file} cannot be read ({why}); run {HOW_TO_RECORD}.") from error


def write_memory(bundle: Bundle, record: MemoryRecord) -> Path:
    """Writes a bundle's record, whole or not at all; raises OutputError if it cannot be written."""
    file = record_file(bundle)
    part = file.with_name(f".{file.name}.partial-{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(record.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
        os.replace(part, file)
    except OSError as error:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise OutputError(f"{file} cannot be written ({error.strerror or error}); make the bundle writable.") from error
    return file
