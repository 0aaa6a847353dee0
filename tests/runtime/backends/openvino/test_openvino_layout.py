"""Maps kept channels-last draw what ONNX Runtime draws from the graph as it was, and are not moved about."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from amodal.engines.compare import relative_l2
from amodal.runtime.bundle.reading import Bundle

ov = pytest.importorskip("openvino")
ort = pytest.importorskip("onnxruntime")
from openvino import opset13 as op  # noqa: E402

from amodal.runtime.backends.openvino.layout import keep_channels_last, largest_attention  # noqa: E402

DEFAULT = Bundle("default")
NETWORKS = [
    (stage, kind, rows)
    for stage in ("segment", "complete")
    for kind, rows in (("unet", 1), ("unet", 2), ("vae_encoder", 3), ("vae_decoder", 2))
]


def graph(stage: str, kind: str) -> str:
    entry = DEFAULT.component(DEFAULT.manifest.stages[stage].components[kind])
    return str(DEFAULT.path / entry.files[0].path)


def read(path: str, free: int) -> tuple[Any, dict[str, NDArray[np.float32]]]:
    """A network of static shapes, and something to call it with."""
    network = ov.Core().read_model(path)
    shapes = {i.any_name: [d.get_length() if d.is_static else free for d in i.partial_shape] for i in network.inputs}
    network.reshape(shapes)
    rng = np.random.default_rng(5)
    return network, {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def compiled(network: Any, precision: str = "f32") -> Any:
    return ov.Core().compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": precision})


def run(network: Any, given: Any, precision: str = "f32") -> NDArray[np.float32]:
    return np.array(compiled(network, precision)(given)[0])


@pytest.mark.parametrize(("stage", "kind", "rows"), NETWORKS)
def test_every_network_of_the_default_model_draws_the_same(stage: str, kind: str, rows: int) -> None:
    network, given = read(graph(stage, kind), rows)
    expected = ort.InferenceSession(graph(stage, kind), providers=["CPUExecutionProvider"]).run(None, given)[0]
    assert keep_channels_last(network) > 0
    assert relative_l2(run(network, given), expected) <= 1e-5  # the limit of float32 graphs against torch


def moved(network: Any) -> int:
    """Elements of maps and tokens that the plugin reorders; weights have fewer axes, fakes move nothing."""
    total = 0
    for node in compiled(network, "bf16").get_runtime_model().get_ops():
        shape = [d.get_length() for d in node.get_output_partial_shape(0)] if node.get_output_size() else []
        reorders = node.get_rt_info()["layerType"].astype(str) == "Reorder"
        if reorders and len(shape) > 2 and not node.get_friendly_name().endswith("_fake"):
            kind = node.input_value(0).get_node().get_rt_info()["layerType"].astype(str)
            total += 0 if kind == "Const" else math.prod(shape)
    return total


@pytest.mark.parametrize(
    ("stage", "kind"), [("segment", "unet"), ("segment", "vae_encoder"), ("complete", "vae_decoder")]
)
def test_maps_stay_where_they_are(stage: str, kind: str) -> None:
    before, _ = read(graph(stage, kind), 2)
    after = before.clone()
    keep_channels_last(after)
    assert moved(after) < 0.3 * moved(before)


@pytest.mark.parametrize("variant", ["engine", "cpu"])
def test_graphs_in_half_precision_are_recognised(exporter: Any, tmp_path: Path, variant: str) -> None:
    from amodal.export.checkpoints.checkpoint import random_checkpoint

    stages = {"segment": random_checkpoint("tiny", "segment")}
    settings = {"size": (64, 128), "frames": 4, "precision": "fp16", "variant": variant}
    bundle = Bundle(exporter(tmp_path / "bundle", stages, **settings))
    for kind in ("unet", "vae_encoder", "vae_decoder"):
        entry = bundle.component(bundle.manifest.stages["segment"].components[kind])
        before, given = read(str(bundle.path / entry.files[0].path), 2)
        after = before.clone()
        assert keep_channels_last(after) > 0
        assert relative_l2(run(after, given), run(before, given)) <= 1e-5
        assert moved(after) < 0.3 * moved(before)


def both(build: Callable[[Any], Any], shape: Sequence[int]) -> tuple[int, NDArray[np.float32], NDArray[np.float32]]:
    """How many operators changed, and what a network gives before and after."""
    x = op.parameter(list(shape), np.float32, name="x")
    network = ov.Model([build(x)], [x], "network")
    given = [np.random.default_rng(7).standard_normal(shape, dtype=np.float32)]
    before = run(network.clone(), given)
    changed = keep_channels_last(network)
    return changed, run(network, given), before


def weights(*shape: int) -> Any:
    values = np.random.default_rng(sum(shape)).standard_normal(shape, dtype=np.float32)
    return op.constant(values / np.sqrt(np.float32(np.prod(shape[1:]))))


def ints(*values: int) -> Any:
    return op.constant(np.array(values, np.int64))


def conv(x: Any, kernel: Any, pads: Sequence[int], strides: Sequence[int] = (1, 1)) -> Any:
    return op.convolution(x, kernel, list(strides), list(pads), list(pads), [1, 1])


def to_time(x: Any, rows: int, frames: int) -> Any:
    _, c, h, w = (d.get_length() for d in x.get_output_partial_shape(0))
    return op.transpose(op.reshape(x, ints(rows, frames, c, h * w), False), ints(0, 2, 1, 3))


def to_frames(x: Any, h: int, w: int) -> Any:
    b, c, t, _ = (d.get_length() for d in x.get_output_partial_shape(0))
    return op.reshape(op.transpose(x, ints(0, 2, 1, 3)), ints(b * t, c, h, w), False)


def of_other_sides(x: Any) -> tuple[Any, Any]:
    """Two maps in time that have as many positions, but not the same height."""
    return tuple(
        to_time(conv(op.reshape(x, ints(6, 8, *sides), False), weights(8, 8, 3, 3), (1, 1)), 2, 3)
        for sides in ((4, 6), (24, 1))
    )


def instance_norm(
    x: Any,
    groups: int,
    gain: Any,
    inside: str = "",
    ones: float = 1.0,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[Sequence[int]] = ((0, 0), (0, 0)),
) -> Any:
    shape = [d.get_length() for d in x.get_output_partial_shape(0)]
    y = op.reshape(x, ints(shape[0], groups, -1), False)
    y = op.mvn(op.convert(y, inside) if inside else y, ints(2), True, 1e-5, "inside_sqrt")
    y = op.multiply(y, op.constant(np.full((1, groups, 1), ones, np.float32)))
    y = op.add(y, op.constant(np.zeros((1, groups, 1), np.float32)))
    y = op.convert(y, "f16") if inside else y
    begin, end = map(list, pads)
    return op.group_convolution(op.reshape(y, ints(*shape), False), gain, list(strides), begin, end, [1, 1])


def half(*shape: int) -> Any:
    return op.constant(weights(*shape).data.astype(np.float16))


def resized(x: Any, nearest: str) -> Any:
    sizes, axes = ints(8, 12), ints(2, 3)
    return op.interpolate(x, sizes, "nearest", "sizes", [0], [0], "asymmetric", nearest, False, -0.75, axes)


def in_time(
    kernel: tuple[int, int], pads: tuple[int, int], after: Callable[[Any], Any] = lambda x: x
) -> Callable[[Any], Any]:
    def build(x: Any) -> Any:
        y = to_time(conv(x, weights(8, 8, 3, 3), (1, 1)), 2, 3)
        return to_frames(after(conv(y, weights(8, 8, *kernel), pads)), 4, 6)

    return build


PATTERNS: dict[str, tuple[Callable[[Any], Any], int]] = {
    "stride": (lambda x: conv(x, weights(4, 8, 3, 3), (1, 1), (2, 2)), 1),
    "time": (in_time((3, 1), (1, 0)), 2),
    "a sum in time": (in_time((3, 1), (1, 0), lambda y: op.add(y, weights(1, 8, 1, 1))), 3),
    "frames in time": (in_time((3, 1), (1, 0), lambda y: instance_norm(y, 4, weights(8, 1, 1, 1, 1))), 3),
    "groups of frames": (lambda x: instance_norm(conv(x, weights(8, 8, 1, 1), (0, 0)), 2, weights(8, 1, 1, 1, 1)), 2),
    "groups of one": (lambda x: instance_norm(conv(x, weights(8, 8, 1, 1), (0, 0)), 8, weights(8, 1, 1, 1, 1)), 2),
    "GroupNormalization": (
        lambda x: op.group_normalization(conv(x, weights(8, 8, 1, 1), (0, 0)), weights(8), weights(8), 4, 1e-5),
        2,
    ),
    "doubling": (lambda x: op.depth_to_space(conv(x, weights(12, 8, 1, 1), (0, 0)), "blocks_first", 2), 2),
    "repeating": (lambda x: resized(conv(x, weights(8, 8, 1, 1), (0, 0)), "floor"), 2),
    "half precision": (
        lambda x: op.convert(
            instance_norm(conv(op.convert(x, "f16"), half(8, 8, 1, 1), (0, 0)), 4, half(8, 1, 1, 1, 1), "f32"), "f32"
        ),
        2,
    ),
    "GroupNormalization in half precision": (
        lambda x: op.convert(op.group_normalization(op.convert(x, "f16"), half(8), half(8), 4, 1e-5), "f32"),
        1,
    ),
    "concatenation": (lambda x: op.concat([conv(x, weights(4, 8, 1, 1), (0, 0)), x], 1), 2),
    "tokens": (
        lambda x: op.reshape(
            op.transpose(
                op.softmax(
                    op.transpose(
                        op.reshape(conv(x, weights(8, 8, 1, 1), (0, 0)), ints(6, 8, 24), False), ints(0, 2, 1)
                    ),
                    2,
                ),
                ints(0, 2, 1),
            ),
            ints(6, 8, 4, 6),
            False,
        ),
        1,
    ),
    # What is not recognised is left, behind a conversion.
    "another rule of repeating": (lambda x: resized(conv(x, weights(8, 8, 1, 1), (0, 0)), "ceil"), 1),
    "a kernel along P": (in_time((3, 3), (1, 1)), 1),
    "the other doubling": (lambda x: op.depth_to_space(conv(x, weights(12, 8, 1, 1), (0, 0)), "depth_first", 2), 1),
    "gains of groups": (
        lambda x: instance_norm(conv(x, weights(8, 8, 1, 1), (0, 0)), 4, weights(8, 1, 1, 1, 1), ones=2.0),
        1,
    ),
    "a number for each frame": (lambda x: op.add(conv(x, weights(8, 8, 1, 1), (0, 0)), weights(6, 8, 1, 1)), 1),
    "a strided affine part": (
        lambda x: instance_norm(conv(x, weights(8, 8, 1, 1), (0, 0)), 4, weights(8, 1, 1, 1, 1), strides=(2, 2)),
        1,
    ),
    "a shifted affine part": (
        lambda x: instance_norm(
            conv(x, weights(8, 8, 1, 1), (0, 0)), 4, weights(8, 1, 1, 1, 1), pads=((1, 0), (-1, 0))
        ),
        1,
    ),
    "a sum of maps of other sides": (lambda x: op.add(*of_other_sides(x)), 2),
    "maps of other sides side by side": (lambda x: op.concat(list(of_other_sides(x)), 1), 2),
    "padding by name": (
        lambda x: op.convolution(x, weights(8, 8, 3, 3), [1, 1], [0, 0], [0, 0], [1, 1], "same_upper"),
        0,
    ),
}


@pytest.mark.parametrize("name", PATTERNS)
def test_a_pattern_gives_what_it_gave(name: str) -> None:
    build, expected = PATTERNS[name]
    changed, after, before = both(build, (6, 8, 4, 6))
    assert after.shape == before.shape
    # Halves are added up in another order.
    assert relative_l2(after, before) <= (1e-3 if "half" in name else 1e-5)
    assert changed == expected


def test_large_means_do_not_cost_the_variance_its_bits() -> None:
    x = op.parameter([6, 8, 16, 16], np.float32, name="x")
    gain = op.constant(np.ones((8, 1, 1, 1, 1), np.float32))
    network = ov.Model(
        [instance_norm(conv(x, op.constant(np.eye(8, dtype=np.float32)[..., None, None]), (0, 0)), 4, gain)], [x], "n"
    )
    assert keep_channels_last(network) == 2
    given = np.random.default_rng(1).standard_normal((6, 8, 16, 16), dtype=np.float32) + 12
    groups = run(network, [given], "bf16").reshape(6, 4, -1)
    # E[x^2] = 145 has steps of one in bfloat16: as a difference of moments the variance of 1 would be anything up to 2.
    np.testing.assert_allclose(groups.std(-1), 1, atol=0.02)
    np.testing.assert_allclose(groups.mean(-1), 0, atol=0.05)


def test_no_frames_are_no_error() -> None:
    x = op.parameter([0, 8, 4, 6], np.float32, name="x")
    assert keep_channels_last(ov.Model([conv(x, weights(8, 8, 1, 1), (0, 0))], [x], "n")) == 0


def test_free_shapes_are_left_alone() -> None:
    network = ov.Core().read_model(graph("segment", "unet"))
    assert keep_channels_last(network) == 0


def test_the_largest_attention_is_counted() -> None:
    network, _ = read(graph("segment", "unet"), 1)
    heads, tokens = 2, 8 * 16
    assert largest_attention(network) == 8 * heads * tokens**2
    network, _ = read(graph("segment", "vae_decoder"), 1)
    assert largest_attention(network) in (0, (16 * 32) ** 2)
