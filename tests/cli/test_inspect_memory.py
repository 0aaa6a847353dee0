"""`amodal inspect --memory` and `amodal run --vram`: what they say of made-up engines of the default bundle."""

from __future__ import annotations

import json
import os
import re
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from amodal.cli.families.diffusion_vas.job import shape_of
from amodal.cli.families.diffusion_vas.run import command
from amodal.runtime import backends
from amodal.runtime.backends import registry
from amodal.runtime.builds.store import RECORD_VERSION, EngineKey, EngineRecord, EngineStore, graph_hash
from amodal.runtime.bundle.manifest import FileEntry
from amodal.runtime.errors import MissingDependencyError
from amodal.runtime.families import Bundle
from amodal.runtime.families.diffusion_vas.shape import RunShape
from amodal.runtime.memory.recorded import ComponentMemory, MemoryRecord, write_memory

from .conftest import Clip, Outcome, assert_refusal, issue, leftovers

MB = 1_000_000


def write_records(folder: Path, backend: Any = "tensorrt_rtx", target: str = "sm86", skip: str = "") -> Path:
    """Records for the default bundle: weights of 10 MB, of U-Nets 100; activations of 20 MB, of U-Nets 40 or 70."""
    bundle = Bundle("default")
    store = EngineStore(folder, backend, "1.7", target)
    store.folder.mkdir(parents=True, exist_ok=True)
    for key, entry in bundle.manifest.components.items():
        unet, profiles = entry.kind == "unet", bundle.family.profiles(bundle.manifest, key)
        record = EngineRecord(
            record_version=RECORD_VERSION,
            key=EngineKey(
                component=key,
                graph=graph_hash(bundle, key),
                backend=backend,
                version="1.7",
                target=target,
                precision="fp32",
                profiles=profiles,
            ),
            file=FileEntry(path=f"{key}.engine", bytes=1, sha256="0" * 64),
            weights_bytes=(100 if unet else 10) * MB,
            activation_bytes={
                name: 40 * MB if name == "rows=1" else 70 * MB if unet else 20 * MB
                for name in (p.name for p in profiles)
            },
            layers=(1, 1),
            seconds=0,
            peak_bytes=0,
        )
        if key != skip:
            store.record_file(key).write_text(record.model_dump_json())
    return folder


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    return write_records(tmp_path / "engines")


def inspect(engines: Path, *options: object) -> Outcome:
    return issue("inspect", "default", "--memory", "--engine-dir", engines, *options)


def test_both_modes_are_shown_phase_by_phase_in_eighty_columns(engines: Path) -> None:
    outcome = inspect(engines)
    assert (outcome.code, outcome.err) == (0, "")
    lines = outcome.out.splitlines()
    assert max(map(len, lines[2:])) <= 80
    assert lines[0] == "default, segment and complete, frames of 64x128"
    assert lines[1] == f"engines  {engines / 'tensorrt_rtx-1.7-sm86'}"
    assert [line for line in lines if re.match(r"(resident|sequential), batched CFG rows:", line)] == [
        "resident, batched CFG rows:",
        "sequential, batched CFG rows:",
    ]
    denoise = [line.split() for line in lines if line.startswith("segment denoise")]
    # 7 x 10 MB and 2 x 100 beside a scratch of 70; one U-Net of 100 and its 70.
    assert [row[2:6] for row in denoise] == [["270.0", "MB", "70.0", "MB"], ["100.0", "MB", "70.0", "MB"]]
    assert "All components share one scratch buffer, as large as segment_unet needs." in lines
    assert re.search(r"^segment_unet +100.0 MB +70.0 MB / 40.0 MB$", outcome.out, re.MULTILINE)
    assert re.search(r"^total +270.0 MB$", outcome.out, re.MULTILINE)
    assert "The CUDA context adds a few hundred MB; only a GPU shows how many." in lines
    assert "fits" not in outcome.out


def test_the_tables_and_the_json_say_the_same(engines: Path) -> None:
    shown, plain = inspect(engines, "--vram", "200MB"), json.loads(inspect(engines, "--vram", "200MB", "--json").out)
    ways = re.findall(
        r"^(resident|sequential), (batched|separate) CFG rows .* ([\d.]+) MB +(yes|no)$", shown.out, re.MULTILINE
    )
    assert [(p["memory"], p["cfg_rows"], f"{p['peak_bytes'] / MB:.1f}") for p in plain["plans"]] == [
        w[:3] for w in ways
    ]
    assert [p["fits"] for p in plain["plans"]] == [way[3] == "yes" for way in ways] == [False, False, True, True]
    assert plain["chosen"] == 2
    assert plain["budget_bytes"] == 200 * MB
    assert (plain["version"], plain["target"]) == ("1.7", "sm86")
    assert "Chosen for 200.0 MB: sequential, batched CFG rows, which takes " in shown.out
    peak = max(phase["peak_bytes"] for phase in plain["plans"][2]["phases"])
    assert re.search(rf"^peak of the run +{peak / MB:.1f} MB +yes$", shown.out, re.MULTILINE)
    assert plain["plans"][0]["context_bytes"] is None


def test_of_a_mode_the_way_that_fits_is_shown(engines: Path) -> None:
    for vram, shown in (
        ("400MB", "resident, batched CFG rows"),
        ("330MB", "resident, separate CFG rows"),
        ("9MB", "resident, separate CFG rows"),
    ):
        outcome = inspect(engines, "--mode", "resident", "--vram", vram)
        assert f"\n{shown}:\n" in outcome.out
        assert "sequential" not in outcome.out
        assert outcome.code == (2 if vram == "9MB" else 0)


def test_what_fits_nowhere_is_shown_and_then_refused(engines: Path) -> None:
    outcome = inspect(engines, "--vram", "100MB")
    assert outcome.code == 2
    assert outcome.out.count("\npeak of the run") == 2
    assert "Chosen" not in outcome.out
    (line,) = outcome.err.strip().splitlines()
    assert line.startswith("Error: 0.1 GB of GPU memory are not enough (--vram): the least is 140.")
    assert line.endswith(".")
    plain = inspect(engines, "--vram", "100MB", "--json")
    assert plain.code == 2
    assert json.loads(plain.out)["chosen"] is None


def test_one_stage_and_another_size(engines: Path) -> None:
    one = json.loads(inspect(engines, "--stage", "segment", "--json").out)["plans"][0]
    assert one["weights_bytes"] == 140 * MB
    assert {phase["stage"] for phase in one["phases"]} == {"segment"}
    larger = inspect(engines, "--stage", "segment", "--size", "128x256")
    assert "An estimate: the engines are of another size" in larger.out
    assert re.search(r"^segment_unet +100.0 MB +280.0 MB / 160.0 MB$", larger.out, re.MULTILINE)
    assert "estimate" not in inspect(engines, "--size", "64x128").out
    assert_refusal(inspect(engines, "--size", "64x100"))


def test_the_build_of_the_backend_and_target_is_taken(tmp_path: Path) -> None:
    for backend, target in (("tensorrt_rtx", "sm86"), ("tensorrt_rtx", "sm120"), ("tensorrt", "this-sm90")):
        write_records(tmp_path, backend, target)
    os.utime(tmp_path / "tensorrt_rtx-1.7-sm86" / "segment_unet.json", (2e9, 2e9))
    found = {
        options: json.loads(inspect(tmp_path, *options, "--json").out)["engines"]
        for options in (
            (),
            ("--target", "sm120"),
            ("--backend", "tensorrt"),
            ("--backend", "tensorrt", "--target", "this"),
        )
    }
    names = ["tensorrt_rtx-1.7-sm86", "tensorrt_rtx-1.7-sm120", "tensorrt-1.7-this-sm90", "tensorrt-1.7-this-sm90"]
    assert list(found.values()) == [str(tmp_path / name) for name in names]


def test_without_engines_there_is_one_sentence_with_the_command(tmp_path: Path) -> None:
    outcome = inspect(tmp_path)
    assert_refusal(outcome)
    assert f"run `amodal build default --target sm86 --engine-dir {tmp_path}` first, which needs no GPU" in outcome.err
    other = inspect(tmp_path, "--backend", "tensorrt")
    assert_refusal(other)
    assert "`amodal build default --backend tensorrt --target this --engine-dir" in other.err
    assert_refusal(inspect(write_records(tmp_path, skip="vae_encoder")))
    assert inspect(tmp_path, "--stage", "complete").code == 0, "that stage has a VAE encoder of its own"


def test_engines_of_another_graph_are_refused_with_the_reason(engines: Path) -> None:
    file = engines / "tensorrt_rtx-1.7-sm86" / "image_encoder.json"
    record = json.loads(file.read_text())
    record["key"]["graph"] = "0" * 64
    file.write_text(json.dumps(record))
    outcome = inspect(engines)
    assert_refusal(outcome)
    assert "the engine of image_encoder in " in outcome.err
    assert "is stale, the graph has changed since; build it again with `amodal build`" in outcome.err


@pytest.mark.parametrize("suffix", ["png", "svg"])
def test_a_picture_shows_both_modes_and_the_budget(suffix: str, engines: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / f"memory.{suffix}"
    outcome = inspect(engines, "--vram", "300MB", "--picture", file, "--json")
    assert outcome.code == 0, outcome.err
    assert outcome.err == f"Wrote {file}.\n"
    json.loads(outcome.out)
    assert leftovers(tmp_path) == []
    if suffix == "png":
        with Image.open(file) as picture:
            assert picture.width > picture.height > 300
    else:
        text = file.read_text()
        shown = ("resident, separate CFG rows", "sequential, batched CFG rows", "complete denoise", "scratch", "budget")
        for words in (*shown, "segment_unet", "vae_decoder"):
            assert f"<!-- {words} -->" in text


def test_the_bars_of_a_picture_are_as_high_as_the_plan(engines: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure_module = pytest.importorskip("matplotlib.figure")
    drawn = []
    monkeypatch.setattr(figure_module.Figure, "savefig", lambda self, file, **_: (drawn.append(self), file.touch()))
    plain = json.loads(inspect(engines, "--vram", "300MB", "--picture", engines / "it.png", "--json").out)
    (figure,) = drawn
    for axes, plan in zip(figure.axes, (plain["plans"][1], plain["plans"][2]), strict=True):
        tops: dict[int, float] = {}
        for bar in axes.patches:
            place = round(bar.get_x() + bar.get_width() / 2)
            assert bar.get_y() == pytest.approx(tops.get(place, 0.0)), "one on the other"
            tops[place] = bar.get_y() + bar.get_height()
        assert list(tops.values()) == pytest.approx([phase["peak_bytes"] / MB for phase in plan["phases"]])
        assert list(axes.lines[0].get_ydata()) == [300, 300]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--picture", "memory.gif"), "expected a name that ends in .png or .svg"),
        (("--picture", "nowhere/memory.png"), "nowhere is not a folder"),
        (("--vram", "6"), "'6' is no amount of memory; expected a number and its unit, for instance 6GB"),
        (("--size", "large"), "'large' is not a size"),
        (("--shapes",), "--shapes and --memory show different things; choose one"),
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: Any, message: str, engines: Path) -> None:
    outcome = inspect(engines, *options)
    assert_refusal(outcome)
    assert message in outcome.err


@pytest.mark.parametrize("option", [("--vram", "6GB"), ("--engine-dir", "."), ("--mode", "auto"), ("--size", "64x128")])
def test_options_of_memory_alone_are_refused_without_it(option: tuple[str, str]) -> None:
    outcome = issue("inspect", "default", *option)
    assert_refusal(outcome)
    assert f"{option[0]} needs --memory; add it" in outcome.err


def test_a_picture_without_matplotlib_is_refused_before_anything_is_shown(
    engines: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    outcome = inspect(engines, "--picture", tmp_path / "memory.png")
    assert_refusal(outcome, MissingDependencyError.exit_code)
    assert 'pip install "amodal[export]"' in outcome.err
    assert inspect(engines).code == 0


# amodal run.


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """ONNX Runtime under the name of a backend that runs engines; knows what it was asked to load."""
    pytest.importorskip("onnxruntime")
    real, there = backends.create("onnxruntime", threads=1), registry.import_module
    loaded: list[str] = []

    def load(entry: Any, files: list[Path], lanes: int = 1) -> Any:
        loaded.append(files[0].stem)
        return real.load(entry, files, lanes)

    gpu = types.SimpleNamespace(
        name="tensorrt_rtx",
        xp=real.xp,
        lanes=1,
        engines=None,
        on_gpu=True,
        load=load,
        to_host=real.to_host,
        active=real.active,
        reserve_activations=real.reserve_activations,
        describe=lambda: {"name": "tensorrt_rtx"},
        loaded=loaded,
    )
    module = types.SimpleNamespace(create=lambda name, device, threads: gpu)
    monkeypatch.setitem(registry._MODULES, "tensorrt_rtx", "stand-in")
    monkeypatch.setattr(registry, "import_module", lambda name: module if name == "stand-in" else there(name))
    return gpu


def run(clip: Clip, out: Path, engines: Path, *options: object) -> Outcome:
    quick = ("--steps", 1, "--no-overlay", "--backend", "tensorrt_rtx", "--engine-dir", engines, "--json")
    return issue("run", "default", *clip.inputs, *quick, *options, "-o", out)


def test_a_run_follows_the_plan_and_its_result_holds_it(
    stand_in: Any, kept_clip: Clip, engines: Path, tmp_path: Path
) -> None:
    outcome = run(kept_clip, tmp_path / "out", engines, "--memory", "auto", "--vram", "150MB", "--stage", "segment")
    assert outcome.code == 0, outcome.err
    settings = json.loads(outcome.out)["settings"]
    assert settings["memory"] == "sequential"
    plan = settings["memory_plan"]
    assert (plan["memory"], plan["cfg_rows"]) == ("sequential", "separate")
    assert (plan["shape"]["stages"], plan["shape"]["steps"], plan["shape"]["depth"]) == (["segment"], 1, False)
    assert plan["peak_bytes"] <= 150 * MB
    # What `inspect` says of that way is the same, but for the steps' rows of the time table.
    said = json.loads(inspect(engines, "--stage", "segment", "--json").out)["plans"][3]
    assert 0 < said["peak_bytes"] - plan["peak_bytes"] < 1 * MB
    assert stand_in.loaded == [
        "image_encoder",
        "vae_encoder",
        "segment_unet_conditioner",
        "segment_unet",
        "vae_decoder",
    ]


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        ("", RunShape()),
        ("--stage both --depth maps", RunShape(("segment", "complete"), depth=False)),
        (
            "--stage segment --guidance 1:1 --steps 3 --samples 5 --decode-chunk 2 --cfg-rows separate",
            RunShape(("segment",), True, False, 3, 5, 2, "separate"),
        ),
    ],
)
def test_the_options_of_a_run_reach_its_plan(given: str, shape: RunShape) -> None:
    context = command.make_context("run", ["default", "--frames", "f", "--masks", "m", "-o", "out", *given.split()])
    assert shape_of(context.params) == shape


def test_a_run_that_does_not_fit_is_refused_before_anything_is_loaded(
    stand_in: Any, kept_clip: Clip, engines: Path, refused: Callable[..., str]
) -> None:
    options = ("--backend", "tensorrt_rtx", "--engine-dir", engines, "--vram")
    sentence = refused("run", "default", *kept_clip.inputs, *options, "200MB")  # resident, as nothing else is asked
    assert "What would fit: sequential memory with batched CFG rows" in sentence
    sentence = refused("run", "default", *kept_clip.inputs, *options, "50MB", "--memory", "auto", "--samples", 2)
    assert "0.05 GB of GPU memory are not enough" in sentence
    assert stand_in.loaded == []


def test_a_backend_without_gpu_memory_takes_no_limit(refused: Callable[..., str], kept_clip: Clip) -> None:
    pytest.importorskip("onnxruntime")
    sentence = refused("run", "default", *kept_clip.inputs, "--vram", "6GB")
    assert "--vram: backend onnxruntime uses no GPU memory; leave it out" in sentence


@pytest.fixture
def measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A record of the default bundle in the user's cache: 10 MB of weights and 20 of activations each."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundle = Bundle("default")
    components = {
        key: ComponentMemory(
            graph=graph_hash(bundle, key),
            weights_bytes=10 * MB,
            activation_bytes={p.name: 20 * MB for p in bundle.family.profiles(bundle.manifest, key)},
            kept=entry.repeated,
        )
        for key, entry in bundle.manifest.components.items()
    }
    return write_memory(bundle, MemoryRecord(version="1.31.1", measured_on="RTX 3090", components=components))


GRAPHS = ("inspect", "default", "--memory", "--backend", "onnxruntime", "--device", "cuda")


def test_graphs_that_were_measured_have_a_plan_as_engines_have(measured: Path) -> None:
    shown = issue(*GRAPHS, "--vram", "100MB")
    assert (shown.code, shown.err) == (0, "")
    assert str(measured) in shown.out
    assert "onnxruntime 1.31.1 on RTX 3090" in shown.out
    assert "Each network has an arena of its own" in shown.out
    assert "Chosen for 100.0 MB: sequential, batched CFG rows" in shown.out
    plain = json.loads(issue(*GRAPHS, "--vram", "100MB", "--json").out)
    assert (plain["record"], plain["version"], plain["measured_on"]) == (str(measured), "1.31.1", "RTX 3090")
    resident = plain["plans"][0]
    assert resident["weights_bytes"] == 90 * MB
    assert {phase["scratch_bytes"] for phase in resident["phases"]} == {40 * MB, 60 * MB}
    outcome = issue(*GRAPHS, "--vram", "20MB")
    assert outcome.code == 2
    assert "0.02 GB of GPU memory are not enough (--vram)" in outcome.err


def test_graphs_that_were_not_measured_are_told_how_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    outcome = issue(*GRAPHS)
    assert_refusal(outcome)
    assert "--record" in outcome.err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--backend", "onnxruntime"], "--device cuda"),
        (["--backend", "onnxruntime", "--device", "cpu"], "--device cuda"),
        (["--backend", "onnxruntime", "--device", "cuda", "--target", "sm86"], "--target"),
        (["--backend", "onnxruntime", "--device", "cuda", "--engine-dir", "x"], "--engine-dir"),
        (["--device", "cuda"], "--device"),
        (["--record"], "--record"),
    ],
)
def test_options_of_graphs_and_of_engines_are_told_apart(measured: Path, options: list[str], said: str) -> None:
    outcome = issue("inspect", "default", "--memory", *options)
    assert_refusal(outcome)
    assert said in outcome.err


def test_record_measures_on_the_gpu_here_and_keeps_it(measured: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    record, made = MemoryRecord.model_validate_json(measured.read_bytes()), []
    measured.unlink()
    monkeypatch.setattr(backends, "create", lambda name, **options: made.append((name, options)))
    monkeypatch.setattr("amodal.runtime.memory.recording.record_memory", lambda *given, **more: record)
    assert issue(*GRAPHS, "--record").code == 0
    assert made == [("onnxruntime", {"device": "cuda"})]
    assert MemoryRecord.model_validate_json(measured.read_bytes()) == record


def test_long_clips_are_shown_with_one_to_eight_objects(engines: Path) -> None:
    said = inspect(engines, "--stage", "segment", "--mode", "resident").out
    rows = re.findall(r"^(\d objects?) +resident, (\w+) CFG rows +\w+ +([\d.]+ \w+)", said.split("Long clips")[1], re.M)
    assert [row[:2] for row in rows] == [
        (f"{n} object{'s' * (n > 1)}", way) for n in (1, 2, 4, 8) for way in ("batched", "separate")
    ]
    shown = json.loads(inspect(engines, "--stage", "segment", "--json").out)["long_clips"]
    peaks = [shown[name][0]["peak_bytes"] for name in ("1 object", "2 objects", "4 objects", "8 objects")]
    assert peaks == sorted(set(peaks))
