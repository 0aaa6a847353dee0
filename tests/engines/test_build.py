"""Building engines: with a stand-in for the compiler, whatever can go wrong; with TensorRT for RTX, the real thing."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from amodal.engines import build
from amodal.engines.build import BuildSettings, build_engines
from amodal.engines.compilation import Library, describe
from amodal.engines.targets import parse_target
from amodal.engines.verification import VerifySettings
from amodal.engines.verify import verify_bundle
from amodal.runtime.builds import store
from amodal.runtime.builds.store import RECORD_VERSION, EngineRecord, EngineStore, Profile, engine_folder
from amodal.runtime.bundle import reading
from amodal.runtime.errors import (
    BackendUnavailableError,
    EngineBuildError,
    EngineCorruptError,
    EngineNotFoundError,
    EngineStaleError,
    InputError,
    OutputError,
)
from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.family import FAMILY

from ..stand_ins import StandIn

FORMER = (Profile(name="frames<=2", shapes={"latents": ((1, 4, 8, 8), (2, 4, 8, 8), (2, 4, 8, 8))}),)
RTX = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")


@pytest.fixture
def bundle(toy_bundle: Path, tmp_path: Path) -> Bundle:
    """A copy of the toy bundle that a test may change."""
    shutil.copytree(toy_bundle, tmp_path / "bundle")
    return Bundle(tmp_path / "bundle")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> StandIn:
    return StandIn(monkeypatch, tmp_path / "calls", usual="plain")


def settings(**changes: Any) -> BuildSettings:
    return BuildSettings(**{"backend": "tensorrt", "target": "this", "components": ("vae_decoder",), **changes})


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# What is asked of the compiler


@pytest.mark.parametrize(("version", "flags"), [("10.13.2", 2), ("11.4.0", 0)])
def test_networks_are_strongly_typed_in_every_version(
    bundle: Bundle, stand_in: StandIn, version: str, flags: int
) -> None:
    stand_in.set(version)
    (row,) = build_engines(bundle, settings())
    assert ["create_network", flags] in stand_in.calls
    assert row.record.key.version == version


def test_a_unet_gets_a_profile_for_one_row_and_one_for_both(bundle: Bundle, stand_in: StandIn) -> None:
    (row,) = build_engines(bundle, settings(components=("segment_unet",)))
    shapes = [call[1] for call in stand_in.calls if call[0] == "profile"]
    assert [s["conditioning"][0][0] for s in shapes] == [1, 2]
    assert all(low == likely == high for s in shapes for low, likely, high in s.values())
    assert all("latents" not in s for s in shapes)  # of one shape always
    assert row.record.activation_bytes == {"rows=1": 1000, "rows=2": 2000}
    assert (row.record.weights_bytes, row.record.layers) == (77, (12, 2))


def test_portable_engines_are_asked_for(bundle: Bundle, stand_in: StandIn) -> None:
    build_engines(bundle, settings(target="portable"))
    assert ["set", "hardware_compatibility_level", 1] in stand_in.calls


def test_profiles_cover_what_the_runtime_asks_for(bundle: Bundle) -> None:
    manifest = bundle.manifest
    for key, entry in manifest.components.items():
        for profile in FAMILY.profiles(manifest, key):
            named = {t.name: t.shape for t in entry.inputs if any(isinstance(n, str) for n in t.shape)}
            assert set(profile.shapes) == set(named)
            for name, (low, likely, high) in profile.shapes.items():
                assert all(a <= b <= c for a, b, c in zip(low, likely, high, strict=True))
                fixed = [(n, x) for n, x in zip(named[name], high, strict=True) if isinstance(n, int)]
                assert all(n == x for n, x in fixed)


# Kept, stale, damaged


def test_a_second_build_keeps_what_is_there(bundle: Bundle, stand_in: StandIn) -> None:
    (first,) = build_engines(bundle, settings())
    calls = len(stand_in.calls)
    (second,) = build_engines(bundle, settings())
    assert (first.reason, second.reason) == ("new", None)
    assert len(stand_in.calls) == calls
    assert second.record == first.record


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that this process hashes, in order."""
    names: list[str] = []
    plain = reading.sha256_of

    def counted(file: Path, *more: Any) -> str:
        names.append(file.name)
        return plain(file, *more)

    for module in (reading, store):
        monkeypatch.setattr(module, "sha256_of", counted)
    return names


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1, 2])
def test_a_build_hashes_each_file_once(bundle: Bundle, stand_in: StandIn, hashed: list[str], lost: int) -> None:
    rows = build_engines(bundle, settings(components=("vae_encoder", "vae_decoder")))
    for row in rows[:lost]:
        row.file.with_name(f"{row.record.key.component}.json").unlink()
    again = Bundle(bundle.path)
    hashed.clear()
    reasons = [row.reason for row in build_engines(again, settings(components=("vae_encoder", "vae_decoder")))]
    assert reasons == ["new"] * lost + [None] * (2 - lost)
    graphs = [file.name for row in rows[:lost] for file in again.files(row.record.key.component)]
    assert sorted(hashed) == sorted([*(row.file.name for row in rows[lost:]), *graphs])


@pytest.mark.slow
def test_verifying_after_a_build_hashes_each_file_once(bundle: Bundle, stand_in: StandIn, hashed: list[str]) -> None:
    parts = ("vae_encoder", "vae_decoder")
    first, _ = build_engines(bundle, settings(components=parts))
    first.file.with_name("vae_encoder.json").unlink()
    hashed.clear()
    chosen = VerifySettings(backend="tensorrt", target="this", components=parts, build=True)
    assert [row.built for row in verify_bundle(Bundle(bundle.path), chosen).engines] == ["new", None]
    assert len(hashed) == len(set(hashed))


@pytest.mark.slow
@pytest.mark.parametrize("verified", [True, False])
def test_an_engine_that_changes_before_the_lock_is_seen(
    bundle: Bundle, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch, verified: bool
) -> None:
    """Between the look at what is there and the lock, another build ends: for other shapes, or for these."""
    parts = ("vae_encoder", "vae_decoder")
    rows = build_engines(bundle, settings(components=parts))
    record = rows[1].file.with_name("vae_decoder.json")
    mine = record.read_text()
    rows[0].file.with_name("vae_encoder.json").unlink()
    other = rows[1].record.model_copy(update={"key": rows[1].record.key.model_copy(update={"profiles": ()})})
    if verified:
        before, after = mine, other.model_dump_json()
    else:
        before, after = other.model_dump_json(), mine
    record.write_text(before)
    lock = build._build_lock

    def late(folder: Path) -> Any:
        record.write_text(after)
        return lock(folder)

    monkeypatch.setattr(build, "_build_lock", late)
    _, row = build_engines(bundle, settings(components=parts))
    assert (row.reason is not None) == verified
    assert row.record.key.profiles


def test_an_engine_for_other_shapes_is_built_anew_and_the_old_one_goes(
    bundle: Bundle, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(type(FAMILY), "profiles", staticmethod(lambda manifest, key: FORMER))
        (first,) = build_engines(bundle, settings())
    (second,) = build_engines(bundle, settings())
    assert second.reason is not None
    assert "other shapes" in second.reason
    assert second.file.exists()
    assert not first.file.exists()


@pytest.mark.parametrize("damage", ["truncated", "altered", "missing", "record"])
def test_a_damaged_engine_is_refused_and_built_anew(bundle: Bundle, stand_in: StandIn, damage: str) -> None:
    (row,) = build_engines(bundle, settings())
    store = EngineStore(bundle.path / "engines", "tensorrt", "10.13.2", "this-sm86")
    if damage == "truncated":
        row.file.write_bytes(b"eng")
    elif damage == "altered":
        row.file.write_bytes(b"enginE")
    elif damage == "missing":
        row.file.unlink()
    else:
        store.record_file("vae_decoder").write_text(json.dumps({"record_version": RECORD_VERSION}))
    with pytest.raises(EngineCorruptError, match="amodal build"):
        store.find(row.record.key)
    (again,) = build_engines(bundle, settings())
    assert again.reason is not None
    assert store.find(row.record.key) == again.record


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("graph", "0" * 64, "graph has changed"),
        ("version", "10.9.0", "10.9.0, wanted 10.13.2"),
        ("target", "sm89", "sm89, wanted this-sm86"),
        ("precision", "fp16", "fp16, wanted fp32"),
        ("profiles", (), "other shapes"),
    ],
)
def test_a_foreign_engine_is_refused_with_the_reason(
    bundle: Bundle, stand_in: StandIn, field: str, value: Any, words: str
) -> None:
    (row,) = build_engines(bundle, settings())
    store = EngineStore(bundle.path / "engines", "tensorrt", "10.13.2", "this-sm86")
    foreign = row.record.model_copy(update={"key": row.record.key.model_copy(update={field: value})})
    store.record_file("vae_decoder").write_text(foreign.model_dump_json())
    with pytest.raises(EngineStaleError, match=words):
        store.find(row.record.key)


@pytest.mark.parametrize(("version", "fix"), [(99, "`amodal build`, or update amodal"), (1, "`amodal build`\\.$")])
def test_an_engine_of_another_amodal_is_refused(bundle: Bundle, stand_in: StandIn, version: int, fix: str) -> None:
    (row,) = build_engines(bundle, settings())
    store = EngineStore(bundle.path / "engines", "tensorrt", "10.13.2", "this-sm86")
    document = row.record.model_dump(mode="json") | {"record_version": version}
    store.record_file("vae_decoder").write_text(json.dumps(document))
    with pytest.raises(EngineStaleError, match=f"has version {version}, .*{fix}"):
        store.find(row.record.key)


def test_an_engine_that_was_never_built_is_not_found(bundle: Bundle) -> None:
    with pytest.raises(EngineNotFoundError, match="amodal build"):
        EngineStore(bundle.path / "engines", "tensorrt", "1", "this").read("vae_decoder")


def test_a_change_of_the_graph_changes_the_key(bundle: Bundle, toy_bundle: Path, stand_in: StandIn) -> None:
    build_engines(bundle, settings())
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    graph = bundle.files("vae_decoder")[0]
    from amodal.runtime.bundle.reading import sha256_of

    with open(graph, "ab") as file:
        file.write(b"\x72\x00")  # an empty field of the model
    manifest["components"]["vae_decoder"]["files"][0] |= {"sha256": sha256_of(graph), "bytes": graph.stat().st_size}
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    (row,) = build_engines(Bundle(bundle.path), settings())
    assert row.reason is not None
    assert "graph has changed" in row.reason


# What goes wrong


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ("parser", r"refuses vae_decoder.onnx at node down_blocks.0/Conv_5 \(Conv\): .*kernel is too large"),
        ("refused", "cannot compile vae_decoder.onnx: Error Code 9: no tactic for node_7"),
        ("memory", "memory ran out while vae_decoder.onnx was compiled"),
        ("killed", "killed while building vae_decoder, as happens when memory runs out"),
        ("crash", r"crashed while building vae_decoder \(signal SIGABRT\): double free"),
        ("silent", "without reporting its memory"),
    ],
)
def test_a_failed_build_is_one_sentence_and_leaves_nothing(
    bundle: Bundle, stand_in: StandIn, trouble: str, words: str
) -> None:
    before = files(bundle.path)
    stand_in.set(trouble=trouble)
    with pytest.raises(EngineBuildError, match=words):
        build_engines(bundle, settings())
    assert files(bundle.path) == before
    assert not (bundle.path / "engines").exists()


def test_a_failed_rebuild_leaves_the_old_engine(bundle: Bundle, stand_in: StandIn) -> None:
    (row,) = build_engines(bundle, settings())
    before = files(bundle.path)
    stand_in.set(trouble="refused")
    with pytest.raises(EngineBuildError):
        build_engines(bundle, settings(rebuild=True))
    assert files(bundle.path) == before
    assert row.file.read_bytes() == b"engine"


def test_two_builders_at_once_do_not_mix(bundle: Bundle, stand_in: StandIn) -> None:
    folder = bundle.path / "engines" / "tensorrt-10.13.2-this-sm86"
    ready, leave = multiprocessing.Event(), multiprocessing.Event()
    other = multiprocessing.Process(target=_hold, args=(folder, ready, leave))
    other.start()
    try:
        assert ready.wait(20)
        with pytest.raises(EngineBuildError, match="another build"):
            build_engines(bundle, settings())
    finally:
        leave.set()
        other.join()
    assert build_engines(bundle, settings())[0].reason == "new"


def _hold(folder: Path, ready: Any, leave: Any) -> None:
    with build._build_lock(folder):
        ready.set()
        leave.wait(20)


def test_what_a_killed_builder_left_is_cleared_away(bundle: Bundle, stand_in: StandIn) -> None:
    folder = bundle.path / "engines" / "tensorrt-10.13.2-this-sm86"
    folder.mkdir(parents=True)
    (folder / "vae_decoder.part-123").write_bytes(b"half")
    (row,) = build_engines(bundle, settings())
    assert sorted(p.name for p in folder.iterdir()) == [".lock", row.file.name, "vae_decoder.json"]


def _start(bundle: Bundle, stand_in: StandIn) -> subprocess.Popen[str]:
    """A build in a process of its own, at the point where the compiler works."""
    command = ["build", str(bundle.path), "--backend", "tensorrt", "--target", "this", "--components", "vae_decoder"]
    code = (
        "import sys; from amodal.engines import build; "
        "build.gpus = lambda: [{'name': 'x', 'compute_cap': '8.6'}]; "
        f"from amodal.cli import main; main({command!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, start_new_session=True)
    deadline = time.monotonic() + 60
    while not any(call[0] == "parse" for call in stand_in.calls):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return process


def test_ctrl_c_stops_the_compiler_and_leaves_nothing(bundle: Bundle, stand_in: StandIn) -> None:
    stand_in.set(trouble="hang")
    process = _start(bundle, stand_in)
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.strip().splitlines()[-1] == "Error: interrupted; no partial output is left."
    assert not (bundle.path / "engines").exists()


@pytest.mark.slow
def test_a_killed_build_takes_its_compiler_with_it(bundle: Bundle, stand_in: StandIn) -> None:
    psutil = pytest.importorskip("psutil")
    stand_in.set(trouble="hang")
    process = _start(bundle, stand_in)
    (worker,) = psutil.Process(process.pid).children()
    process.kill()
    process.communicate()
    worker.wait(30)  # raises if it still runs
    (folder,) = (bundle.path / "engines").iterdir()
    stand_in.set()
    assert build_engines(bundle, settings())[0].reason == "new"
    assert not list(folder.glob("*.part*"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_bundle_is_told_of_engine_dir(bundle: Bundle, stand_in: StandIn) -> None:
    bundle.path.chmod(0o555)
    try:
        with pytest.raises(OutputError, match="engine_dir"):
            build_engines(bundle, settings())
    finally:
        bundle.path.chmod(0o755)


def test_a_folder_that_cannot_be_made_is_told_of_engine_dir(bundle: Bundle, stand_in: StandIn) -> None:
    (bundle.path / "engines").write_text("a file where a folder should be")
    with pytest.raises(OutputError, match="engine_dir"):
        build_engines(bundle, settings())


def test_a_tampered_graph_is_not_built(bundle: Bundle, stand_in: StandIn) -> None:
    from amodal.runtime.errors import BundleCorruptError

    file = bundle.files("vae_decoder")[0]
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(BundleCorruptError):
        build_engines(bundle, settings())
    assert not (bundle.path / "engines").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"components": ("vae",)}, "vae is not in .*expected image_encoder"),
        ({"components": ()}, "nothing is not in"),
        ({"target": "sm86"}, "builds for the GPU of the machine"),
    ],
)
def test_bad_choices_are_named(bundle: Bundle, stand_in: StandIn, changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_engines(bundle, settings(**changes))


def test_a_target_that_needs_a_gpu_says_so(bundle: Bundle, stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "gpus", list)
    for target in ("this", "portable"):
        with pytest.raises(InputError, match="none is found here"):
            build_engines(bundle, settings(target=target))


@pytest.mark.parametrize(
    ("visible", "order", "target"),
    [
        (None, "", "this-sm86"),
        ("GPU-2b,0", "", "this-sm89"),
        ("1", "PCI_BUS_ID", "this-sm89"),
        ("0,1", "PCI_BUS_ID", "this-sm86"),
        ("2", "PCI_BUS_ID", None),
        ("-1", "", None),
        ("", "", None),
    ],
)
def test_this_gpu_is_the_one_that_cuda_sees_first(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, visible: str | None, order: str, target: str | None
) -> None:
    mixed(monkeypatch, tmp_path, visible, order)
    library = Library("tensorrt", "10.13.2", ())
    if target is None:
        with pytest.raises(InputError, match="none is found here"):
            build.target_of(settings(), library)
    else:
        assert build.target_of(settings(), library).name == target


@pytest.mark.parametrize("visible", ["1", "MIG-1a", "GPU-", "GPU-3"])
def test_a_gpu_that_cannot_be_told_from_others_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, visible: str
) -> None:
    mixed(monkeypatch, tmp_path, visible, "")
    with pytest.raises(InputError, match=rf"\(8\.6, 8\.9\), and which of them CUDA_VISIBLE_DEVICES={visible} means"):
        build.target_of(settings(), Library("tensorrt", "10.13.2", ()))
    monkeypatch.setattr(build, "gpus", lambda: 2 * [{"compute_cap": "8.6"}])
    assert build.target_of(settings(), Library("tensorrt", "10.13.2", ())).name == "this-sm86"


def mixed(monkeypatch: pytest.MonkeyPatch, folder: Path, visible: str | None, order: str) -> None:
    """A machine with two GPUs of different capabilities, as `nvidia-smi` lists them."""
    smi = folder / "nvidia-smi"
    more = "case $1 in *uuid*) a=', GPU-1a2b'; b=', GPU-2b3c';; esac"
    rows = ("RTX 3090, 24576 MiB, 580.10, 8.6$a", "RTX 4090, 24564 MiB, 580.10, 8.9$b")
    smi.write_text("\n".join(["#!/bin/sh", more, *(f'echo "{row}"' for row in rows), ""]))
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_DEVICE_ORDER", order)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)


def test_an_unknown_backend_is_named() -> None:
    with pytest.raises(InputError, match="onnxruntime builds no engines; expected one of tensorrt_rtx, tensorrt"):
        BuildSettings(backend="onnxruntime")  # type: ignore[arg-type]


def test_a_missing_library_names_its_extra(bundle: Bundle, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.11 is missing')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    with pytest.raises(BackendUnavailableError, match=r"libnvinfer.so.11 is missing.*amodal\[tensorrt\]"):
        describe("tensorrt")


# Targets and places


@pytest.mark.parametrize(
    ("text", "capabilities"),
    [
        ("sm86", ("sm86",)),
        ("SM_89, 86", ("sm86", "sm89")),
        ("sm120,sm86", ("sm86", "sm120")),
        ("portable", RTX),
        ("this", ()),
    ],
)
def test_targets_are_read(text: str, capabilities: tuple[str, ...]) -> None:
    assert parse_target(text, "tensorrt_rtx", RTX).capabilities == capabilities


@pytest.mark.parametrize("text", ["sm90", "rtx3090", "", "sm86,sm90"])
def test_unknown_targets_list_the_known(text: str) -> None:
    with pytest.raises(InputError, match="sm75, sm80, sm86, sm89, sm120, sm121"):
        parse_target(text, "tensorrt_rtx", RTX)


def test_engines_lie_in_the_bundle_but_for_the_packages_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert engine_folder(tmp_path / "b") == tmp_path / "b" / "engines"
    assert engine_folder(tmp_path / "b", tmp_path / "e") == tmp_path / "e"
    assert engine_folder("default").is_relative_to(tmp_path)
    assert engine_folder(Bundle("default").path) == engine_folder("default")


# The real compiler


@pytest.mark.slow
def test_every_component_of_the_default_bundle_compiles(tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    bundle = Bundle("default")
    chosen = BuildSettings(target="sm86", engine_dir=tmp_path)
    rows = build_engines(bundle, chosen)
    assert [row.record.key.component for row in rows] == list(bundle.manifest.components)
    for row in rows:
        record = row.record
        assert (
            EngineRecord.model_validate_json(row.file.with_name(f"{record.key.component}.json").read_text()) == record
        )
        assert record.file.bytes == row.file.stat().st_size
        stored = bundle.component(record.key.component).bytes
        # fp32 arithmetic over half-stored weights: between once and twice what lies in the file, and a little.
        assert 0.5 * stored < record.weights_bytes < 2.2 * stored
        assert min(record.activation_bytes.values()) > 0
        assert record.peak_bytes > record.file.bytes
    unet = next(row.record for row in rows if row.record.key.component == "segment_unet")
    assert unet.activation_bytes["rows=1"] < unet.activation_bytes["rows=2"]
    assert all(row.reason is None for row in build_engines(bundle, chosen))


@pytest.mark.slow
def test_half_precision_graphs_compile(exporter: Any, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    from amodal.export.checkpoints.checkpoint import random_checkpoint

    stages = {"segment": random_checkpoint("tiny", "segment")}
    folder = exporter(tmp_path / "bundle", stages, size=(64, 64), frames=3, precision="fp16")
    bundle = Bundle(folder)
    rows = build_engines(bundle, BuildSettings(target="sm86"))
    assert [row.record.key.component for row in rows] == list(bundle.manifest.components)
    rows = build_engines(bundle, BuildSettings(target="sm86,sm89", components=("image_encoder", "vae_decoder")))
    assert {row.record.key.target for row in rows} == {"sm86+sm89"}
    assert {row.file.parent.name for row in rows} == {f"tensorrt_rtx-{rows[0].record.key.version}-sm86+sm89"}


def test_a_graph_with_an_unknown_operator_is_refused_by_node(bundle: Bundle) -> None:
    pytest.importorskip("tensorrt_rtx")
    onnx = pytest.importorskip("onnx")
    from amodal.runtime.bundle.reading import sha256_of

    graph = bundle.files("vae_decoder")[0]
    model = onnx.load(graph, load_external_data=False)
    node = next(n for n in model.graph.node if n.op_type == "Sigmoid")
    node.op_type, node.domain = "Wavelet", "somebody.else"
    model.opset_import.append(onnx.helper.make_opsetid("somebody.else", 1))
    onnx.save(model, graph)
    manifest = json.loads((bundle.path / "manifest.json").read_text())
    manifest["components"]["vae_decoder"]["files"][0] |= {"sha256": sha256_of(graph), "bytes": graph.stat().st_size}
    (bundle.path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(EngineBuildError, match=rf"refuses vae_decoder.onnx at node .*{node.name}.*Wavelet"):
        build_engines(Bundle(bundle.path), BuildSettings(target="sm86", components=("vae_decoder",)))
