"""Finds the build of a bundle's engines that can be used."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..bundle.reading import Bundle, packaged_name
from ..errors import EngineCorruptError, EngineError, EngineNotFoundError, EngineStaleError
from .store import EngineRecord, Profile, check_engine, engine_folder, graph_hash, read_record

Profiles = Mapping[str, tuple[Profile, ...]]


@dataclass(frozen=True)
class EngineBuild:
    """Engines that were built for one backend, version and target.

    Attributes:
        folder: `<backend>-<version>-<target>`.
        records: by component.
    """

    folder: Path
    records: dict[str, EngineRecord]
    _verified: set[str] = field(default_factory=set, repr=False, compare=False)

    @property
    def version(self) -> str:
        """Version of the library that built them."""
        return self.folder.name.split("-", 2)[1]

    @property
    def target(self) -> str:
        """What they were built for."""
        return _target(self.folder)

    def files(self, component: str) -> list[Path]:
        """Returns a component's engine as a list of one file; errors as in `read_record` and `check_engine`."""
        return [self._check(component, verify=False)]

    def verify(self, component: str) -> None:
        """Compares a component's engine with the hash in its record, once; errors as in `files`."""
        if component not in self._verified:
            self._check(component, verify=True)
            self._verified.add(component)

    def _check(self, component: str, *, verify: bool) -> Path:
        record = self.records.get(component) or read_record(self.folder / f"{component}.json")
        file = self.folder / record.file.path
        check_engine(file, record, verify=verify)
        return file


def find_build(
    bundle: Bundle,
    folder: Path,
    backend: str,
    profiles: Profiles,
    target: str | None = None,
    version: str | None = None,
) -> EngineBuild:
    """Finds the latest build that has engines of all components, made from the bundle's present graphs.

    Args:
        folder: the bundle's engines (`engine_folder`).
        profiles: shapes that each component's engine must accept, by key.
        target: what it must run on (`sm86`, `portable`, `this`); None for any. A build for exactly this target is
            preferred to one that covers it.
        version: of the library that built it; None for any.

    Raises:
        EngineNotFoundError: there is no build.
        EngineStaleError, EngineCorruptError, EngineNotFoundError: no build can be used; the reason is the latest's.
    """
    places = [place for place in folder.glob(f"{backend}-*-*") if any(place.glob("*.json"))]
    places.sort(key=lambda place: max(file.stat().st_mtime for file in place.glob("*.json")), reverse=True)
    if version is not None:
        places = [place for place in places if place.name.split("-", 2)[1] == version]
    matching = [(match, place) for place in places if (match := _match(place, target))]
    first: EngineError | None = None
    for _, place in sorted(matching, key=lambda found: found[0], reverse=True):  # stable: the newest stay first
        try:
            return _read(bundle, place, profiles)
        except (EngineNotFoundError, EngineStaleError, EngineCorruptError) as error:
            first = first or error
    if first is not None:
        raise first
    others = f", only for {', '.join(sorted(map(_target, places)))}" if places else ""
    wanted = f" for {target}" if target else ""
    rtx = backend == "tensorrt_rtx"
    where = "which needs no GPU" if rtx else "on the machine with the GPU"
    command = ["amodal build", bundle_name(bundle), *(() if rtx else ("--backend", backend))]
    command += ["--target", target or ("sm86" if rtx else "this")]
    if folder != engine_folder(bundle.path):
        command += ["--engine-dir", str(folder)]
    raise EngineNotFoundError(
        f"{folder} holds no engines of {backend}{wanted}{others}; run `{' '.join(command)}` first, {where}."
    )


def bundle_name(bundle: Bundle) -> str:
    """Returns a bundle's name on the command line."""
    return packaged_name(bundle.path) or str(bundle.path)


def _read(bundle: Bundle, place: Path, profiles: Profiles) -> EngineBuild:
    build = EngineBuild(place, {key: read_record(place / f"{key}.json") for key in profiles})
    for key, record in build.records.items():
        required = {  # the target is the builder's choice
            "component": key,
            "graph": graph_hash(bundle, key),
            "version": build.version,
            "precision": bundle.component(key).precision,
            "profiles": profiles[key],
        }
        reason = record.key.difference(record.key.model_copy(update=required))
        if reason is not None:
            raise EngineStaleError(
                f"the engine of {key} in {place} is stale, {reason}; build it again with `amodal build`."
            )
    return build


def _target(place: Path) -> str:
    return place.name.split("-", 2)[2]


def _match(place: Path, wanted: str | None) -> int:
    """Returns 2 if a build is for the wanted target, 1 if it covers it, 0 if neither."""
    has = _target(place)
    if wanted is None or wanted in (has, has.removeprefix("this-")):
        return 2
    names = {capability_name(name) for name in wanted.split(",")}
    if names == set(has.split("+")):
        return 2
    if wanted == "this":
        return int(has.startswith("this-"))
    for file in place.glob("*.json"):  # only records list the capabilities of `portable`
        try:
            record = read_record(file)
        except EngineError:
            continue
        return int(all(runs_on(record, name) for name in names))
    return 0


def runs_on(record: EngineRecord, capability: str) -> bool:
    """Returns whether an engine was built for GPUs of a compute capability (`sm86`)."""
    target = record.key.target
    if target == "portable":  # TensorRT's own: Ampere and newer
        return capability[2:].isdigit() and int(capability[2:]) >= 80
    return capability in target.removeprefix("this-").split("+")


def capability_name(text: str) -> str:
    """Normalises a compute capability: `86`, `SM_86` and ` sm86` become `sm86`."""
    name = text.strip().lower().replace("_", "")
    return f"sm{name}" if name.isdigit() else name
