"""A family that generic code does not know: with one line in the registry it does all that the first one does."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import amodal
from amodal.cli import amodal as command
from amodal.engines.build import BuildSettings, build_engines
from amodal.engines.compare import relative_l2
from amodal.engines.verification import VerifySettings
from amodal.engines.verify import verify_bundle
from amodal.runtime import families
from amodal.runtime.errors import BundleCorruptError, BundleVersionError, InputError, MemoryBudgetError
from amodal.runtime.execution.run import Run
from amodal.runtime.families import Bundle
from amodal.runtime.scenes import make_scene

from .stand_ins import StandIn, forget_stand_ins
from .toy_family import runtime as toy

NAME = "toy"


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(families._REGISTRY, NAME, toy.__name__)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    for module in ("torch", "onnx_ir", "onnxruntime"):
        pytest.importorskip(module)
    from .toy_family.export import export_toy

    return export_toy(tmp_path_factory.mktemp("toy") / "bundle", NAME)


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[StandIn]:
    yield StandIn(monkeypatch, tmp_path / "calls", here=True)
    forget_stand_ins()


@pytest.fixture
def engines(exported: Path, gpu: StandIn, tmp_path: Path) -> Path:
    build_engines(Bundle(exported), BuildSettings("tensorrt", "this", engine_dir=tmp_path / "engines"))
    return tmp_path / "engines"


def issue(*args: Any) -> Result:
    outcome = CliRunner().invoke(command, [str(arg) for arg in args], catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return outcome


def slowly(weights: dict[str, Any], pictures: Any) -> Any:
    """The two networks in float64, one shifted product after the other."""
    x = pictures.transpose(0, 3, 1, 2) / 127.5 - 1

    def convolve(x: Any, weight: Any, bias: Any) -> Any:
        height, width = x.shape[2:]
        framed = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        parts = [
            np.einsum("oc,tchw->tohw", weight[:, :, i, j], framed[:, :, i : i + height, j : j + width])
            for i in range(3)
            for j in range(3)
        ]
        return sum(parts) + bias[None, :, None, None]

    for role in toy.ROLES:
        for layer in ("inner", "outer"):
            x = convolve(x, weights[f"{role}.{layer}.weight"], weights[f"{role}.{layer}.bias"])
            x = x / (1 + np.exp(-x)) if layer == "inner" else x
    return x[:, 0]


def stored_weights(bundle: Bundle) -> dict[str, Any]:
    import onnx

    found = {}
    for role in toy.ROLES:
        model = onnx.load(bundle.files(role)[0])
        for tensor in model.graph.initializer:
            if tensor.name.startswith(("inner", "outer")):
                found[f"{role}.{tensor.name}"] = onnx.numpy_helper.to_array(tensor).astype(np.float64)
    return found


def test_it_is_exported_and_opened(exported: Path) -> None:
    bundle = Bundle(exported)
    assert bundle.family is toy.FAMILY
    assert (bundle.config.frames, bundle.config.size) == (5, (16, 32))
    assert set(bundle.manifest.components) == {"look", "decide"}
    assert all(
        entry.difference is not None and entry.difference < 1e-5 for entry in bundle.manifest.components.values()
    )


def test_it_runs_and_computes_what_its_weights_say(exported: Path) -> None:
    pictures = make_scene(4, 5, (16, 32)).frames
    with amodal.load(exported) as model:
        found = model.run("outline", pictures)
        assert set(model.session.components.timings) >= {"look", "decide"}
        with pytest.raises(InputError, match=r"pictures are \[5, 16, 16, 3\]"):
            model.run("outline", pictures[:, :, :16])
        with pytest.raises(InputError, match="has no segment stage, only outline"):
            model.run("segment", pictures)
    expected = slowly(stored_weights(Bundle(exported)), pictures)
    assert relative_l2(found["scores"], expected) < 1e-5
    assert found["masks"].any()
    assert not found["masks"].all()


def test_it_is_inspected(exported: Path) -> None:
    shown = issue("inspect", exported, "--shapes").output
    for words in ("toy", "stage outline", "at_once           2", "look", "decide", "pictures"):
        assert words in shown
    assert json.loads(issue("inspect", exported, "--json").stdout)["family"] == "toy"


def test_it_is_built_planned_and_run_on_a_gpu(exported: Path, engines: Path, gpu: StandIn) -> None:
    pictures = make_scene(4, 5, (16, 32)).frames
    with amodal.load(exported) as model:
        expected = model.run("outline", pictures)
    with amodal.load(exported, "tensorrt", engine_dir=engines, memory="auto", vram="1GB") as model:
        assert model.plan is not None
        assert [phase.name for phase in model.plan.phases] == ["look", "decide"]
        assert model.plan.run == Run(("outline",))
        found = model.run("outline", pictures)
        least = model.plan.peak_bytes
    np.testing.assert_allclose(found["scores"], expected["scores"], atol=1e-5)
    with pytest.raises(MemoryBudgetError, match=r"in the (look|decide) phase of outline"):
        amodal.load(exported, "tensorrt", engine_dir=engines, memory="auto", vram=1000)
    shown = issue("inspect", exported, "--memory", "--backend", "tensorrt", "--engine-dir", engines, "--json")
    plans = json.loads(shown.stdout)["plans"]
    assert [plan["memory"] for plan in plans] == ["resident", "sequential"]
    assert plans[0]["peak_bytes"] == least


def test_its_engines_accept_every_call_that_it_makes(exported: Path) -> None:
    bundle = Bundle(exported)
    made = bundle.family.calls(bundle.manifest)
    assert [(call.component, dict(call.axes), call.count) for phase in made.phases for call in phase.calls] == [
        (role, {"pictures": size}, count) for role in ("look", "decide") for size, count in ((2, 2), (1, 1))
    ]
    for phase in made.phases:
        for call in phase.calls:
            (profile,) = bundle.family.profiles(bundle.manifest, call.component)
            assert call.profile == profile.name
            assert call.share == Fraction(1)


def test_it_is_verified(exported: Path, engines: Path) -> None:
    found = verify_bundle(Bundle(exported), VerifySettings(steps=1, seed=3))
    assert found.ok
    assert [(row.component, row.calls) for row in found.components] == [("look", 1), ("decide", 1)]
    (row,) = found.stages
    assert (row.stage, row.mask_iou, row.frames_max) == ("outline", 1.0, None)
    assert row.latents < 1e-5
    assert "verified" in issue("verify", exported, "--steps", "1").output
    built = verify_bundle(Bundle(exported), VerifySettings("tensorrt", target="this", engine_dir=engines, steps=1))
    assert built.ok, built.problems


def test_a_graph_that_computes_something_else_is_found(exported: Path, tmp_path: Path) -> None:
    from .toy_family.export import export_toy

    other = export_toy(tmp_path / "half", NAME, "fp16")
    weights = other / "graphs" / "decide.onnx.data"
    spoilt = np.frombuffer(weights.read_bytes(), np.float16).copy()
    spoilt[:] = np.inf
    weights.write_bytes(spoilt.tobytes())
    (other / "manifest.json").write_text(_with_hash(other, "decide", weights))
    found = verify_bundle(Bundle(other), VerifySettings(steps=1))
    assert not found.ok
    assert {name for name, _ in found.problems} >= {"decide"}


def _with_hash(bundle: Path, key: str, file: Path) -> str:
    import hashlib

    document = json.loads((bundle / "manifest.json").read_text())
    for entry in document["components"][key]["files"]:
        if entry["path"].endswith(file.name):
            entry["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    return json.dumps(document)


@pytest.mark.slow
def test_it_is_timed_and_counted(exported: Path) -> None:
    pytest.importorskip("psutil")
    pytest.importorskip("onnx")
    timed = json.loads(issue("bench", "latency", exported, "--no-cold", "--repeats", "2", "--json").stdout)
    (measured,) = timed["measurements"]
    assert measured["work"]["stages"] == ["outline"]
    assert [set(clip["components"]) for clip in measured["clips"]] == [{"outline/look", "outline/decide"}] * 2
    assert all(clip["seconds"] > sum(clip["components"].values()) > 0 for clip in measured["clips"])
    assert "outline" in issue("bench", "latency", exported, "--no-cold", "--repeats", "2").output
    counted = json.loads(issue("bench", "roofline", exported, "--no-run", "--json").stdout)["measurements"][0]
    costs = {cost["component"]: cost for cost in counted["components"]}
    products = 2 * 5 * 16 * 32 * 9 * (3 * 3 + 3 * 4)  # a multiply-add is two
    assert costs["outline/look"]["flops"]["convolution"] == products
    assert costs["outline/look"]["calls"] == 3


@pytest.mark.parametrize("arguments", [("run", "--frames", "f", "--masks", "m", "-o", "out"), ("run", "--help")])
def test_a_family_without_options_of_its_own_says_so(exported: Path, arguments: tuple[str, ...]) -> None:
    outcome = CliRunner().invoke(command, [arguments[0], str(exported), *arguments[1:]])
    assert "has no options for the family toy; use it from Python" in str(outcome.exception)


def test_a_family_without_streams_says_so(exported: Path) -> None:
    with amodal.load(exported) as model, pytest.raises(InputError, match="the family toy, which has no streams"):
        model.stream()


def test_a_family_that_is_not_registered_is_refused(exported: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(families, "_REGISTRY", {"diffusion-vas": families._REGISTRY["diffusion-vas"]})
    with pytest.raises(BundleVersionError, match="of the family toy, this amodal runs diffusion-vas"):
        Bundle(exported)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda d: d["config"].pop("at_once"), "at_once: Field required"),
        (lambda d: d["tasks"]["outline"]["components"].pop("look"), "expected outline with look, decide"),
    ],
)
def test_its_config_is_its_own_to_validate(
    spoil: Callable[[Any], Any], message: str, exported: Path, tmp_path: Path
) -> None:
    document = json.loads((exported / "manifest.json").read_text())
    spoil(document)
    (tmp_path / "graphs").symlink_to(exported / "graphs")
    (tmp_path / "manifest.json").write_text(json.dumps(document))
    with pytest.raises(BundleCorruptError, match=message):
        Bundle(tmp_path)


@pytest.mark.slow
def test_exporting_over_a_bundle_of_another_family_is_left_to_what_is_exported(exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(exported, out)
    issue("export", "--random", "tiny", "--random-depth", "none", "--size", "64x64", "--frames", 1, "-o", out,
          "--check", "none", "--overwrite", "-q")  # fmt: skip
    assert Bundle(out).manifest.family == "diffusion-vas"
