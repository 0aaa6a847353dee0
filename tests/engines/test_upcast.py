"""The float32 twin: the same weights and operators, nothing in half precision."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from amodal.engines.compare import relative_l2  # noqa: E402
from amodal.engines.upcast import GraphSession, TwinBackend, half_tensors, read_graph, upcast  # noqa: E402
from amodal.runtime.backends.onnxruntime.graph import run_graph  # noqa: E402
from amodal.runtime.bundle.reading import Bundle  # noqa: E402
from amodal.runtime.errors import BackendError, BundleError, MissingDependencyError  # noqa: E402

SIZE = (64, 128)


def _exactly_half(checkpoint: Any) -> Any:
    """A checkpoint whose vectors, which `stored` leaves in float32, half precision holds exactly."""
    import torch

    from amodal.export.graph.weights import Weight, Weights

    def rounded(name: str, weight: Weight) -> Weight:
        def load() -> Any:
            value = weight.load()
            return torch.zeros_like(value) if name.endswith("mix_factor") else value.half().float()

        return weight._replace(load=load)

    def network(found: Any) -> Any:
        entries = {name: rounded(name, found.weights[name]) for name in found.weights}
        return dataclasses.replace(found, weights=Weights(entries, found.weights.source))

    return dataclasses.replace(checkpoint, unet=network(checkpoint.unet), vae=network(checkpoint.vae))


@pytest.fixture(scope="module")
def pair(exporter: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Bundle, Bundle]:
    """The same stored weights under arithmetic in half precision, and in float32."""
    from amodal.export.checkpoints.checkpoint import random_checkpoint

    stages = {"segment": _exactly_half(random_checkpoint("tiny", "segment"))}
    folder = tmp_path_factory.mktemp("pair")
    half = exporter(folder / "half", stages, size=SIZE, frames=2, precision="fp16", variant="engine")
    single = exporter(folder / "single", stages, size=SIZE, frames=2, precision="fp32", stored="fp16", variant="engine")
    return Bundle(half), Bundle(single)


def _feeds(bundle: Bundle, key: str) -> dict[str, Any]:
    rng = np.random.default_rng(7)
    free = {"rows": 1, "frames": 2, "steps": 3}
    return {
        tensor.name: rng.standard_normal([free.get(n, n) for n in tensor.shape], np.float32)  # type: ignore[call-overload]
        for tensor in bundle.component(key).inputs
    }


@pytest.mark.slow
@pytest.mark.parametrize("key", ["segment_unet", "vae_decoder", "vae_encoder", "segment_unet_conditioner"])
def test_a_twin_computes_what_an_export_for_float32_does(pair: tuple[Bundle, Bundle], key: str) -> None:
    half, single = pair
    feeds = _feeds(half, key)
    if "sigmas" in feeds:
        feeds["sigmas"] = np.abs(feeds["sigmas"]) + 0.1
    found = TwinBackend(1).load(half.component(key), half.files(key))(feeds)
    expected = run_graph(single.files(key)[0], feeds, 1)
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert relative_l2(found[name], value) < 1e-5, name
    if half.component(key).precision == "fp16":
        # As a control: the graph itself is further off than that.
        itself = run_graph(half.files(key)[0], feeds, 1)
        assert max(relative_l2(itself[name], value) for name, value in expected.items()) > 1e-4


def test_every_half_tensor_keeps_its_name_and_no_half_is_left(pair: tuple[Bundle, Bundle]) -> None:
    model = read_graph(pair[0].files("segment_unet")[0])
    twin = upcast(model)
    names = {name for node in twin.graph.node for name in node.output}
    half = half_tensors(model)
    # All that is computed, but the inputs of softmax and what is of whole numbers.
    assert len(half) > 0.9 * sum(len(node.output) for node in model.graph.node)
    assert {tensor.name for tensor in half} <= names
    assert half_tensors(twin) == []
    assert [v.name for v in twin.graph.output] == [v.name for v in model.graph.output]


def test_weights_stay_where_they_are(pair: tuple[Bundle, Bundle]) -> None:
    file = pair[0].files("vae_decoder")[0]
    before = sorted(path.name for path in file.parent.iterdir())
    twin = upcast(read_graph(file))
    assert [t.data_type for t in twin.graph.initializer] == [t.data_type for t in read_graph(file).graph.initializer]
    assert len(twin.SerializeToString()) < 2 * file.stat().st_size
    TwinBackend(1).load(pair[0].component("vae_decoder"), pair[0].files("vae_decoder")).close()
    assert sorted(path.name for path in file.parent.iterdir()) == before


def _small(nodes: list[Any], weights: list[Any], shape: list[int]) -> Any:
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT16, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT16, None)],
        weights,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11)


def test_constants_casts_and_half_inputs_are_widened() -> None:
    tenth = numpy_helper.from_array(np.asarray(0.1, np.float16))
    nodes = [
        helper.make_node("Constant", [], ["c"], value=tenth),
        helper.make_node("Cast", ["x"], ["single"], to=TensorProto.FLOAT),
        helper.make_node("Exp", ["single"], ["e"]),
        helper.make_node("Cast", ["e"], ["h"], to=TensorProto.FLOAT16),
        helper.make_node("Mul", ["h", "c"], ["m"]),
        helper.make_node("Add", ["m", "w"], ["a"]),
        helper.make_node("Concat", ["a", "h"], ["y"], axis=0),
    ]
    model = _small(nodes, [numpy_helper.from_array(np.asarray([1, 2, 3], np.float16), "w")], [3])
    assert [t.name for t in half_tensors(model)] == ["c", "h", "m", "a", "y"]
    x = np.asarray([0.5, 1.3, 10.9], np.float32)
    session = GraphSession(upcast(model).SerializeToString(), Path(), "small", 1)
    h = np.exp(x.astype(np.float64))
    expected = np.concatenate([h * np.float64(np.float16(0.1)) + [1, 2, 3], h])
    np.testing.assert_allclose(session({"x": x})["y"], expected, rtol=1e-6)
    session.close()
    with pytest.raises(BackendError, match="small was closed"):
        session({"x": x})


def test_only_what_is_half_is_found() -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["s"]),
        helper.make_node("Greater", ["x", "x"], ["b"]),
        helper.make_node("Where", ["b", "x", "x"], ["z"]),
        helper.make_node("LayerNormalization", ["z", "w", "", ""][:2], ["n", "mean"], axis=-1),
        helper.make_node("Identity", ["n"], ["y"]),
    ]
    model = _small(nodes, [numpy_helper.from_array(np.ones(3, np.float16), "w")], [2, 3])
    assert [t.name for t in half_tensors(model)] == ["z", "n", "y"]


def test_float32_graphs_need_no_onnx_and_half_ones_name_it(
    pair: tuple[Bundle, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    half, single = pair
    monkeypatch.setitem(sys.modules, "onnx", None)
    TwinBackend(1).load(single.component("vae_decoder"), single.files("vae_decoder")).close()
    with pytest.raises(MissingDependencyError, match="pip install onnx"):
        TwinBackend(1).load(half.component("vae_decoder"), half.files("vae_decoder"))


def test_what_is_no_graph_or_not_known_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no graph")
    with pytest.raises(BundleError, match=r"x\.onnx is no ONNX graph"):
        read_graph(tmp_path / "x.onnx")
    with pytest.raises(BundleError, match="does not know the operator Wavelet of node haar"):
        half_tensors(_small([helper.make_node("Wavelet", ["x"], ["y"], name="haar")], [], [1]))
    with pytest.raises(BackendError, match="cannot load the graph of small"):
        GraphSession(b"no graph", tmp_path, "small")
