"""Engines on disk: their location, their records, and whether one may be used.

An engine is a file that only one version of one library, on one kind of GPU, can run. Beside it lies its record: the
key it was built under, and what the compiler reported. An engine is stale if its key differs from the wanted one in any
field; the difference is the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import Field, ValidationError

from ..bundle.manifest import FileEntry, Precision, Record, TensorEntry
from ..bundle.reading import Bundle, packaged_name, sha256_of
from ..errors import EngineCorruptError, EngineNotFoundError, EngineStaleError
from ..paths import PathLike

RECORD_VERSION = 2
ENGINES = "engines"

EngineBackend = Literal["tensorrt_rtx", "tensorrt"]
Shape = tuple[int, ...]


class Profile(Record):
    """One set of shapes that an engine accepts.

    Most profiles hold a single shape: a compiler then plans for it alone and reports the memory it takes.

    Attributes:
        name: what it is for (`rows=1`).
        shapes: smallest, likeliest and largest shape of each input with free axes.
    """

    name: str
    shapes: dict[str, tuple[Shape, Shape, Shape]]


def make_profile(name: str, inputs: Sequence[TensorEntry], free: dict[str, tuple[int, int, int]]) -> Profile:
    """Makes a profile for a graph's inputs; `free` has the smallest, likeliest and largest size of each free axis."""
    shapes: dict[str, tuple[Shape, Shape, Shape]] = {}
    for tensor in inputs:
        if any(isinstance(n, str) for n in tensor.shape):
            low, likely, high = (tuple(free[n][i] if isinstance(n, str) else n for n in tensor.shape) for i in range(3))
            shapes[tensor.name] = (low, likely, high)
    return Profile(name=name, shapes=shapes)


class EngineKey(Record):
    """Everything that determines an engine.

    Attributes:
        component: key in the bundle.
        graph: SHA-256 over the hashes of the graph's files.
        backend, version: of the library that built it.
        target: what it runs on (`sm86+sm89`, `portable`, or `this-` and the GPU's capability).
        precision: arithmetic of the graph.
        profiles: accepted shapes; the runtime picks one by name.
    """

    component: str
    graph: str
    backend: EngineBackend
    version: str
    target: str
    precision: Precision
    profiles: tuple[Profile, ...]

    @property
    def short(self) -> str:
        """Returns the first digits of a hash over all fields."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def difference(self, wanted: EngineKey) -> str | None:
        """Describes the first field in which this key differs from the wanted one; None if they are equal."""
        for name, words in _DIFFERENCES.items():
            mine, theirs = getattr(self, name), getattr(wanted, name)
            if mine != theirs:
                return f"{words}: {mine}, wanted {theirs}" if isinstance(mine, str) and name != "graph" else words
        return None


_DIFFERENCES = {
    "component": "it is of another component",
    "backend": "it was built by another backend",
    "version": "it was built by another version",
    "target": "it was built for another target",
    "graph": "the graph has changed since",
    "precision": "it was built in another precision",
    "profiles": "it was built for other shapes",
}


class EngineRecord(Record):
    """An engine: its key, its file, and what the compiler reported.

    Attributes:
        file: beside the record.
        weights_bytes: device memory of the weights.
        activation_bytes: device memory of the activations, by profile.
        layers: number in the network as read, and after fusion.
        seconds, peak_bytes: time and host memory of the build.
    """

    record_version: int
    key: EngineKey
    file: FileEntry
    weights_bytes: int = Field(ge=0)
    activation_bytes: dict[str, int]
    layers: tuple[int, int]
    seconds: float = Field(ge=0)
    peak_bytes: int = Field(ge=0)


def graph_hash(bundle: Bundle, component: str) -> str:
    """Returns the SHA-256 over the hashes of a component's files without fused graphs, which engines do not use."""
    digest = hashlib.sha256()
    for file in bundle.component(component).files:
        if file.role != "fused":
            digest.update(f"{Path(file.path).name}:{file.sha256}\n".encode())
    return digest.hexdigest()


def engine_folder(bundle: PathLike, engine_dir: PathLike | None = None) -> Path:
    """Returns the folder of a bundle's engines: `engine_dir`, or `engines` inside the bundle.

    The package's own bundles may be read-only; their engines lie in the user's cache.
    """
    if engine_dir is not None:
        return Path(engine_dir)
    if name := packaged_name(bundle):
        return platformdirs.user_cache_path("amodal") / ENGINES / name
    return Path(bundle) / ENGINES


class EngineStore:
    """The engines of one bundle for one backend, version and target: `engines/<backend>-<version>-<target>/`."""

    def __init__(self, folder: Path, backend: EngineBackend, version: str, target: str) -> None:
        self.folder = folder / f"{backend}-{version}-{target}"

    def record_file(self, component: str) -> Path:
        """Returns the path of a component's record."""
        return self.folder / f"{component}.json"

    def read(self, component: str) -> EngineRecord:
        """Reads a component's record, whatever its key; see `read_record`."""
        return read_record(self.record_file(component))

    def find(self, wanted: EngineKey, *, verify: bool = True) -> EngineRecord:
        """Returns the record of the engine with exactly this key.

        Args:
            verify: compare the engine's file with its hash.

        Raises:
            EngineNotFoundError: there is no engine of the component.
            EngineStaleError: its key differs; the message says how.
            EngineCorruptError: its record or file is damaged.
        """
        record = self.read(wanted.component)
        file = self.engine_file(record)
        reason = record.key.difference(wanted)
        if reason is not None:
            raise EngineStaleError(f"the engine {file} is stale, {reason}; build it again with `amodal build`.")
        check_engine(file, record, verify=verify)
        return record

    def engine_file(self, record: EngineRecord) -> Path:
        """Returns the path of a record's engine."""
        return self.folder / record.file.path

    def write(self, record: EngineRecord, engine: Path) -> None:
        """Moves an engine and its record into place, and removes the previous pair.

        The record names an engine file that has the key in its name, so an interruption leaves the old pair or the new.

        Args:
            engine: a finished file in this folder, which is moved.
        """
        file = self.engine_file(record)
        place = self.record_file(record.key.component)
        part = place.with_suffix(".json.part")
        try:  # first the write that may fail on a full disk
            part.write_text(json.dumps(record.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
            os.replace(engine, file)
            os.replace(part, place)
        finally:
            part.unlink(missing_ok=True)
        for other in self.folder.glob(f"{record.key.component}-*"):
            # No other component's files begin with `segment_unet-`, since keys have no hyphen. The kernel cache beside
            # the old engine goes too.
            if other != file:
                other.unlink(missing_ok=True)


def read_record(file: Path) -> EngineRecord:
    """Reads an engine's record.

    Raises:
        EngineNotFoundError: there is no such file.
        EngineCorruptError: it cannot be read.
        EngineStaleError: an older or newer amodal wrote it.
    """
    try:
        content = file.read_bytes()
    except FileNotFoundError:
        raise EngineNotFoundError(
            f"there is no engine of {file.stem} in {file.parent}; build it with `amodal build`."
        ) from None
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise EngineCorruptError(f"{file} cannot be read, {reason}; build the engine again elsewhere.") from error
    try:
        document = json.loads(content.decode("utf-8"))
        version = document["record_version"]
        if isinstance(version, int) and version != RECORD_VERSION:
            newer = version > RECORD_VERSION
            raise EngineStaleError(
                f"{file} has version {version}, this amodal reads {RECORD_VERSION}; build the engine again with "
                f"`amodal build`{', or update amodal' if newer else ''}."
            )
        return EngineRecord.model_validate(document)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise EngineCorruptError(
            f"{file} cannot be read ({why}); build the engine again with `amodal build`."
        ) from error


def check_engine(file: Path, record: EngineRecord, *, verify: bool = True) -> None:
    """Compares an engine's file with its record; raises EngineCorruptError if it is missing or differs."""
    fix = "build it again with `amodal build`."
    try:
        size = file.stat().st_size
    except OSError:
        raise EngineCorruptError(f"the engine {file} is missing; {fix}") from None
    if size != record.file.bytes:
        raise EngineCorruptError(f"the engine {file} has {size} bytes, its record says {record.file.bytes}; {fix}")
    if verify and sha256_of(file) != record.file.sha256:
        raise EngineCorruptError(f"the engine {file} differs from the hash in its record; {fix}")
