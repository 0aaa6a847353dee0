"""Loading and keeping components, on a backend that only keeps a log of what it is asked to do."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from amodal.runtime.errors import BackendError, BundleCorruptError, InputError
from amodal.runtime.execution import components as module_under_test
from amodal.runtime.execution.components import Components
from amodal.runtime.execution.session import components_of
from amodal.runtime.families import Bundle

# Keys of a bundle and the kinds behind them: both stages may share a kind, each with a component of its own.
KINDS = {"segment_unet": "unet", "complete_unet": "unet", "vae_decoder": "vae_decoder"}


class Log(list[tuple[Any, ...]]):
    """What a backend was asked to do, in order."""

    def of(self, action: str) -> list[tuple[Any, ...]]:
        return [entry[1:] for entry in self if entry[0] == action]


class Executable:
    def __init__(self, key: str, lanes: int, log: Log) -> None:
        self.key, self.lanes, self.log = key, lanes, log

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        self.log.append(("call", self.key))
        return {"out": inputs["x"] + 1}

    def map(self, batches: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        self.log.append(("map", self.key, len(batches)))
        return [{"out": inputs["x"] + 1} for inputs in batches]

    def close(self) -> None:
        self.log.append(("close", self.key, self.lanes))


class FakeBackend:
    def __init__(self, lanes: int = 4, broken: str = "") -> None:
        self.lanes, self.broken, self.log = lanes, broken, Log()

    def load(self, entry: Any, files: list[Path], lanes: int = 1) -> Executable:
        if entry.key == self.broken:
            raise BackendError(f"{entry.key} cannot be loaded.")
        self.log.append(("load", entry.key, files, lanes))
        return Executable(entry.key, lanes, self.log)


class FakeBundle:
    """A bundle, or another source of files, that notes which components were verified."""

    def __init__(self, folder: str = "graphs") -> None:
        self.folder = folder
        self.verified: list[str] = []

    def component(self, key: str) -> Any:
        return SimpleNamespace(key=key, kind=KINDS[key], bytes=1)

    def files(self, key: str) -> list[Path]:
        return [Path(self.folder) / key]

    def verify(self, key: str) -> None:
        self.verified.append(key)


def make(backend: FakeBackend, bundle: Any = None, memory: Any = "resident", **options: Any) -> Components:
    return Components(bundle or FakeBundle(), backend, memory, **options)  # type: ignore[arg-type]


@pytest.fixture
def backend() -> FakeBackend:
    return FakeBackend()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that goes on by a second whenever it is read."""
    seconds = iter(range(1000))
    monkeypatch.setattr(module_under_test, "time", SimpleNamespace(perf_counter=lambda: float(next(seconds))))


def test_resident_components_are_loaded_once_and_closed_with_the_model(backend: FakeBackend) -> None:
    with make(backend) as components:
        for _ in range(3):
            for key in KINDS:
                with components.use(key) as component:
                    assert component({"x": 1}) == {"out": 2}
        assert [key for key, *_ in backend.log.of("load")] == list(KINDS)
        assert backend.log.of("close") == []
    assert sorted(backend.log.of("close")) == sorted((key, 1) for key in KINDS)
    components.close()
    assert len(backend.log.of("close")) == len(KINDS), "closing again does nothing"


def test_sequential_components_are_never_loaded_side_by_side(backend: FakeBackend) -> None:
    with make(backend, memory="sequential") as components:
        for key in (*KINDS, *KINDS):
            with components.use(key) as component:
                component({"x": 1})
    per_use = [action for action, *_ in backend.log]
    assert per_use == ["load", "call", "close"] * 2 * len(KINDS)


@pytest.mark.parametrize(("memory", "closed"), [("resident", []), ("sequential", [("segment_unet", 1)])])
def test_a_component_whose_user_fails_stays_only_in_resident_memory(
    memory: str, closed: list[Any], backend: FakeBackend
) -> None:
    components = make(backend, memory=memory)
    with pytest.raises(ZeroDivisionError), components.use("segment_unet"):
        raise ZeroDivisionError
    assert backend.log.of("close") == closed


@pytest.mark.parametrize(("calls", "lanes"), [(1, 1), (3, 3), (9, 4)])
def test_there_are_as_many_lanes_as_calls_up_to_those_of_the_backend(
    calls: int, lanes: int, backend: FakeBackend
) -> None:
    with make(backend) as components, components.use("segment_unet", calls) as component:
        assert [entry["out"] for entry in component.map([{"x": x} for x in range(calls)])] == [*range(1, calls + 1)]
    assert backend.log.of("load") == [("segment_unet", [Path("graphs/segment_unet")], lanes)]
    assert backend.log.of("map") == [("segment_unet", calls)]


def test_sequential_memory_has_one_lane(backend: FakeBackend) -> None:
    components = make(backend, memory="sequential")
    assert (components.lanes, make(backend).lanes) == (1, 4)
    with components.use("segment_unet", 4):
        pass
    assert [lanes for *_, lanes in backend.log.of("load")] == [1]


def test_another_number_of_lanes_replaces_what_was_loaded(backend: FakeBackend) -> None:
    with make(backend) as components:
        for key, calls in (("complete_unet", 2), ("segment_unet", 1), ("segment_unet", 2), ("segment_unet", 8)):
            with components.use(key, calls):
                pass
        done = [(entry[0], entry[1], entry[-1]) for entry in backend.log]
    assert done == [
        ("load", "complete_unet", 2),
        ("load", "segment_unet", 1),
        ("close", "segment_unet", 1),  # before the next one is loaded, and no other component with it
        ("load", "segment_unet", 2),
        ("close", "segment_unet", 2),
        ("load", "segment_unet", 4),
    ]


def test_a_closed_model_loads_nothing(backend: FakeBackend) -> None:
    components = make(backend)
    components.close()
    with pytest.raises(BackendError, match="was closed"), components.use("segment_unet"):
        pass
    assert backend.log == []


def test_what_cannot_be_loaded_leaves_the_others_usable() -> None:
    backend = FakeBackend(broken="segment_unet")
    with make(backend) as components:
        with pytest.raises(BackendError, match="segment_unet cannot be loaded"), components.use("segment_unet"):
            pass
        with components.use("complete_unet") as component:
            assert component({"x": 0}) == {"out": 1}
    assert backend.log.of("close") == [("complete_unet", 1)]


@pytest.mark.usefixtures("clock")
def test_time_is_added_up_by_kind_and_loading_apart(backend: FakeBackend) -> None:
    with make(backend) as components:
        for key in ("segment_unet", "complete_unet"):
            with components.use(key) as component:
                component({"x": 1})
                component.map([{"x": 1}, {"x": 2}])
        assert components.timings == {"load": 2.0, "unet": 4.0}
        components.start_timing()
        assert components.timings == {}
        with components.use("segment_unet") as component:
            component({"x": 1})
        assert components.timings == {"unet": 1.0}


def test_timings_that_were_handed_out_do_not_change(backend: FakeBackend) -> None:
    with make(backend) as components:
        with components.use("segment_unet"):
            pass
        kept = components.timings
        components.start_timing()
        with components.use("vae_decoder"):
            pass
    assert set(kept) == {"load"}
    assert kept is not components.timings


@pytest.mark.parametrize("memory", ["resident", "sequential"])
def test_files_are_verified_whenever_they_are_loaded(memory: str, backend: FakeBackend) -> None:
    bundle = FakeBundle()
    with make(backend, bundle, memory) as components:
        for _ in range(2):
            with components.use("segment_unet"):
                pass
    assert bundle.verified == ["segment_unet"] * len(backend.log.of("load"))


def test_nothing_is_verified_where_that_is_not_wanted(backend: FakeBackend) -> None:
    bundle = FakeBundle()
    with make(backend, bundle, verify=False) as components, components.use("segment_unet"):
        pass
    assert bundle.verified == []


def test_a_build_is_verified_and_loaded_instead_of_the_graphs(backend: FakeBackend) -> None:
    bundle, build = FakeBundle(), FakeBundle("engines")
    with make(backend, bundle, source=build) as components, components.use("segment_unet"):
        pass
    assert (bundle.verified, build.verified) == ([], ["segment_unet"])
    assert backend.log.of("load") == [("segment_unet", [Path("engines/segment_unet")], 1)]


def test_a_watcher_hears_of_each_thing_as_it_begins(backend: FakeBackend) -> None:
    seen: list[tuple[str, str]] = []
    with make(backend, progress=lambda kind, phase="", *_: seen.append((kind, phase))) as components:
        for _ in range(2):
            with components.use("segment_unet"):
                pass
    assert seen == [("unet", "check"), ("unet", "load"), ("unet", "run"), ("unet", "run")]


def test_an_unknown_way_to_use_memory_is_refused(backend: FakeBackend) -> None:
    with pytest.raises(InputError, match=r"memory 'ample' is unknown; expected resident or sequential\."):
        make(backend, memory="ample")


def test_a_changed_file_is_refused_before_the_backend_sees_it(
    toy_bundle: Path, tmp_path: Path, backend: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a real bundle: the hash check is the bundle's own."""
    bundle = Bundle(shutil.copytree(toy_bundle, tmp_path / "bundle"))
    key = next(iter(bundle.manifest.components))
    file = bundle.files(key)[0]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    loads: list[Any] = []
    monkeypatch.setattr(backend, "load", lambda *given: loads.append(given) or Executable(key, 1, backend.log))
    with make(backend, bundle) as components:
        with pytest.raises(BundleCorruptError, match=file.name), components.use(key):
            pass
        assert loads == []
    with make(backend, bundle, verify=False) as components, components.use(key):
        assert len(loads) == 1


def test_a_stage_names_its_components_and_a_missing_one_is_refused() -> None:
    bundle: Any = SimpleNamespace(
        path="toy",
        manifest=SimpleNamespace(tasks={"segment": SimpleNamespace(components={"unet": "segment_unet"})}),
    )
    assert components_of(bundle, "segment") == {"unet": "segment_unet"}
    with pytest.raises(InputError, match="bundle toy has no complete stage"):
        components_of(bundle, "complete")
