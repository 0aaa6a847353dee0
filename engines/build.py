"""Builds a bundle's engines: keeps what is there and right, builds the rest, each in a process of its own."""

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
        weight_streaming: let the runtime keep part of the weights in host memory.
        engine_dir: where engines go; None for `engine_folder`'s choice.
        rebuild: build even what is there and right.
    """

    backend: EngineBackend = "tensorrt_rtx"
    target: str = "portable"
    components: tuple[str, ...] | None = None
    weight_streaming: bool = False
    engine_dir: PathLike | None = None
    rebuild: bool = False

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise InputError(
                f"backend {self.backend} builds no engines; expected one of {', '.join(BACKENDS)}.", field="backend"
            )


class Built(NamedTuple):
    """One component: its record, and why it was built (`new`, or what was wrong with the old one); None if kept."""

    record: EngineRecord
    file: Path
    reason: str | None


def target_of(settings: BuildSettings, library: Library) -> Target:
    """The target to build for; `this` gets the name of the GPU's compute capability.

    Raises:
        InputError: the library does not know it, or there is no GPU where one is needed, or none that can be told
            from others.
    """
    target = parse_target(settings.target, settings.backend, library.capabilities)
    if not target.needs_gpu:
        return target
    capability = _capability(settings.target)
    if capability is None:
        known = ", ".join(library.capabilities)
        mend = f"name what it is for ({known})" if known else 'build there, or with `backend="tensorrt_rtx"`'
        raise InputError(
            f'`target="{settings.target}"` needs the GPU it is for, and none is found here; {mend}.', field="target"
        )
    return Target(f"{THIS}-sm{capability.replace('.', '')}") if target.name == THIS else target


def _capability(target: str) -> str | None:
    """Of the GPU that the compiler will use: CUDA's first; None without one.

    What is not in CUDA_VISIBLE_DEVICES CUDA does not see. Its numbers count GPUs in CUDA's order, the fastest first,
    unless CUDA_DEVICE_ORDER says otherwise: `nvidia-smi` does not know that order, which matters where GPUs differ.

    Raises:
        InputError: GPUs differ, and which one is meant is not to be found out.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    found = [gpu["compute_cap"] for gpu in gpus()]
    if visible is None:
        return found[0] if found else None
    first = visible.split(",")[0].strip()
    if first in ("", "-1"):
        return None
    if len(set(found)) < 2:
        return found[0] if found else None
    if first.isdigit() and os.environ.get("CUDA_DEVICE_ORDER") == "PCI_BUS_ID":
        return found[int(first)] if int(first) < len(found) else None
    of_id = [gpu["compute_cap"] for gpu in gpus("uuid") if first.startswith("GPU-") and gpu["uuid"].startswith(first)]
    if len(of_id) != 1:
        raise InputError(
            f'`target="{target}"`: GPUs of several compute capabilities are here ({", ".join(found)}), and which of '
            f"them CUDA_VISIBLE_DEVICES={visible} means is not known; give the GPU's UUID there (`nvidia-smi -L`), or "
            "set CUDA_DEVICE_ORDER=PCI_BUS_ID beside its number."
        )
    return of_id[0]


def store_of(bundle: Bundle, settings: BuildSettings, library: Library, target: Target) -> EngineStore:
    """Where these engines lie."""
    return EngineStore(engine_folder(bundle.path, settings.engine_dir), settings.backend, library.version, target.name)


def key_of(bundle: Bundle, component: str, settings: BuildSettings, library: Library, target: Target) -> EngineKey:
    """The key of a component's engine."""
    return EngineKey(
        component=component,
        graph=graph_hash(bundle, component),
        backend=settings.backend,
        version=library.version,
        target="+".join(target.capabilities) or target.name,
        precision=bundle.component(component).precision,
        profiles=bundle.family.profiles(bundle.manifest, component),
        options={"weight_streaming": settings.weight_streaming},
    )


def chosen_components(bundle: Bundle, wanted: tuple[str, ...] | None) -> list[str]:
    """Keys of the components asked for by key or kind.

    Raises:
        InputError: one that the bundle does not have.
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
        progress: called with a component and what is done with it: `check`, `read`, `compile`, `write`, or `kept`.

    Returns:
        One row per component asked for.

    Raises:
        InputError: a target or component that is not known.
        BackendUnavailableError: the library is not installed.
        BundleCorruptError: a graph differs from its hash.
        EngineBuildError: a graph is refused, memory runs out, the compiler crashes, or another build is at it.
        OutputError: the folder cannot be written.
    """
    library = describe(settings.backend)
    target = target_of(settings, library)
    store = store_of(bundle, settings, library, target)
    keys = [key_of(bundle, name, settings, library, target) for name in chosen_components(bundle, settings.components)]
    found = [_look_up(store, key) for key in keys]
    kept = [record for record in found if isinstance(record, EngineRecord)]
    if len(kept) == len(keys) and not settings.rebuild:  # nothing to write: a read-only folder will do
        return [Built(record, store.engine_file(record), None) for record in kept]
    rows = []
    with _build_lock(store.folder):
        for key, before in zip(keys, found, strict=True):
            progress(key.component, "check")
            now = before
            if not isinstance(before, EngineCorruptError):
                # Another build may have ended in between. An engine that was there is not hashed a second time.
                now = _look_up(store, key, verify=isinstance(before, EngineError))
            if isinstance(now, EngineRecord) and not settings.rebuild:
                progress(key.component, "kept")
                rows.append(Built(now, store.engine_file(now), None))
                continue
            bundle.verify(key.component)
            record = _build(bundle, store, key, target, progress)
            rows.append(Built(record, store.engine_file(record), _reason(now)))
    return rows


def _look_up(store: EngineStore, key: EngineKey, verify: bool = True) -> EngineRecord | EngineError:
    """The record of an engine that can be kept, or why there is none."""
    try:
        return store.find(key, verify=verify)
    except EngineError as error:
        return error


def _reason(found: EngineRecord | EngineError) -> str:
    """Why an engine is built although this was found."""
    if isinstance(found, EngineNotFoundError):
        return "new"
    return str(found) if isinstance(found, EngineError) else "rebuild was asked for"


def _build(bundle: Bundle, store: EngineStore, key: EngineKey, target: Target, progress: Progress) -> EngineRecord:
    part = store.folder / f"{key.component}.part-{os.getpid()}"
    try:
        made = compile_graph(
            bundle.files(key.component)[0],
            key.backend,
            target,
            key.profiles,
            key.options,
            part,
            partial(progress, key.component),
        )
        record = EngineRecord(
            record_version=RECORD_VERSION,
            key=key,
            file=FileEntry(path=f"{key.component}-{key.short}.engine", bytes=made.bytes, sha256=made.sha256),
            weights_bytes=made.weights_bytes,
            activation_bytes=made.activation_bytes,
            layers=made.layers,
            seconds=made.seconds,
            peak_bytes=made.peak_bytes,
        )
        store.write(record, part)
    except OSError as error:
        raise _unwritable(store.folder, error) from error
    finally:
        part.unlink(missing_ok=True)
    return record


@contextmanager
def _build_lock(folder: Path) -> Iterator[None]:
    """Makes the folder, locks it against a second build, and removes what a killed one left."""
    made = [place for place in (folder, *folder.parents) if not place.exists()]
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
        for place in made:
            try:
                place.rmdir()  # only those that stayed empty
            except OSError:
                break


def _unwritable(folder: Path, error: OSError) -> AmodalError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    reason = "the disk is full" if full else (error.strerror or str(error)).lower()
    mend = "make room, or give another folder for `engine_dir`" if full else "give another folder for `engine_dir`"
    return OutputError(f"engines cannot be written to {folder}, {reason}; {mend}.")
