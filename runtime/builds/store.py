"""Where engines lie, what is known about each, and whether one may be used.

An engine is a file that only one version of one library, on GPUs of one kind, can run. Beside each lies its record: the
key it was built under, and what the compiler said of it. A record whose key differs from the one wanted, in any field,
is stale, and the difference is the reason.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Literal

import platformdirs
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..backends.onnxruntime.kernels import FUSED
from ..bundle.manifest import FileEntry, Precision
from ..bundle.reading import DEFAULT_BUNDLE, Bundle, find_bundle, sha256_of
from ..errors import EngineCorruptError, EngineNotFoundError, EngineStaleError
from ..paths import PathLike

RECORD_VERSION = 1
ENCODE_FRAMES = 5
"""Frames that the VAE encodes at once on a GPU: half the memory of ten, and the cores are full."""
LARGEST_STEPS = 200
"""Sampler steps that a conditioner's engine takes."""
ENGINES = "engines"

EngineBackend = Literal["tensorrt_rtx", "tensorrt"]
Shape = tuple[int, ...]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Profile(_Record):
    """One set of shapes that an engine accepts.

    Attributes:
        name: what it is for (`rows=1`).
        shapes: input -> smallest, likeliest and largest shape.
    """

    name: str
    shapes: dict[str, tuple[Shape, Shape, Shape]]


class EngineKey(_Record):
    """Everything that decides what an engine is.

    Attributes:
        component: key in the bundle.
        graph: SHA-256 over the hashes of the graph's files.
        backend, version: of the library that built it.
        target: what it runs on (`sm86+sm89`, `portable`, or `this-` and a GPU's own name).
        precision: arithmetic of the graph.
        profiles: shapes it accepts; the runtime picks one by its name.
        options: the builder's.
    """

    component: str
    graph: str
    backend: EngineBackend
    version: str
    target: str
    precision: Precision
    profiles: tuple[Profile, ...]
    options: dict[str, bool | int]

    @property
    def short(self) -> str:
        """The first digits of a hash over all fields."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]

    def difference(self, wanted: EngineKey) -> str | None:
        """In words, the first field in which this key differs from the one wanted; None if there is none."""
        for name, words in _WORDS.items():
            mine, theirs = getattr(self, name), getattr(wanted, name)
            if mine != theirs:
                plain = all(isinstance(value, str) for value in (mine, theirs)) and name != "graph"
                return f"{words}: {mine}, wanted {theirs}" if plain else words
        return None


_WORDS = {
    "component": "it is of another component",
    "backend": "it was built by another backend",
    "version": "it was built by another version",
    "target": "it was built for another target",
    "graph": "the graph has changed since",
    "precision": "it was built in another precision",
    "profiles": "it was built for other shapes",
    "options": "it was built with other options",
}


class EngineRecord(_Record):
    """An engine: its key, its file, and what the compiler said of it.

    Attributes:
        file: beside the record.
        weights_bytes: device memory that the weights take.
        activation_bytes: device memory that running takes, by profile.
        layers: of the network as read, and after fusion.
        seconds, peak_bytes: time and host memory that building it took.
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
    """SHA-256 over the hashes of a component's files, but for fused graphs: equal for what engines are made of."""
    digest = hashlib.sha256()
    for file in bundle.component(component).files:
        if file.path.endswith(FUSED):
            continue
        digest.update(f"{Path(file.path).name}:{file.sha256}\n".encode())
    return digest.hexdigest()


def engine_folder(bundle: PathLike, engine_dir: PathLike | None = None) -> Path:
    """The folder that holds a bundle's engines: the one given, or `engines` inside the bundle.

    The package's own bundle is not written to; its engines lie in the user's cache.
    """
    if engine_dir is not None:
        return Path(engine_dir)
    if str(bundle) == DEFAULT_BUNDLE or Path(bundle) == find_bundle(DEFAULT_BUNDLE):
        return platformdirs.user_cache_path("amodal") / ENGINES / DEFAULT_BUNDLE
    return Path(bundle) / ENGINES


class EngineStore:
    """The engines of one bundle for one backend, version and target: `engines/<backend>-<version>-<target>/`."""

    def __init__(self, folder: Path, backend: EngineBackend, version: str, target: str) -> None:
        self.folder = folder / f"{backend}-{version}-{target}"

    def record_file(self, component: str) -> Path:
        """Where a component's record lies."""
        return self.folder / f"{component}.json"

    def read(self, component: str) -> EngineRecord:
        """A component's record, whatever its key.

        Raises:
            EngineNotFoundError: there is none.
            EngineCorruptError: it cannot be read.
            EngineStaleError: a newer amodal wrote it.
        """
        return read_record(self.record_file(component))

    def find(self, wanted: EngineKey, *, verify: bool = True) -> EngineRecord:
        """The record of the engine with this very key.

        Args:
            verify: compare the engine's file with its hash.

        Raises:
            EngineNotFoundError: there is none.
            EngineStaleError: there is one with another key; the message says in what it differs.
            EngineCorruptError: its record or its file is damaged.
        """
        record = self.read(wanted.component)
        file = self.engine_file(record)
        reason = record.key.difference(wanted)
        if reason is not None:
            raise EngineStaleError(f"the engine {file} is stale, {reason}; build it again with `amodal build`.")
        check_engine(file, record, verify=verify)
        return record

    def engine_file(self, record: EngineRecord) -> Path:
        """Where the engine of a record lies."""
        return self.folder / record.file.path

    def write(self, record: EngineRecord, engine: Path) -> None:
        """Puts an engine and its record in their places, and takes the one before away.

        A record names one file with the key in its name, so that whatever interrupts this leaves the old pair or the
        new one.

        Args:
            engine: a finished file in this folder, which is moved.
        """
        file = self.engine_file(record)
        place = self.record_file(record.key.component)
        part = place.with_suffix(".json.part")
        try:  # first what may not fit on the disk
            part.write_text(json.dumps(record.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
            os.replace(engine, file)
            os.replace(part, place)
        finally:
            part.unlink(missing_ok=True)
        for other in self.folder.glob(f"{record.key.component}-*"):
            # `segment_unet-` also begins the name of no other component: keys hold no hyphen. With the old engine go
            # the kernels that were kept beside it.
            if other != file:
                other.unlink(missing_ok=True)


def read_record(file: Path) -> EngineRecord:
    """A record; see `EngineStore.read`."""
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
        if isinstance(version, int) and version > RECORD_VERSION:
            raise EngineStaleError(
                f"{file} has version {version}, this amodal reads up to {RECORD_VERSION}; build the engine again with "
                "`amodal build`, or update amodal."
            )
        return EngineRecord.model_validate(document)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        why = error.errors()[0]["msg"] if isinstance(error, ValidationError) else error
        raise EngineCorruptError(
            f"{file} cannot be read ({why}); build the engine again with `amodal build`."
        ) from error


def check_engine(file: Path, record: EngineRecord, *, verify: bool = True) -> None:
    """Whether an engine's file is what its record says.

    Raises:
        EngineCorruptError: it is missing, or of another size or content.
    """
    mend = "build it again with `amodal build`."
    try:
        size = file.stat().st_size
    except OSError:
        raise EngineCorruptError(f"the engine {file} is missing; {mend}") from None
    if size != record.file.bytes:
        raise EngineCorruptError(f"the engine {file} has {size} bytes, its record says {record.file.bytes}; {mend}")
    if verify and sha256_of(file) != record.file.sha256:
        raise EngineCorruptError(f"the engine {file} differs from the hash in its record; {mend}")
