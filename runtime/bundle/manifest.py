"""The manifest of a bundle: its content, and what a family needs to run it."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

SCHEMA_VERSION = 2
MANIFEST_NAME = "manifest.json"

Precision = Literal["fp32", "fp16"]
FileRole = Literal["graph", "weights", "fused"]


def _inside(path: str) -> str:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise ValueError(f"{path!r} does not stay inside the bundle")
    return path


RelativePath = Annotated[str, AfterValidator(_inside)]


class Record(BaseModel):
    """Base of what is stored as JSON: immutable, without unknown fields, finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class FileEntry(Record):
    """One file of a bundle, with the SHA-256 of its content."""

    path: RelativePath
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")


class ComponentFile(FileEntry):
    """One file of a component: its graph, its weights (external data), or the graph `fused` for the CPU kernels."""

    role: FileRole


class TensorEntry(Record):
    """One input or output of a graph; axes given as text are free."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]


class ComponentEntry(Record):
    """One network as a graph.

    Attributes:
        kind: the component's name in the vocabulary (`unet`, `vae_encoder`, ...).
        precision: arithmetic of the graph; inputs and outputs are always float32.
        stored: dtype of the weights in the file.
        variant: form of the graph, by layer, where several forms compute the same.
        difference: relative L2 difference from the torch module on random input, measured at export; None if skipped.
        source: origin of the weights.
        repeated: whether a run calls it many times with the same shapes, so that a GPU captures it as a CUDA graph.
        least_precision: the lowest precision it can be exported in; `fp32` if it overflows in half.
        bfloat16: whether it stays accurate in bfloat16, which has eight bits of mantissa.
    """

    kind: str
    files: tuple[ComponentFile, ...] = Field(min_length=1)
    precision: Precision
    stored: Precision
    variant: dict[str, str]
    parameters: int = Field(ge=0)
    inputs: tuple[TensorEntry, ...]
    outputs: tuple[TensorEntry, ...]
    difference: float | None = None
    source: str
    repeated: bool = False
    least_precision: Precision = "fp16"
    bfloat16: bool = True

    @property
    def bytes(self) -> int:
        """Returns the size of all files."""
        return sum(f.bytes for f in self.files)

    @property
    def loaded_bytes(self) -> int:
        """Returns the size of the files that are loaded: all but the CPU's twin of the graph."""
        return sum(f.bytes for f in self.files if f.role != "fused")


class TaskEntry(Record):
    """One task of the bundle.

    Attributes:
        components: key in the bundle of each component, by its role in the task; tasks can share components.
        source: origin of the checkpoint.
        licence: of the weights, as an SPDX identifier or a link.
    """

    components: dict[str, str]
    source: str
    licence: str | None = None


class Manifest(Record):
    """Everything about a bundle except its weights.

    Attributes:
        family: the family of models, which alone interprets `config`.
        config: shapes and constants, validated by the family.
        tasks: the tasks that the bundle can run.
        components: its networks, by key.
    """

    schema_version: int
    family: str
    amodal_version: str
    created: str
    config: dict[str, Any]
    tasks: dict[str, TaskEntry]
    components: dict[str, ComponentEntry]

    @model_validator(mode="after")
    def _complete(self) -> Manifest:
        for task, entry in self.tasks.items():
            for role, key in entry.components.items():
                if key not in self.components:
                    raise ValueError(f"{task} has no component {role} ({key!r} is none)")
        return self

    def as_json(self) -> dict[str, Any]:
        """Returns a JSON-ready form."""
        return self.model_dump(mode="json")
