"""Verifying: what is right passes, and what is wrong is named."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from amodal.engines import verify
from amodal.engines.ranges import HALF_MAX, Range
from amodal.engines.recording import Recorder
from amodal.engines.verification import ComponentCheck, Verification, VerifySettings
from amodal.engines.verify import verify_bundle
from amodal.runtime.backends.onnxruntime.cpu import OnnxRuntimeBackend
from amodal.runtime.backends.onnxruntime.kernels import find_kernels
from amodal.runtime.bundle.reading import sha256_of
from amodal.runtime.errors import BundleCorruptError, InputError, NonFiniteError
from amodal.runtime.families import Bundle

from ..stand_ins import StandIn


def quick(**changes: Any) -> VerifySettings:
    return VerifySettings(**{"steps": 3, "threads": 1, **changes})


@pytest.fixture(scope="module")
def half_bundle(exporter: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One stage in half precision, 2 frames of 64x128; not to be changed."""
    from amodal.export.checkpoints.checkpoint import random_checkpoint

    stages = {"segment": random_checkpoint("tiny", "segment")}
    return exporter(tmp_path_factory.mktemp("half") / "bundle", stages, size=(64, 128), frames=2, precision="fp16")


@pytest.fixture(scope="module")
def verified_half(half_bundle: Path) -> Verification:
    return verify_bundle(Bundle(half_bundle), quick())


def edited(source: Path, folder: Path, key: str, change: Callable[[Any], Any], weight: str = "") -> Bundle:
    """A copy of a bundle in which a component's weight (its largest, if none is named) is changed, hashes and all."""
    import onnx

    shutil.copytree(source, folder)
    graph = Bundle(folder).files(key)[0]
    model = onnx.load(graph, load_external_data=False)
    stored = [t for t in model.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL and len(t.dims) > 1]
    chosen = next((t for t in stored if t.name == weight), None) or max(stored, key=lambda t: np.prod(t.dims))
    place = {entry.key: entry.value for entry in chosen.external_data}
    dtype = np.float16 if chosen.data_type == onnx.TensorProto.FLOAT16 else np.float32
    data = graph.with_name(place["location"])
    values = np.memmap(data, dtype, "r+", int(place["offset"]), tuple(chosen.dims))
    values[:] = change(values)
    values.flush()
    manifest = json.loads((folder / "manifest.json").read_text())
    for file in manifest["components"][key]["files"]:
        file["sha256"] = sha256_of(folder / file["path"])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return Bundle(folder)


def run_instead(monkeypatch: pytest.MonkeyPatch, key: str, other: Bundle) -> None:
    """Has the backend run another bundle's graph for a component, which a miscompiled engine would amount to."""
    load = OnnxRuntimeBackend.load

    def loaded(self: Any, entry: Any, files: list[Path], lanes: int = 1) -> Any:
        return load(self, entry, other.files(key) if files[0].stem == key else files, lanes)

    monkeypatch.setattr(OnnxRuntimeBackend, "load", loaded)


def failed(found: Verification) -> set[str]:
    return {name for name, _ in found.problems}


# What is right


def test_a_half_precision_bundle_is_verified(verified_half: Verification, half_bundle: Path) -> None:
    assert verified_half.problems == []
    rows = {row.component: row for row in verified_half.components}
    assert list(rows) == list(Bundle(half_bundle).manifest.components)
    assert {key: row.calls for key, row in rows.items()} == dict.fromkeys(rows, 1) | {"segment_unet": 3}
    for row in rows.values():
        half = row.precision == "fp16"
        assert (row.difference > 0) == half  # rounding, where there is any
        assert (row.greatest is not None) == half
        assert row.difference < row.limit
    assert 1 < (rows["segment_unet"].greatest or 0) < 1000
    (stage,) = verified_half.stages
    assert 0 < stage.latents < stage.limit
    assert stage.mask_iou is not None
    assert stage.mask_iou > 0.95
    assert stage.frames_max is not None
    assert stage.frames_max < 10
    assert "overflow" in verified_half.notes[0]


@pytest.mark.slow
def test_a_float32_bundle_is_its_own_twin_and_needs_no_onnx(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.setenv("AMODAL_KERNELS", "off")
    reports: list[tuple[Any, ...]] = []
    found = verify_bundle(Bundle(toy_bundle), quick(steps=2), lambda *report: reports.append(report[:2]))
    assert found.ok
    assert [row.difference for row in found.components] == [0] * len(found.components)
    assert [(row.stage, row.latents, row.frames_max) for row in found.stages] == [("segment", 0, 0), ("complete", 0, 0)]
    assert [row.mask_iou for row in found.stages] == [1, None]
    assert found.notes == ()
    calls = {row.component: row.calls for row in found.components}
    assert calls["vae_decoder"] == 2  # one for each stage
    assert calls["complete_unet"] == 2  # of two steps both
    assert ("complete, in float32", "step 2 of 2") in reports
    assert ("complete", "step 2 of 2") in reports


@pytest.mark.slow
@pytest.mark.skipif(find_kernels().library is None, reason="no kernels here")
def test_kernels_are_held_against_the_plain_graphs(toy_bundle: Path) -> None:
    found = verify_bundle(Bundle(toy_bundle), quick(steps=2))
    assert found.ok
    differences = {row.component: row.difference for row in found.components}
    assert 0 < differences["segment_unet"] < 1e-5
    assert 0 < differences["vae_decoder"] < 1e-5
    # Two steps with random weights and norms over four values; on trained ones it is 3e-6 after 25.
    assert all(0 < row.latents < 1e-4 and row.frames_max <= 1 for row in found.stages)


def test_some_components_are_verified_without_the_pipeline(toy_bundle: Path) -> None:
    found = verify_bundle(Bundle(toy_bundle), quick(components=("segment_unet", "vae_encoder"), steps=1))
    assert [(row.component, row.calls) for row in found.components] == [("vae_encoder", 2), ("segment_unet", 1)]
    assert found.stages == ()
    assert found.ok


def test_results_are_plain(verified_half: Verification) -> None:
    plain = json.loads(json.dumps(verified_half.as_json(most_ranges=3), allow_nan=False))
    assert plain["ok"] is True
    unet = next(row for row in plain["components"] if row["component"] == "segment_unet")
    assert len(unet["ranges"]) == 3
    assert unet["half_tensors"] > 500
    assert unet["ranges"][0]["greatest"] >= unet["ranges"][1]["greatest"]
    assert unet["ranges"][0]["layer"].split(".")[0] in ("up_blocks", "down_blocks", "mid_block")
    assert plain["stages"][0]["mask_iou"] > 0.95


# What is wrong


@pytest.mark.slow
def test_what_computes_something_else_is_named(
    half_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The last layer, so that 5 % of it are 5 % of the velocity.
    other = edited(half_bundle, tmp_path / "other", "segment_unet", lambda w: w * np.float16(1.05), "conv_out.weight")
    run_instead(monkeypatch, "segment_unet", other)
    found = verify_bundle(Bundle(half_bundle), quick())
    problems = dict(found.problems)
    assert set(problems) == {"segment_unet", "stage segment"}
    assert problems["segment_unet"].startswith("it differs from its float32 twin by 5.0e-02 (relative L2)")
    assert problems["stage segment"].startswith("its latents differ from float32's by")


def test_what_is_not_finite_is_named(toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = edited(toy_bundle, tmp_path / "other", "segment_unet", lambda w: w * np.float32(np.nan))
    run_instead(monkeypatch, "segment_unet", other)
    found = verify_bundle(Bundle(toy_bundle), quick(steps=2))
    problems = dict(found.problems)
    assert set(problems) == {"segment_unet", "stage segment"}
    assert problems["segment_unet"].startswith("it returns values that are not finite")
    assert problems["stage segment"].startswith("The latents were not finite")
    assert found.as_json()["stages"][0]["latents"] is None
    json.dumps(found.as_json(), allow_nan=False)


def test_a_small_change_of_a_float32_graph_is_seen(
    toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = edited(
        toy_bundle, tmp_path / "other", "vae_decoder", lambda w: w * np.float32(1.001), "decoder.conv_out.weight"
    )
    run_instead(monkeypatch, "vae_decoder", other)
    found = verify_bundle(Bundle(toy_bundle), quick(components=("vae_decoder", "vae_encoder"), steps=1))
    assert failed(found) == {"vae_decoder"}


def test_a_changed_file_is_found_by_its_hash(toy_bundle: Path, tmp_path: Path) -> None:
    changed = edited(toy_bundle, tmp_path / "changed", "segment_unet", lambda w: w * np.float32(1.05))
    shutil.copy(toy_bundle / "manifest.json", changed.path)
    with pytest.raises(BundleCorruptError, match=r"segment_unet\.onnx\.data differs from the hash"):
        verify_bundle(Bundle(changed.path), quick())


def test_what_would_overflow_is_named_layer_by_layer(half_bundle: Path, tmp_path: Path) -> None:
    # Norms divide the factor out again: in float32 the pictures stay what they were.
    loud = edited(
        half_bundle, tmp_path / "loud", "vae_decoder", lambda w: w * np.float16(20_000), "decoder.conv_in.weight"
    )
    found = verify_bundle(loud, quick(components=("vae_decoder",), steps=1))
    (row,) = found.components
    assert row.greatest is not None
    assert row.greatest > HALF_MAX
    (problem,) = [text for _, text in found.problems if "65504" in text]
    assert "tensors, the greatest" in problem
    assert " at decoder." in problem
    assert "--precision fp32" in problem


def test_what_comes_near_is_a_warning() -> None:
    ranges = tuple(Range(name, f"a.b/{name}", "Add", value) for name, value in (("x", 2e4), ("y", 1.7e4), ("z", 3.0)))
    row = ComponentCheck("unet", "fp16", 1, 1e-4, 5e-3, ranges, ())
    found = Verification("b", VerifySettings(), (row,))
    assert found.ok
    assert found.warnings == [
        ("unet", "2 tensors, the greatest 2.0e+04 at a.b/x (x), go beyond 16000; half precision ends at 65504.")
    ]


def test_a_checkpoint_that_overflows_in_float32_is_told_apart(toy_bundle: Path, tmp_path: Path) -> None:
    broken = edited(toy_bundle, tmp_path / "broken", "segment_unet", lambda w: w * np.float32(np.nan))
    found = verify_bundle(broken, quick(steps=2))
    problems = dict(found.problems)
    assert "float32 twin returns values that are not finite" in problems["segment_unet"]
    assert problems["stage segment"].startswith("in float32: The latents were not finite")
    # `complete` and what it shares are judged all the same.
    assert set(problems) == {"segment_unet", "stage segment"}
    assert next(row.calls for row in found.components if row.component == "vae_decoder") == 1


def test_masks_that_differ_fail_their_stage(half_bundle: Path) -> None:
    ones, none = np.ones((2, 4, 4), bool), np.zeros((2, 4, 4), bool)
    latents, frames = np.ones((2, 4, 1, 1), np.float32), np.zeros((2, 4, 4, 3), np.uint8)
    most = ones.copy()
    most[0] = False
    bundle = Bundle(half_bundle)

    def check(a: Any, b: Any) -> Any:
        given = {"latents": latents, "frames": frames}
        first, second = (x if isinstance(x, Exception) else {**given, "masks": x} for x in (a, b))
        return verify._check_task(bundle, "segment", first, second, False)

    assert check(none, none).problems == ()
    assert check(ones, ones).mask_iou == 1
    row = check(most, ones)
    assert row.mask_iou == 0.5
    assert "IoU of 0.5000" in row.problems[0]
    assert "step 4" in check(NonFiniteError(4, 0.1), ones).problems[0]


# What is asked for


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"backend": "torch"},
            "backend torch cannot be verified; expected one of onnxruntime, tensorrt_rtx, tensorrt",
        ),
        ({"build": True}, 'are for engines.*`backend="tensorrt_rtx"`'),
        ({"engine_dir": "engines"}, "are for engines"),
        ({"steps": 0}, "`steps=0`"),
    ],
)
def test_bad_settings_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        VerifySettings(**changes)


def test_unknown_components_are_named(toy_bundle: Path) -> None:
    with pytest.raises(InputError, match=r"vae is not in .*expected image_encoder"):
        verify_bundle(Bundle(toy_bundle), quick(components=("vae",)))


# Recording


class _Doubling:
    """A backend whose components double."""

    name, xp, lanes, engines, on_gpu = "doubling", np, 1, None, False

    def load(self, entry: Any, files: list[Path], lanes: int = 1) -> Any:
        return self

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        return {"y": 2 * inputs["x"]}

    def map(self, batches: Any) -> Any:
        return [self(inputs) for inputs in batches]

    def active(self) -> Any:
        return nullcontext()

    def to_host(self, array: Any) -> Any:
        return array

    def describe(self) -> dict[str, str]:
        return {"name": self.name}

    def close(self) -> None:
        pass


def test_the_first_the_middle_and_the_last_step_are_kept(toy_bundle: Path) -> None:
    bundle = Bundle(toy_bundle)
    recorder = Recorder(_Doubling(), bundle, steps=7)
    for key in ("segment_unet", "vae_decoder"):
        for stage in range(2):
            recorder.begin()
            executable = recorder.load(bundle.component(key), bundle.files(key))
            for step in range(7):
                x = np.full(2, 10.0 * stage + step)
                results = executable.map([{"x": x}, {"x": -x}]) if step % 2 else [executable({"x": x})]
                np.testing.assert_array_equal(results[0]["y"], 2 * x)
                x[:] = -1  # what is kept is a copy
    first = {key: [call.inputs["x"][0] for call in calls] for key, calls in recorder.calls.items()}
    assert first == {"segment_unet": [0, 3, 6, 10, 13, 16], "vae_decoder": [0, 10]}
    assert [call.outputs["y"][0] for call in recorder.calls["vae_decoder"]] == [0, 20]


# Engines


@pytest.fixture
def engines(toy_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Verification]:
    """Verifies the engines of a copy of the toy bundle, with the stand-in for TensorRT."""
    shutil.copytree(toy_bundle, tmp_path / "bundle")
    StandIn(monkeypatch, tmp_path / "calls")

    def check(**changes: Any) -> Verification:
        settings = {"backend": "tensorrt", "target": "this", "components": ("unet",), **changes}
        return verify_bundle(Bundle(tmp_path / "bundle"), quick(**settings))

    return check


@pytest.mark.slow
def test_engines_that_are_missing_are_named_and_built_where_asked(engines: Callable[..., Verification]) -> None:
    found = engines()
    assert failed(found) == {"segment_unet", "complete_unet"}
    assert all("there is no engine" in problem and "amodal build" in problem for _, problem in found.problems)
    found = engines(build=True)
    assert found.ok
    assert [row.built for row in found.engines] == ["new", "new"]
    found = engines()
    assert found.ok
    assert [row.built for row in found.engines] == [None, None]
    assert "No engine was executed" in found.notes[0]
    assert failed(engines(components=None)) == {*Bundle(found.bundle).manifest.components} - {
        "segment_unet",
        "complete_unet",
    }


@pytest.mark.slow
def test_engines_that_are_damaged_or_of_another_graph_are_named(engines: Callable[..., Verification]) -> None:
    rows = engines(build=True).engines
    engine = Path(rows[0].file or "")
    content = bytearray(engine.read_bytes())
    content[-1] ^= 1
    engine.write_bytes(content)
    record = engine.with_name("complete_unet.json")
    document = json.loads(record.read_text())
    document["key"]["graph"] = "0" * 64
    record.write_text(json.dumps(document))
    problems = dict(engines().problems)
    assert "differs from the hash in its record" in problems["segment_unet"]
    assert "the graph has changed since" in problems["complete_unet"]
    assert json.loads(json.dumps(engines().as_json()))["engines"][0]["ok"] is False
    assert engines(build=True).ok
