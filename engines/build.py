"""Builds the missing or unusable engines of a bundle, each in a separate process."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from amodal.runtime.builds.store import (
    RECORD_VERSION,
    EngineBackend,
    EngineKey,
    EngineRecord,
    EngineStore,
    engine_folder,
    graph_hash,
)
from amodal.runtime.bundle.manifest import FileEntry
from amodal.runtime.diagnosis import gpus
from amodal.runtime.errors import (
    AmodalError,
    EngineBuildError,
    EngineCorruptError,
    EngineError,
    EngineNotFoundError,
    InputError,
    OutputError,
)
from amodal.runtime.families import Bundle
from amodal.runtime.paths import PathLike
from amodal.runtime.progress import Progress, silent

from .compilation import Library, compile_graph, describe
from .targets import BACKENDS, THIS, Target, parse_target

_LOCK = ".lock"


@dataclass(frozen=True)
class BuildSettings:
    """What to build.

    Attributes:
        backend: `tensorrt_rtx` or `tensorrt`.
        target: `portable`, `this`, or compute capabilities (`sm86,sm89`).
        components: keys or kinds; None for all.
        engine_dir: folder for engines; None for the default of `engine_folder`.
        rebuild: also build engines that could be kept.
    """

    backend: EngineBackend = "tensorrt_rtx"
    target: str = "portable"
    components: tuple[str, ...] | None = None
    engine_dir: PathLike | None = None
    rebuild: bool = False

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise InputError(
                f"backend {self.backend} builds no engines; expected one of {', '.join(BACKENDS)}.", field="backend"
            )


class Built(NamedTuple):
    """A component's engine, and the reason for its build: `new`, or the old engine's fault; None if it was kept."""

    record: EngineRecord
    file: Path
    reason: str | None


def target_of(settings: BuildSettings, library: Library) -> Target:
    """Returns the target to build for; `this` gets the GPU's compute capability in its name.

    Raises:
        InputError: the library does not know the target, or it needs a GPU and none, or not a definite one, is found.
    """
    target = parse_target(settings.target, settings.backend, library.capabilities)
    if target.capabilities:
        return target
    capability = _capability(settings.target)
    if capability is None:
        known = ", ".join(library.capabilities)
        fix = f"name what it is for ({known})" if known else 'build there, or with `backend="tensorrt_rtx"`'
        raise InputError(
            f'`target="{settings.target}"` needs the GPU it is for, and none is found here; {fix}.', field="target"
        )
    return Target(f"{THIS}-sm{capability.replace('.', '')}") if target.name == THIS else target


def _capability(target: str) -> str | None:
    """Returns the compute capability of the GPU that the compiler will use, CUDA's first; None without one.

    CUDA sees only the GPUs in CUDA_VISIBLE_DEVICES. Numbers there follow CUDA's order, by default the fastest first.
    `nvidia-smi` does not know that order, which matters where GPUs differ.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = [gpu["compute_cap"] for gpu in gpus()]
    first = None if visible is None else visible.split(",")[0].strip()
    if first in ("", "-1"):
        return None
    if first is None or len(set(found)) < 2:
        return found[0] if found else None
    if first.isdigit() and os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return found[int(first)] if int(first) < len(found) else None
    same = [gpu["compute_cap"] for gpu in gpus("uuid") if first.startswith("GPU-") and gpu["uuid"].startswith(first)]
    if len(same) != 1:
        raise InputError(
            f'`target="{target}"`: GPUs of several compute capabilities are here ({", ".join(found)}), and which of '
            f"them CUDA_VISIBLE_DEVICES={visible} means is not known; give the GPU's UUID there (`nvidia-smi -L`), or "
            "set CUDA_DEVICE_ORDER=PCI_BUS_ID beside its number."
        )
    return same[0]


def store_of(bundle: Bundle, settings: BuildSettings, library: Library, target: Target) -> EngineStore:
    """Returns the store of these engines."""
    return EngineStore(engine_folder(bundle.path, settings.engine_dir), settings.backend, library.version, target.name)


def key_of(bundle: Bundle, component: str, settings: BuildSettings, library: Library, target: Target) -> EngineKey:
    """Returns the key of a component's engine."""
    return EngineKey(
        component=component,
        graph=graph_hash(bundle, component),
        backend=settings.backend,
        version=library.version,
        target="+".join(target.capabilities) or target.name,
        precision=bundle.component(component).precision,
        profiles=bundle.family.profiles(bundle.manifest, component),
    )


def chosen_components(bundle: Bundle, wanted: tuple[str, ...] | None) -> list[str]:
    """Returns the keys of the components that are named by key or kind; None for all.

    Raises:
        InputError: the bundle has no such component.
    """
    entries = bundle.manifest.components
    if wanted is None:
        return list(entries)
    known = {*entries, *(entry.kind for entry in entries.values())}
    wrong = [name for name in wanted if name not in known]
    if wrong or not wanted:
        raise InputError(
            f"`components`: {', '.join(wrong) or 'nothing'} is not in {bundle.path}; expected {', '.join(entries)}."
        )
    return [key for key, entry in entries.items() if key in wanted or entry.kind in wanted]


def build_engines(bundle: Bundle, settings: BuildSettings, progress: Progress = silent) -> list[Built]:
    """Builds the engines that are missing, stale or damaged.

    Args:
        progress: called with a component and its phase: `check`, `read`, `compile`, `write`, or `kept`.

    Returns:
        One row per requested component.

    Raises:
        InputError: an unknown target or component.
        BackendUnavailableError: the library is not installed.
        BundleCorruptError: a graph differs from its hash.
        EngineBuildError: a graph is refused, memory runs out, the compiler crashes, or another build is running.
        OutputError: the folder cannot be written.
    """
    library = describe(settings.backend)
    target = target_of(settings, library)
    store = store_of(bundle, settings, library, target)
    keys = [key_of(bundle, name, settings, library, target) for name in chosen_components(bundle, settings.components)]
    found = [_look_up(store, key) for key in keys]
    kept = [record for record in found if isinstance(record, EngineRecord)]
    if len(kept) == len(keys) and not settings.rebuild:  # without a lock, as the folder may be read-only
        return [Built(record, store.engine_file(record), None) for record in kept]
    rows = []
    with _build_lock(store.folder):
        for key, before in zip(keys, found, strict=True):
            progress(key.component, "check")
            now = before
            if not isinstance(before, EngineCorruptError):
                # Another build may have ended in between. A valid engine is not hashed a second time.
                now = _look_up(store, key, verify=isinstance(before, EngineError))
            reason: str | None = "new" if isinstance(now, EngineNotFoundError) else str(now)
            if isinstance(now, EngineRecord):
                reason = "rebuild was requested" if settings.rebuild else None
            if isinstance(now, EngineRecord) and reason is None:
                progress(key.component, "kept")
                record = now
            else:
                bundle.verify(key.component)
                record = _build(bundle, store, key, target, progress)
            rows.append(Built(record, store.engine_file(record), reason))
    return rows


def _look_up(store: EngineStore, key: EngineKey, verify: bool = True) -> EngineRecord | EngineError:
    """Returns the record of an engine that can be kept, or the error that says why there is none."""
    try:
        return store.find(key, verify=verify)
    except EngineError as error:
        return error


def _build(bundle: Bundle, store: EngineStore, key: EngineKey, target: Target, progress: Progress) -> EngineRecord:
    part = store.folder / f"{key.component}.part-{os.getpid()}"
    try:
        graph, report = bundle.files(key.component)[0], partial(progress, key.component)
        made = compile_graph(graph, key.backend, target, key.profiles, part, report)._asdict()
        name = f"{key.component}-{key.short}.engine"
        file = FileEntry(path=name, bytes=made.pop("bytes"), sha256=made.pop("sha256"))
        record = EngineRecord(record_version=RECORD_VERSION, key=key, file=file, **made)
        store.write(record, part)
    except OSError as error:
        raise _unwritable(store.folder, error) from error
    finally:
        part.unlink(missing_ok=True)
    return record


@contextmanager
def _build_lock(folder: Path) -> Iterator[None]:
    """Creates the folder, locks it against a second build, and removes leftovers of a killed one."""
    created = [place for place in (folder, *folder.parents) if not place.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / _LOCK, timeout=0)
        lock.acquire()
    except Timeout:
        raise EngineBuildError(
            f"another build is writing to {folder}; wait until it has ended, or give another folder for `engine_dir`."
        ) from None
    except OSError as error:
        raise _unwritable(folder, error) from error
    try:
        for left in folder.glob("*.part*"):
            with suppress(OSError):
                left.unlink()
        yield
    finally:
        if not any(folder.glob("*.json")):
            (folder / _LOCK).unlink(missing_ok=True)
        lock.release()
        with suppress(OSError):  # stops at the first that is not empty
            for place in created:
                place.rmdir()


def _unwritable(folder: Path, error: OSError) -> AmodalError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = "the disk is full" if full else (error.strerror or str(error)).lower()
    fix = f"{'make room, or ' if full else ''}give another folder for `engine_dir`"
    return OutputError(f"engines cannot be written to {folder}, {reason}; {fix}.")
