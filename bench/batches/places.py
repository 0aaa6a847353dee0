"""Where results lie: a folder of this machine, or anything that fsspec reaches, such as `s3://bucket/results`."""

from __future__ import annotations

import os
import tempfile
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from amodal.runtime.errors import InputError, MissingDependencyError, OutputError, first_line
from amodal.runtime.paths import PathLike

_STORES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs", "hf": "huggingface_hub"}


class Place(ABC):
    """A folder of files. Names are relative, with `/` between the parts."""

    def __init__(self, path: str) -> None:
        self.path = path

    @abstractmethod
    def read(self, name: str) -> bytes | None:
        """Returns a file's content, None if there is no such file."""

    @abstractmethod
    def write(self, name: str, content: bytes) -> None:
        """Writes a file completely or not at all, and creates its folder. Raises OutputError."""

    @abstractmethod
    def create(self, name: str, content: bytes) -> bool:
        """Writes a file if there is none; returns whether there was none. Raises OutputError."""

    @abstractmethod
    def names(self, folder: str) -> list[str]:
        """Returns the names of what lies in a folder, in any order; none if it is missing."""

    @abstractmethod
    def folder(self, name: str, marker: str) -> Any:
        """Yields a local path to create as a folder; at the end it is at `name`, its file `marker` last."""


class LocalPlace(Place):
    """A folder of this machine."""

    def _file(self, name: str) -> Path:
        return Path(self.path, name)

    def read(self, name: str) -> bytes | None:
        """See `Place`."""
        try:
            return self._file(name).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, name: str, content: bytes) -> None:
        """See `Place`."""
        file = self._file(name)
        part = _part_of(file)
        with _explained(str(file)):
            try:
                _write_new(part, content)
                os.replace(part, file)
            finally:
                part.unlink(missing_ok=True)

    def create(self, name: str, content: bytes) -> bool:
        """See `Place`."""
        file = self._file(name)
        part = _part_of(file)
        with _explained(str(file)):
            try:
                _write_new(part, content)
                os.link(part, file)
            except FileExistsError:
                return False
            finally:
                part.unlink(missing_ok=True)
        return True

    def names(self, folder: str) -> list[str]:
        """See `Place`."""
        try:
            return [name for name in os.listdir(self._file(folder)) if not name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return []

    @contextmanager
    def folder(self, name: str, marker: str) -> Iterator[Path]:
        """See `Place`; what creates the folder must do so whole or not at all."""
        yield self._file(name)


class RemotePlace(Place):
    """A folder that fsspec reaches. A file of an object store appears whole."""

    def __init__(self, path: str) -> None:
        super().__init__(path.rstrip("/"))
        self._files, self._root = _file_system(self.path)

    def read(self, name: str) -> bytes | None:
        """See `Place`."""
        try:
            return bytes(self._files.cat_file(f"{self._root}/{name}"))
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        """See `Place`."""
        path = f"{self._root}/{name}"
        with _explained(f"{self.path}/{name}"):
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            self._files.pipe_file(path, content)

    def create(self, name: str, content: bytes) -> bool:
        """See `Place`; two machines at the same moment may both be told that there was none."""
        if self.read(name) is not None:
            return False
        self.write(name, content)
        return True

    def names(self, folder: str) -> list[str]:
        """See `Place`."""
        self._files.invalidate_cache()
        try:
            listed = self._files.ls(f"{self._root}/{folder}", detail=False)
        except FileNotFoundError:
            return []
        return [str(path).rstrip("/").rpartition("/")[2] for path in listed]

    @contextmanager
    def folder(self, name: str, marker: str) -> Iterator[Path]:
        """See `Place`."""
        with tempfile.TemporaryDirectory(prefix="amodal-batch-") as scratch:
            local = Path(scratch, name.rpartition("/")[2])
            yield local
            files = sorted(path for path in local.rglob("*") if path.is_file() and path != local / marker)
            for file in [*files, local / marker]:
                self.write(f"{name}/{file.relative_to(local).as_posix()}", file.read_bytes())


def open_place(path: PathLike) -> Place:
    """Returns the place of a path or an address; nothing is created.

    Raises:
        InputError: the address cannot be used.
        MissingDependencyError: the library for addresses of this kind is not installed.
    """
    text = os.fspath(path)
    protocol, colon, rest = text.partition("://")
    if not colon:
        return LocalPlace(text)
    return LocalPlace(rest) if protocol in ("file", "local") else RemotePlace(text)


def _file_system(path: str) -> tuple[Any, str]:
    protocol = path.partition("://")[0]
    try:
        import fsspec
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} is an address, which needs fsspec; run `pip install fsspec`, or give a folder.", field="out"
        ) from error
    try:
        files, root = fsspec.core.url_to_fs(path)
    except ImportError as error:
        library = _STORES.get(protocol.partition("+")[0], f"fsspec's library for {protocol}")
        raise MissingDependencyError(
            f"{path} needs {library}, which is not installed; run `pip install {_STORES.get(protocol, 'it')}`, or give "
            "another place.",
            field="out",
        ) from error
    except ValueError as error:
        raise InputError(
            f"{path} cannot be used ({first_line(error)}); expected a folder or an address that fsspec knows, such as "
            "s3://bucket/results.",
            field="out",
        ) from error
    return files, str(root)


def _part_of(file: Path) -> Path:
    return file.with_name(f".{file.name[:100]}.{os.getpid()}-{uuid.uuid4().hex[:8]}")


def _write_new(part: Path, content: bytes) -> None:
    try:
        part.write_bytes(content)
    except FileNotFoundError:
        part.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)


@contextmanager
def _explained(what: str) -> Iterator[None]:
    try:
        yield
    except FileExistsError:
        raise
    except Exception as error:
        with suppress(TypeError):
            if isinstance(error, OSError) and error.strerror:
                raise OutputError(
                    f"{what} cannot be written ({error.strerror}); free some space or give another place for `out`."
                ) from error
        raise OutputError(
            f"{what} cannot be written ({first_line(error)}); check the place and its permissions."
        ) from error
