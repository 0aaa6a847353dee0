"""Opens a bundle and checks it before anything of it is used."""

from __future__ import annotations

import hashlib
import json
from importlib.resources import files
from pathlib import Path

from pydantic import ValidationError

from ..errors import BundleCorruptError, BundleNotFoundError, BundleVersionError
from ..paths import PathLike
from ..progress import Progress, silent
from .lifting import lift
from .manifest import MANIFEST_NAME, SCHEMA_VERSION, ComponentEntry, FileEntry, Manifest

DEFAULT_BUNDLE = "default"
"""Name of the Diffusion-VAS bundle inside the package; write `./default` for a folder of that name."""

DEFAULT_SAMEO_BUNDLE = "default-sameo"
"""Name of the SAMEO bundle inside the package."""

_PACKAGED = {DEFAULT_BUNDLE: "default_bundle", DEFAULT_SAMEO_BUNDLE: "default_sameo_bundle"}

_PIECE = 1 << 22


def find_bundle(bundle: PathLike) -> Path:
    """Returns the folder of a bundle: the path given, or the package's own for `default` and `default-sameo`."""
    if folder := _PACKAGED.get(str(bundle)):
        return Path(str(files("amodal"))) / folder
    return Path(bundle)


def packaged_name(bundle: PathLike) -> str | None:
    """Returns the name of a bundle, given as a name or a folder, if it is one of the package's own."""
    return next((name for name in _PACKAGED if find_bundle(bundle) == find_bundle(name)), None)


def sha256_of(file: Path, progress: Progress = silent) -> str:
    """Computes the SHA-256 of a file; `progress` gets the bytes read so far."""
    digest, total = hashlib.sha256(), file.stat().st_size
    with open(file, "rb") as source:
        while piece := source.read(_PIECE):
            digest.update(piece)
            progress(file.name, "check", source.tell(), total)
    return digest.hexdigest()


class Bundle:
    """A finished bundle on disk.

    Args:
        path: the folder, or `default` or `default-sameo` for a small trained one inside the package.

    Raises:
        BundleNotFoundError: there is no finished bundle.
        BundleVersionError: a newer amodal wrote it.
        BundleCorruptError: its manifest cannot be read, or a file is missing or has another size.
    """

    def __init__(self, path: PathLike) -> None:
        self.path = find_bundle(path)
        self.manifest = read_manifest(self.path)
        self._verified: set[str] = set()
        for entry in self.manifest.components.values():
            for file in entry.files:
                self._check_size(file)

    def files(self, component: str) -> list[Path]:
        """Returns a component's files, the graph first."""
        return [self.path / file.path for file in self.component(component).files]

    def component(self, name: str) -> ComponentEntry:
        """Returns a component's entry in the manifest."""
        return self.manifest.components[name]

    def verify(self, component: str, progress: Progress = silent) -> None:
        """Compares a component's files with the manifest's hashes, once per `Bundle`.

        Raises:
            BundleCorruptError: a file differs.
        """
        if component in self._verified:
            return
        for entry in self.component(component).files:
            self._check_size(entry)
            if sha256_of(self.path / entry.path, progress) != entry.sha256:
                raise BundleCorruptError(
                    f"{self.path / entry.path} differs from the hash in {MANIFEST_NAME}: the file was damaged or "
                    "changed; export the bundle again."
                )
        self._verified.add(component)

    def _check_size(self, entry: FileEntry) -> None:
        file = self.path / entry.path
        try:
            size = file.stat().st_size
        except OSError:
            raise BundleCorruptError(
                f"{file} is missing from the bundle; copy the whole folder or export it again."
            ) from None
        if size != entry.bytes:
            raise BundleCorruptError(
                f"{file} has {size} bytes where {MANIFEST_NAME} says {entry.bytes}: the file was truncated or changed; "
                "copy it again or export the bundle again."
            )


def read_manifest(path: Path) -> Manifest:
    """Reads the manifest in a bundle's folder without checking its files; errors as in `Bundle`."""
    file = path / MANIFEST_NAME
    if not path.is_dir():
        raise BundleNotFoundError(
            f"{path} is not a bundle: expected a folder with a {MANIFEST_NAME}, as `amodal export -o {path}` makes it."
        )
    if not file.is_file():
        raise BundleNotFoundError(
            f"{path} is not a finished bundle: it has no {MANIFEST_NAME}; run `amodal export -o` into a fresh folder."
        )
    try:
        document = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BundleCorruptError(f"{file} cannot be read ({error}); export the bundle again.") from error
    version = document.get("schema_version") if isinstance(document, dict) else None
    if not isinstance(version, int):
        raise BundleCorruptError(f"{file} has no schema_version; export the bundle again.")
    if version > SCHEMA_VERSION:
        raise BundleVersionError(
            f"{file} has schema version {version}, this amodal reads up to {SCHEMA_VERSION}; update amodal "
            "(pip install -U amodal) or export the bundle again."
        )
    try:
        return Manifest.model_validate_json(json.dumps(lift(document) if version < SCHEMA_VERSION else document))
    except (KeyError, TypeError, AttributeError) as error:
        raise BundleCorruptError(f"{file}: {error} is missing or wrong; export the bundle again.") from error
    except ValidationError as error:
        raise BundleCorruptError(f"{file}: {first_fault(error)}; export the bundle again.") from error


def first_fault(error: ValueError) -> str:
    """Describes the first fault that validating a manifest found, and where it is."""
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"]) or "tasks"
    return f"{where}: {first['msg']}"
