"""A results file, and reading one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from amodal.runtime.errors import InputError
from amodal.runtime.paths import PathLike

from .about import Machine, Record, Subject
from .ceilings import Roofline
from .outcome import Fidelity, Peers, Quality
from .running import Latency, Memory, Scaling

SCHEMA_VERSION = 1

Measurement = Annotated[Latency | Memory | Fidelity | Quality | Peers | Roofline | Scaling, Field(discriminator="kind")]


class Skipped(Record):
    """What was not measured, why, and what would change that."""

    what: str
    reason: str
    remedy: str = ""


class Results(Record):
    """A results file.

    Attributes:
        created: UTC, ISO 8601. versions: of amodal and the libraries that were used.
        finished: False in a file that an interrupted suite left.
    """

    schema_version: int = SCHEMA_VERSION
    created: str
    versions: dict[str, str]
    machine: Machine
    bundle: Subject
    measurements: list[Measurement] = []
    skipped: list[Skipped] = []
    finished: bool = True

    def of(self, kind: str) -> list[Measurement]:
        """Its measurements of one kind."""
        return [m for m in self.measurements if m.kind == kind]


def read_results(path: PathLike) -> Results:
    """Reads a results file, or the `results.json` in a folder.

    Raises:
        InputError: it is missing, no results file, or of another schema.
    """
    file = Path(path)
    if file.is_dir():
        file /= "results.json"
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error}); give a results.json of `amodal bench`.") from error
    found = _version(text)
    if found is not None and found != SCHEMA_VERSION:
        raise InputError(
            f"{file} has results of schema {found}, this version reads {SCHEMA_VERSION}; measure again with this "
            "version, or read it with the one that wrote it."
        )
    try:
        return Results.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        at = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"{file} is no results file ({at}: {first['msg']}); write one with `amodal bench`.") from error


def _version(text: str) -> int | None:
    class Versioned(BaseModel):
        schema_version: int

    try:
        return Versioned.model_validate_json(text).schema_version
    except ValidationError:
        return None
