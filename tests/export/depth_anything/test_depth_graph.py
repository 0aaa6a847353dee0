"""The depth graph in ONNX Runtime against the torch network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from amodal.export.depth_anything import checkpoint as depth_checkpoint  # noqa: E402
from amodal.export.depth_anything.graph import _weights, write_depth  # noqa: E402
from amodal.export.depth_anything.network import DepthNetwork, _skeleton, random_depth  # noqa: E402
from amodal.export.graph.variants import VARIANTS  # noqa: E402
from amodal.export.graph.writer import Dtypes  # noqa: E402
from amodal.runtime.errors import CheckpointError, InputError  # noqa: E402

DTYPES = {half: Dtypes.of("fp16" if half else "fp32") for half in (False, True)}

SIZE = (56, 98)  # 4 x 7 patches: halved, once without a remainder and once with


@pytest.fixture(scope="module")
def network() -> DepthNetwork:
    return random_depth("tiny")


def pixels_of(count: int, size: tuple[int, int] = SIZE) -> Any:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(7))


def session_of(file: Path) -> Any:
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])


def distance(a: Any, b: Any) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("name", ["cpu", "engine"])
def test_the_graph_gives_the_networks_depth_for_any_number_of_frames(
    network: DepthNetwork, name: str, half: bool, tmp_path: Path
) -> None:
    write_depth(network, SIZE, VARIANTS[name], dtypes=DTYPES[half]).save(tmp_path / "depth.onnx")
    session = session_of(tmp_path / "depth.onnx")
    for count in (1, 3):
        pixels = pixels_of(count)
        (depth,) = session.run(["depth"], {"pixels": pixels.numpy()})
        assert depth.dtype == np.float32
        assert distance(depth, network(pixels)) <= (5e-3 if half else 1e-5)


@pytest.mark.parametrize("half", [False, True])
def test_a_metric_graph_gives_the_networks_distances(half: bool, tmp_path: Path) -> None:
    weights = random_depth("tiny").module.state_dict()
    sizes = depth_checkpoint.VARIANTS["tiny"]
    module = _skeleton(sizes, max_depth=80)
    module.load_state_dict(weights, assign=True)
    metric = DepthNetwork(module, sizes, "nowhere")
    write_depth(metric, SIZE, VARIANTS["cpu"], dtypes=DTYPES[half]).save(tmp_path / "depth.onnx")
    (depth,) = session_of(tmp_path / "depth.onnx").run(["depth"], {"pixels": pixels_of(1).numpy()})
    expected = metric(pixels_of(1))
    assert 0 < expected.min() < expected.max() < 80
    assert distance(depth, expected) <= (5e-3 if half else 1e-5)


@pytest.mark.parametrize("size", [(14, 14), (112, 42), (518, 518)])
def test_every_multiple_of_the_patch_is_a_size(network: DepthNetwork, size: tuple[int, int], tmp_path: Path) -> None:
    """One patch, a portrait, and the grid the position embedding was trained at."""
    write_depth(network, size, VARIANTS["cpu"], dtypes=DTYPES[False]).save(tmp_path / "depth.onnx")
    pixels = pixels_of(1, size)
    (depth,) = session_of(tmp_path / "depth.onnx").run(None, {"pixels": pixels.numpy()})
    assert distance(depth, network(pixels)) <= 1e-5


@pytest.mark.parametrize("name", ["cpu", "engine"])
def test_shapes_follow_through_the_whole_graph(network: DepthNetwork, name: str, tmp_path: Path) -> None:
    write_depth(network, (518, 1036), VARIANTS[name], dtypes=DTYPES[True]).save(tmp_path / "depth.onnx")
    onnx.checker.check_model(tmp_path / "depth.onnx", full_check=True)
    model = onnx.load(tmp_path / "depth.onnx", load_external_data=False)
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    for value, shape in ((graph.input[0], [3, 518, 1036]), (graph.output[0], [518, 1036])):
        first, *rest = value.type.tensor_type.shape.dim
        assert first.dim_param == "frames"
        assert [d.dim_value for d in rest] == shape
    known = {v.name: v.type.tensor_type.shape.dim for v in (*graph.value_info, *graph.output)}
    resizes = [[d.dim_value for d in known[n.output[0]][2:]] for n in graph.node if n.op_type == "Resize"]
    assert resizes == [[37, 74], [74, 148], [148, 296], [296, 592], [518, 1036]]


@pytest.mark.parametrize("name", ["small", "base", "large"])
def test_writing_reads_no_weights_and_leaves_none_out(name: str) -> None:
    """On the meta device: every parameter is in the graph but those that went into others or never run."""
    sizes = depth_checkpoint.VARIANTS[name]
    network = DepthNetwork(_skeleton(sizes), sizes, "nowhere")
    graph = write_depth(network, (518, 518), VARIANTS["engine"], dtypes=DTYPES[True])
    scales = 2 * sizes.layers * sizes.width
    first_residual = 2 * (9 * sizes.fusion**2 + sizes.fusion)  # of the coarsest map, which is added to nothing
    assert graph.parameters == sum(p.numel() for p in network.parameters()) - scales - first_residual


def test_faint_tokens_show_the_networks_epsilon(tmp_path: Path) -> None:
    """At ordinary variances no tolerance tells one epsilon from another."""
    network = random_depth("tiny")
    embeddings = network.module.backbone.embeddings
    for parameter in embeddings.parameters():
        parameter.mul_(2e-3)
    write_depth(network, SIZE, VARIANTS["cpu"], dtypes=DTYPES[False]).save(tmp_path / "depth.onnx")
    (depth,) = session_of(tmp_path / "depth.onnx").run(None, {"pixels": pixels_of(1).numpy()})
    assert distance(depth, network(pixels_of(1))) <= 1e-5


def test_weights_are_not_copied_before_they_are_saved(network: DepthNetwork) -> None:
    tensor = network.module.head.conv2.weight
    assert _weights(network)["head.conv2.weight"].load().data_ptr() == tensor.data_ptr()


def test_a_half_precision_network_writes_the_same_graph(network: DepthNetwork, tmp_path: Path) -> None:
    write_depth(random_depth("tiny").half(), SIZE, VARIANTS["cpu"], dtypes=DTYPES[True]).save(tmp_path / "depth.onnx")
    (depth,) = session_of(tmp_path / "depth.onnx").run(None, {"pixels": pixels_of(1).numpy()})
    assert distance(depth, network(pixels_of(1))) <= 5e-3


def test_weights_beyond_half_precision_are_refused_by_name(tmp_path: Path) -> None:
    network = random_depth("tiny")
    network.module.head.conv2.bias[3] = 1e5
    network.source = "depth_anything_v2_vitl.pth"
    with pytest.raises(CheckpointError, match=r"depth_anything_v2_vitl\.pth: tensor head\.conv2\.bias"):
        write_depth(network, SIZE, VARIANTS["cpu"], dtypes=DTYPES[True]).save(tmp_path / "depth.onnx")


@pytest.mark.parametrize("size", [(518, 1030), (0, 14)])
def test_an_input_size_off_the_patch_grid_is_refused(network: DepthNetwork, size: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="multiples of 14"):
        write_depth(network, size, VARIANTS["cpu"], dtypes=DTYPES[False])
