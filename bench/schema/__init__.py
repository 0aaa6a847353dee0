"""The records of a results file: raw samples with their units, and what they were measured on.

A file `results.json` is one `Results`. Measurements keep raw samples; medians, percentiles and ratios are computed when
they are shown (`bench/statistics.py`), so another view needs no new measurement. Times are in seconds, memory is in
bytes, arithmetic is in floating-point operations (a multiply-add is two).
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import Field, ValidationError

from amodal.runtime.errors import InputError
from amodal.runtime.paths import PathLike

from .about import Executed, Gpu, Machine, Record, Seconds, Subject, Work
from .comparisons import Ceilings, ComponentCost, Peer, Peers, Prediction, Preset, Quality, Roofline, fill_a_gpu
from .running import Against, ClipTimes, Fidelity, Latency, Memory, Point, Scaling, Span, StageFidelity, Sweep, Timeline

SCHEMA_VERSION: Final = 1
Measurement = Annotated[Latency | Memory | Fidelity | Quality | Peers | Roofline | Scaling, Field(discriminator="kind")]


class Skipped(Record):
    """Something that was not measured, the reason, and how to get it measured."""

    what: str
    reason: str
    remedy: str = ""

    @property
    def said(self) -> str:
        """All of it in a line; many reasons name the thing themselves."""
        reason = self.reason if self.reason.startswith(self.what) else f"{self.what}: {self.reason}"
        return f"{reason} Remedy: {self.remedy}" if self.remedy else reason


class Results(Record):
    """A results file, `created` at an ISO 8601 time in UTC, and `finished` unless the suite was interrupted."""

    schema_version: Literal[1] = SCHEMA_VERSION
    created: str
    versions: dict[str, str]
    machine: Machine
    bundle: Subject
    measurements: list[Measurement] = []
    skipped: list[Skipped] = []
    finished: bool = True


def read_results(path: PathLike) -> Results:
    """Reads a results file, or the `results.json` in a folder.

    Raises:
        InputError: it is missing, is not a results file, or has another schema.
    """
    file = Path(path)
    if file.is_dir():
        file /= "results.json"
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error}); give a results.json of `amodal bench`.") from error
    try:
        return Results.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        if first["loc"] == ("schema_version",):
            raise InputError(
                f"{file} has schema {first['input']}, but this version reads schema {SCHEMA_VERSION}; measure again "
                "with this version, or read the file with the version that wrote it."
            ) from error
        at = ".".join(map(str, first["loc"])) or "the file"
        raise InputError(f"{file} is no results file ({at}: {first['msg']}); write one with `amodal bench`.") from error
