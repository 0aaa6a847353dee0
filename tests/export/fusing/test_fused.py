"""Fused twins: what is found in the plain graphs, what both give, and how bundles carry them."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import onnx
from onnx import helper, numpy_helper

import amodal
from amodal.engines.compare import relative_l2
from amodal.export.checkpoints.checkpoint import random_checkpoint
from amodal.export.fusing import fuse_bundle, write_fused
from amodal.runtime.backends.onnxruntime.graph import run_graph
from amodal.runtime.backends.onnxruntime.kernels import DOMAIN, FUSED, SETTING, find_kernels, fused_file
from amodal.runtime.builds.store import graph_hash
from amodal.runtime.bundle.reading import Bundle
from amodal.runtime.errors import BundleCorruptError

needs_kernels = pytest.mark.skipif(find_kernels().library is None, reason="no kernels here")


def kinds(file: Path) -> Counter[str]:
    return Counter(n.op_type for n in onnx.load(file, load_external_data=False).graph.node)


def custom(file: Path) -> Counter[str]:
    nodes = onnx.load(file, load_external_data=False).graph.node
    return Counter(n.op_type for n in nodes if n.domain == DOMAIN)


def feeds_of(bundle: Bundle, key: str, rows: int = 2, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    entry = bundle.component(key)
    shapes = {t.name: [n if isinstance(n, int) else rows for n in t.shape] for t in entry.inputs}
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def bundles(exporter: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One stage in each context layout, and one with its weights in half."""
    folder = tmp_path_factory.mktemp("fused")
    stages = {"segment": random_checkpoint("tiny", "segment")}
    made = {
        layout: exporter(folder / layout, stages, size=(64, 128), frames=3, context=layout)
        for layout in ("reference", "aligned", "sequence")
    }
    made["half"] = exporter(folder / "half", stages, size=(64, 128), frames=3, stored="fp16")
    return made


@pytest.mark.parametrize("which", ["reference", "aligned", "sequence", "half"])
def test_everything_that_can_be_fused_is(bundles: dict[str, Path], which: str) -> None:
    bundle = Bundle(bundles[which])
    plain = bundle.files("segment_unet")[0]
    before, after, made = kinds(plain), kinds(fused_file(plain)), custom(fused_file(plain))
    assert made["GroupNorm"] == before["InstanceNormalization"] > 0 == after["InstanceNormalization"]
    assert made["FeedForward"] == before["Gelu"] > 0 == after["Gelu"]
    assert made["Interleave"] == before["DepthToSpace"] > 0 == after["DepthToSpace"]
    assert 0 < made["Conv3x3"] < before["Conv"]
    cross = made["SelfAttention"] if which == "sequence" else 0  # over other tokens than the queries: left alone
    assert made["SelfAttention"] + cross == before["Softmax"]
    assert after["Softmax"] == cross
    decoder = fused_file(bundle.files("vae_decoder")[0])
    assert not kinds(decoder)["Sigmoid"]
    assert custom(decoder)["Conv3x3"] > 5
    assert not fused_file(bundle.files("segment_unet_conditioner")[0]).exists()


@needs_kernels
@pytest.mark.parametrize("which", ["reference", "aligned", "sequence", "half"])
@pytest.mark.parametrize("key", ["image_encoder", "vae_encoder", "segment_unet", "vae_decoder"])
def test_a_twin_gives_what_the_graph_gives(bundles: dict[str, Path], which: str, key: str) -> None:
    bundle = Bundle(bundles[which])
    graph = bundle.files(key)[0]
    for rows in (1, 2):
        feeds = feeds_of(bundle, key, rows)
        plain, fused = run_graph(graph, feeds), run_graph(fused_file(graph), feeds)
        assert plain.keys() == fused.keys()
        for name, value in plain.items():
            assert 0 < relative_l2(fused[name], value) < 5e-6  # both round; the kernels are another order of sums


@needs_kernels
def test_a_clip_is_the_same_with_and_without(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modal = np.zeros((3, 64, 64), bool)
    modal[:, 20:44, 12:40] = True
    depth = np.linspace(0, 1, modal.size, dtype=np.float32).reshape(modal.shape)

    def run(setting: str) -> list[Any]:
        latents: list[Any] = []
        monkeypatch.setenv(SETTING, setting)
        with amodal.load(toy_bundle) as model:
            assert (model.backend.describe()["kernels"] == "no") is (setting == "off")
            model.segment(modal, depth=depth, steps=4, callback=lambda step, sigma, x: latents.append(x.copy()))
        return latents

    for fused, plain in zip(run(""), run("off"), strict=True):
        assert 0 < relative_l2(fused, plain) < 1e-4  # random weights, norms over four values


def test_the_twin_is_the_bundles(bundles: dict[str, Path], tmp_path: Path) -> None:
    """It is hashed like the rest, refers to the same weights, and is a small file."""
    path = tmp_path / "bundle"
    shutil.copytree(bundles["reference"], path)
    bundle = Bundle(path)
    graph, data, twin = bundle.files("segment_unet")
    assert twin == fused_file(graph)
    assert twin.stat().st_size < graph.stat().st_size
    stored = onnx.load(twin, load_external_data=False).graph.initializer
    places = {e.value for i in stored for e in i.external_data if e.key == "location"}
    assert places == {data.name}
    twin.write_bytes(twin.read_bytes()[:-1] + b"\0")
    with pytest.raises(BundleCorruptError, match=rf"{twin.name} differs from the hash"):
        Bundle(path).verify("segment_unet")
    twin.unlink()
    with pytest.raises(BundleCorruptError, match=rf"{twin.name} is missing"):
        Bundle(path)


def test_a_bundle_from_before_gets_its_twins(bundles: dict[str, Path], tmp_path: Path) -> None:
    path = tmp_path / "bundle"
    shutil.copytree(bundles["reference"], path)
    wanted = Bundle(path).manifest
    twins = sorted(p.name for p in path.glob(f"graphs/*{FUSED}"))
    again = fuse_bundle(path)
    assert Bundle(path).manifest == wanted
    assert len(again) == len(twins) == 4
    entries = {
        key: entry.model_copy(update={"files": tuple(f for f in entry.files if not f.path.endswith(FUSED))})
        for key, entry in wanted.components.items()
    }
    for twin in path.glob(f"graphs/*{FUSED}"):
        twin.unlink()
    (path / "manifest.json").write_text(wanted.model_copy(update={"components": entries}).model_dump_json())
    assert fuse_bundle(path) == again
    assert Bundle(path).manifest == wanted
    for key in wanted.components:
        Bundle(path).verify(key)


@pytest.mark.slow
def test_graphs_for_engines_have_none(exporter: Any, tmp_path: Path) -> None:
    stages = {"segment": random_checkpoint("tiny", "segment")}
    for name, how in (
        ("engine", {"variant": "engine"}),
        ("cuda", {"variant": "cuda"}),
        ("half", {"precision": "fp16"}),
    ):
        exporter(tmp_path / name, stages, size=(64, 64), frames=2, **how)
        assert fuse_bundle(tmp_path / name) == []
    assert not list(tmp_path.glob(f"*/graphs/*{FUSED}"))


def test_engines_are_of_the_plain_graph(bundles: dict[str, Path], tmp_path: Path) -> None:
    """So they stay right when a bundle gets its twins."""
    path = tmp_path / "bundle"
    shutil.copytree(bundles["reference"], path)
    before = {key: graph_hash(Bundle(path), key) for key in Bundle(path).manifest.components}
    for twin in path.glob(f"graphs/*{FUSED}"):
        twin.write_bytes(twin.read_bytes() + b"\0")  # as a later version would write others
    with pytest.raises(BundleCorruptError):
        Bundle(path)
    fuse_bundle(path)
    assert {key: graph_hash(Bundle(path), key) for key in Bundle(path).manifest.components} == before


Edit = Callable[[onnx.NodeProto, onnx.GraphProto], None]


def edited(source: Path, tmp_path: Path, edit: Edit, kind: str) -> Counter[str]:
    """What of a U-Net is fused after its nodes of a kind were edited."""
    model = onnx.load(source)
    for node in [n for n in model.graph.node if n.op_type == kind]:
        edit(node, model.graph)
    file = tmp_path / "edited.onnx"
    onnx.save(model, file)
    made = write_fused(file)
    return custom(made) if made is not None else Counter()


def constant(graph: onnx.GraphProto, value: Any, dtype: type = np.int64) -> str:
    name = f"made{len(graph.initializer)}"
    graph.initializer.append(numpy_helper.from_array(np.asarray(value, dtype), name))
    return name


def set_attribute(node: onnx.NodeProto, name: str, value: Any) -> None:
    kept = [a for a in node.attribute if a.name != name]
    del node.attribute[:]
    node.attribute.extend([*kept, helper.make_attribute(name, value)])


@pytest.mark.parametrize(
    ("kind", "edit", "spared"),
    [
        ("Softmax", lambda n, g: set_attribute(n, "axis", 1), "SelfAttention"),
        ("Gelu", lambda n, g: set_attribute(n, "approximate", "tanh"), "FeedForward"),
        ("Gemm", lambda n, g: set_attribute(n, "alpha", 0.5), "FeedForward"),
        ("DepthToSpace", lambda n, g: set_attribute(n, "mode", "CRD"), "Interleave"),
        ("Mul", lambda n, g: n.input.__setitem__(1, constant(g, [0.3], np.float32)), "SelfAttention"),
        ("InstanceNormalization", lambda n, g: n.input.__setitem__(1, constant(g, [2] * 32, np.float32)), "GroupNorm"),
        ("LayerNormalization", lambda n, g: set_attribute(n, "axis", 1), "FeedForward"),
    ],
)
def test_what_means_something_else_is_left_alone(
    bundles: dict[str, Path],
    tmp_path: Path,
    kind: str,
    edit: Edit,
    spared: str,
) -> None:
    source = Bundle(bundles["reference"]).files("segment_unet")[0]
    untouched = edited(source, tmp_path, lambda n, g: None, kind)
    assert untouched == custom(fused_file(source))
    if kind == "Mul":  # only those that scale queries
        changed = edited(source, tmp_path, lambda n, g: edit(n, g) if n.input[1].startswith("c") else None, kind)
    else:
        changed = edited(source, tmp_path, edit, kind)
    assert untouched[spared] > 0 == changed[spared]


def test_attention_of_unlike_lengths_is_refused(tmp_path: Path) -> None:
    ort = pytest.importorskip("onnxruntime")
    if find_kernels().library is None:
        pytest.skip("no kernels here")
    float32 = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("SelfAttention", ["q", "k", "v"], ["y"], domain=DOMAIN, heads=1)],
        "one",
        [helper.make_tensor_value_info(n, float32, ["n", "l", 16]) for n in "qkv"],
        [helper.make_tensor_value_info("y", float32, ["n", "l", 16])],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid(DOMAIN, 1)]
    options = ort.SessionOptions()
    options.register_custom_ops_library(str(find_kernels().library))
    model = helper.make_model(graph, opset_imports=opsets, ir_version=11).SerializeToString()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    q, k = (np.zeros((1, length, 16), np.float32) for length in (4, 3))
    with pytest.raises(Exception, match="queries, keys and values of different shapes"):
        session.run(None, {"q": q, "k": k, "v": k})


def convolution(tmp_path: Path, shape: tuple[int, ...], out: int = 16, kernel: int = 3, **attributes: Any) -> Path:
    """A graph of one convolution, whose weights are zero."""
    float32 = onnx.TensorProto.FLOAT
    weights = [
        np.zeros((out, shape[1] // attributes.get("group", 1), kernel, kernel), np.float32),
        np.zeros(out, np.float32),
    ]
    attributes = {"kernel_shape": [kernel] * 2, "pads": [kernel // 2] * 4, **attributes}
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w", "b"], ["y"], name="layer/Conv_0", **attributes)],
        "one",
        [helper.make_tensor_value_info("x", float32, shape)],
        [helper.make_tensor_value_info("y", float32, [None] * 4)],
        [numpy_helper.from_array(w, n) for w, n in zip(weights, "wb", strict=True)],
    )
    file = tmp_path / "graph.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=11), file)
    return file


@pytest.mark.parametrize(
    ("shape", "how", "fused"),
    [
        ((2, 16, 8, 16), {}, True),
        ((2, 32, 4, 8), {"out": 48}, True),
        ((2, 16, 2, 4), {}, False),  # half of each tile
        ((2, 16, 5, 5), {}, False),
        ((2, 12, 8, 16), {}, False),  # channels that fill no vector
        ((2, 16, 8, 16), {"out": 3}, False),
        ((2, 16, 8, 16), {"kernel": 1}, False),
        ((2, 16, 8, 16), {"strides": [2, 2]}, False),
        ((2, 16, 8, 16), {"dilations": [2, 2], "pads": [2] * 4}, False),
        ((2, 16, 8, 16), {"pads": [0, 0, 1, 1]}, False),
        ((2, 32, 8, 16), {"group": 2}, False),
        ((1, 512, 8, 16), {"out": 512}, False),  # weights that would take 38 MB
        ((1, 320, 256, 256), {"out": 320}, True),  # 15 MB, less than the maps
    ],
)
def test_which_convolutions(tmp_path: Path, shape: tuple[int, ...], how: dict[str, Any], fused: bool) -> None:
    file = convolution(tmp_path, shape, **how)
    assert (write_fused(file) is not None) is fused
    assert fused_file(file).exists() is fused
