"""Which builds of a bundle's engines lie in a folder, and which of them serves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ..bundle.reading import DEFAULT_BUNDLE, Bundle, find_bundle
from ..errors import EngineCorruptError, EngineError, EngineNotFoundError, EngineStaleError
from .store import EngineKey, EngineRecord, Profile, check_engine, engine_folder, graph_hash, read_record

Profiles = Mapping[str, tuple[Profile, ...]]


@dataclass(frozen=True)
class EngineBuild:
    """Engines that were built for one backend, version and target.

    Attributes:
        folder: `<backend>-<version>-<target>`.
        records: by component.
    """

    folder: Path
    version: str
    target: str
    records: dict[str, EngineRecord]
    _verified: set[str] = field(default_factory=set, repr=False, compare=False)

    def files(self, component: str) -> list[Path]:
        """A component's engine, alone.

        Raises:
            EngineNotFoundError: none was built.
            EngineCorruptError: it is missing, or of another size.
        """
        record = self._record(component)
        file = self.folder / record.file.path
        check_engine(file, record, verify=False)
        return [file]

    def verify(self, component: str) -> None:
        """Compares a component's engine with the hash in its record, once.

        Raises:
            EngineNotFoundError: none was built.
            EngineCorruptError: it is missing or damaged.
        """
        if component not in self._verified:
            record = self._record(component)
            check_engine(self.folder / record.file.path, record)
            self._verified.add(component)

    def _record(self, component: str) -> EngineRecord:
        try:
            return self.records[component]
        except KeyError:
            return read_record(self.folder / f"{component}.json")


def find_build(
    bundle: Bundle,
    folder: Path,
    backend: str,
    profiles: Profiles,
    target: str | None = None,
    version: str | None = None,
) -> EngineBuild:
    """The build of a backend that holds records of all components, made from the bundle's present graphs.

    Args:
        folder: the bundle's engines (`engine_folder`).
        profiles: what each component's engine must accept, by key.
        version: of the library that built it; None for any.
        target: what it must run on (`sm86`, `portable`, `this`); None for any. The target of that very name is taken
            before one that covers it.

    Returns:
        The one that was written last.

    Raises:
        EngineNotFoundError: none was built.
        EngineStaleError, EngineCorruptError, EngineNotFoundError: there are some, and none can be used; says what is
            the matter with the one that was written last.
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
    """How a bundle is named on the command line."""
    return DEFAULT_BUNDLE if bundle.path == find_bundle(DEFAULT_BUNDLE) else str(bundle.path)


def _read(bundle: Bundle, place: Path, profiles: Profiles) -> EngineBuild:
    version = place.name.split("-", 2)[1]
    records = {key: read_record(place / f"{key}.json") for key in profiles}
    for key, record in records.items():
        reason = record.key.difference(_wanted(bundle, record.key, key, profiles[key], version))
        if reason is not None:
            raise EngineStaleError(
                f"the engine of {key} in {place} is stale, {reason}; build it again with `amodal build`."
            )
    return EngineBuild(place, version, _target(place), records)


def _wanted(bundle: Bundle, key: EngineKey, component: str, profiles: tuple[Profile, ...], version: str) -> EngineKey:
    """What a key must be to serve the bundle as it is now; target and options are the builder's to choose."""
    return key.model_copy(
        update={
            "component": component,
            "graph": graph_hash(bundle, component),
            "version": version,
            "precision": bundle.component(component).precision,
            "profiles": profiles,
        }
    )


def _target(place: Path) -> str:
    return place.name.split("-", 2)[2]


def _match(place: Path, wanted: str | None) -> int:
    """2 if a build is for the target that is wanted, 1 if it covers it, 0 if it does not."""
    has = _target(place)
    if wanted is None or wanted in (has, has.removeprefix("this-")):
        return 2
    names = {_plain(name) for name in wanted.split(",")}
    if names == set(has.split("+")):
        return 2
    if wanted == "this":
        return int(has.startswith("this-"))
    for file in place.glob("*.json"):  # `portable` is the folder's name alone: a record lists what it runs on
        try:
            record = read_record(file)
        except EngineError:
            continue
        return int(all(runs_on(record, name) for name in names))
    return 0


def runs_on(record: EngineRecord, capability: str) -> bool:
    """Whether an engine was built for GPUs of a compute capability (`sm86`)."""
    target = record.key.target
    if target == "portable":  # TensorRT's own: Ampere and newer
        return capability[2:].isdigit() and int(capability[2:]) >= 80
    return capability in target.removeprefix("this-").split("+")


def _plain(name: str) -> str:
    name = name.strip().lower().replace("_", "")
    return f"sm{name}" if name.isdigit() else name
