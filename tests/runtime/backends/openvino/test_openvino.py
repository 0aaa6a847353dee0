"""The backend `openvino`: bfloat16 where it may be, beside ONNX Runtime in float32."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import amodal
from amodal.engines.compare import mask_iou, relative_l2
from amodal.runtime import backends
from amodal.runtime.backends import openvino
from amodal.runtime.errors import BackendError, BackendUnavailableError, BundleCorruptError, InputError
from amodal.runtime.families import Bundle
from amodal.runtime.scenes import make_scene

STEPS = 4


@pytest.fixture(autouse=True, scope="module")
def usable() -> None:
    state = backends.availability("openvino")
    if not state.usable:
        pytest.skip(state.reason)


@pytest.fixture(scope="module")
def scene() -> Any:
    return make_scene(8, 8, (64, 128))


def draw(backend: str, scene: Any, **options: Any) -> tuple[Any, Any]:
    with amodal.load("default", backend=backend, **options) as model:
        seen = model.segment(scene.modal, depth=scene.depth, steps=STEPS)
        return seen, model.complete(scene.frames, scene.modal, scene.amodal, seed=seen.noise, steps=STEPS)


@pytest.fixture(scope="module")
def drawn(scene: Any) -> tuple[Any, Any]:
    return draw("openvino", scene)


@pytest.mark.slow
def test_a_clip_is_that_of_float32_but_for_rounding(drawn: tuple[Any, Any], scene: Any) -> None:
    seen, whole = drawn
    expected, completed = draw("onnxruntime", scene)
    # FP16's limit in `verify`: 8 bits of mantissa instead of 11, in a network trained in them.
    assert mask_iou(seen.masks, expected.masks) >= 0.995
    assert np.abs(whole.frames.astype(int) - completed.frames).mean() <= 3
    assert (whole.frames != completed.frames).any(), "nothing was rounded"


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"memory": "sequential"}, {"threads": 1}])
def test_memory_and_threads_change_the_result_by_less_than_rounding_does(
    drawn: tuple[Any, Any], scene: Any, options: dict[str, Any]
) -> None:
    seen, whole = draw("openvino", scene, **options)
    assert mask_iou(seen.masks, drawn[0].masks) >= 0.999
    assert np.abs(whole.frames.astype(int) - drawn[1].frames).mean() <= 1


@pytest.mark.slow
def test_two_runs_are_equal_bit_for_bit(drawn: tuple[Any, Any], scene: Any) -> None:
    seen, whole = draw("openvino", scene)
    np.testing.assert_array_equal(seen.masks, drawn[0].masks)
    np.testing.assert_array_equal(whole.frames, drawn[1].frames)


@pytest.fixture
def pair() -> dict[str, Any]:
    return {name: backends.create(name, threads=1) for name in ("onnxruntime", "openvino")}


def component(kind: str) -> tuple[Any, list[Path]]:
    bundle = Bundle("default")
    key = bundle.manifest.tasks["segment"].components[kind]
    entry = bundle.component(key)
    return entry, [bundle.path / file.path for file in entry.files]


def feed(entry: Any, sizes: dict[str, int]) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    shapes = {i.name: [sizes.get(d, d) if isinstance(d, str) else d for d in i.shape] for i in entry.inputs}
    arrays = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
    return arrays | {name: np.abs(array) for name, array in arrays.items() if name == "sigmas"}


def test_what_needs_float32_has_it_to_the_bit(pair: dict[str, Any]) -> None:
    entry, files = component("unet_conditioner")
    given = feed(entry, {"rows": 2, "steps": 3, "frames": 2})
    mine, theirs = (pair[name].load(entry, files)(given) for name in ("openvino", "onnxruntime"))
    assert mine.keys() == theirs.keys()
    for name in mine:
        np.testing.assert_array_equal(mine[name], theirs[name])


@pytest.mark.parametrize("kind", ["unet", "vae_encoder", "vae_decoder", "image_encoder"])
def test_networks_are_rounded_whatever_the_shape(pair: dict[str, Any], kind: str) -> None:
    entry, files = component(kind)
    mine, theirs = (pair[name].load(entry, files) for name in ("openvino", "onnxruntime"))
    for count in (2, 1, 2):
        given = feed(entry, {"rows": count, "frames": count})
        got, want = mine(given), theirs(given)
        assert got.keys() == want.keys()
        for name in got:
            assert got[name].shape == want[name].shape
            assert got[name].dtype == np.float32
            # At least something of bfloat16's last bit (2^-9), at most what many layers add up to.
            assert 1e-4 < relative_l2(got[name], want[name]) < 0.03


def test_outputs_have_the_names_of_the_manifest(pair: dict[str, Any]) -> None:
    from openvino import Core, Model, opset13

    x = opset13.parameter([2], np.float32, name="x")
    model = Model([opset13.relu(x)], [x], "m")
    model.output(0).get_tensor().set_names({"a", "wanted", "z"})  # as OpenVINO 2025 names what an Identity gives
    entry = SimpleNamespace(kind="unet", outputs=[SimpleNamespace(name="wanted")])
    network = openvino._Network(Core(), model, entry, {"NUM_STREAMS": 1}, None)
    np.testing.assert_array_equal(network({"x": np.array([-1, 1], np.float32)})["wanted"], [0, 1])


@pytest.mark.slow
def test_a_plugin_without_the_switch_for_snippets_does_without(
    pair: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry, files = component("vae_decoder")
    given = feed(entry, {"frames": 1})
    (expected,) = pair["openvino"].load(entry, files)(given).values()
    monkeypatch.setattr(openvino, "_SNIPPETS", "NO_SUCH_SWITCH")
    (got,) = pair["openvino"].load(entry, files)(given).values()
    assert relative_l2(got, expected) < 0.03
    monkeypatch.setattr(openvino, "_SMALL_ATTENTION", 0)
    pair["openvino"].load(*component("unet"))(feed(component("unet")[0], {"rows": 1}))


def test_results_outlive_the_next_call(pair: dict[str, Any]) -> None:
    entry, files = component("vae_decoder")
    network = pair["openvino"].load(entry, files)
    given = feed(entry, {"frames": 1})
    (kept,) = network(given).values()
    before = kept.copy()
    network({name: array + 1 for name, array in given.items()})
    np.testing.assert_array_equal(kept, before)


def test_a_closed_component_says_so(pair: dict[str, Any]) -> None:
    network = pair["openvino"].load(*component("image_encoder"))
    network.close()
    network.close()
    with pytest.raises(BackendError, match="image_encoder was closed; load the bundle again"):
        network({})


def test_a_call_of_another_shape_is_one_sentence(pair: dict[str, Any]) -> None:
    entry, files = component("image_encoder")
    with pytest.raises(BackendError, match="openvino failed in component image_encoder: "):
        pair["openvino"].load(entry, files)({"pixels": np.zeros((1, 3, 5), np.float32)})


def test_a_damaged_graph_is_one_sentence(pair: dict[str, Any], tmp_path: Path) -> None:
    entry, files = component("image_encoder")
    there = [Path(shutil.copy(file, tmp_path)) for file in files]
    there[0].write_bytes(b"nothing")
    with pytest.raises(BundleCorruptError, match=r"openvino cannot load .*export the bundle again"):
        pair["openvino"].load(entry, there)


def test_what_it_does_not_have_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BackendUnavailableError, match="no device 'cuda'; expected cpu"):
        backends.create("openvino", device="cuda")
    with pytest.raises(InputError, match="0 threads"):
        backends.create("openvino", threads=0)
    monkeypatch.setitem(__import__("sys").modules, "openvino", None)
    state = backends.availability("openvino")
    assert not state.usable
    assert 'pip install "amodal[openvino]"' in state.reason


@pytest.mark.parametrize(
    ("flags", "there"),
    [("fpu avx512f avx512_bf16", True), ("amx_bf16 amx_tile", True), ("avx2 avx512f", False), ("", False)],
)
def test_a_cpu_without_bfloat16_is_told_what_is_as_fast(
    flags: str, there: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "cpuinfo"
    file.write_text(f"processor\t: 0\nflags\t\t: {flags}\n\nprocessor\t: 1\nflags\t\t: fpu\n")
    assert openvino.multiplies_bfloat16(file) is there
    assert not openvino.multiplies_bfloat16(tmp_path / "none")
    monkeypatch.setattr(openvino, "multiplies_bfloat16", lambda: there)
    state = backends.availability("openvino")
    assert state.usable is there
    assert there or "use onnxruntime, as fast in float32" in state.reason


def test_nobody_gets_it_without_asking() -> None:
    assert "openvino" in backends.names()
    assert "openvino" not in backends.preferred()
    assert all(name != "openvino" for name, _ in backends.gpu_choices())
    with amodal.load("default", backend="auto") as model:
        assert model.backend.describe()["name"] == "onnxruntime"
