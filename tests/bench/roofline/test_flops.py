"""Operations counted from graphs: by hand on small graphs, and against torch's counter on the untouched modules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("numpy")

from amodal.bench.roofline.flops import count_graph  # noqa: E402
from amodal.runtime.errors import BundleError  # noqa: E402

FRAMES, CHUNK = 25, 2


def parsed(text: str) -> Any:
    """A graph from ONNX's text form; weights have shapes and no values."""
    return onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 23]>\n' + text)


def with_weights(text: str, **weights: tuple[int, ...]) -> Any:
    """The same, with weights that lie in a file that is not there."""
    model = parsed(text)
    for name, shape in weights.items():
        tensor = model.graph.initializer.add()
        tensor.name, tensor.data_type = name, onnx.TensorProto.FLOAT
        tensor.dims.extend(shape)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="nowhere")
    return model


# By hand


def test_products_with_weights_are_apart_from_those_of_activations() -> None:
    cost = count_graph(
        with_weights(
            """product (float[rows, 5, 8] x) => (float[rows, 5, 5] y) {
                q = MatMul(x, w)
                turned = Transpose<perm = [0, 2, 1]>(x)
                y = MatMul(q, turned)
            }""",
            w=(8, 8),
        ),
        {"rows": 3},
    )
    assert cost.flops == {"matmul": 2 * 3 * 5 * 8 * 8, "attention": 2 * 3 * 5 * 5 * 8, "convolution": 0, "other": 0}
    assert cost.weights == 4 * 8 * 8
    x, q, y = 4 * 3 * 5 * 8, 4 * 3 * 5 * 8, 4 * 3 * 5 * 5
    assert cost.activations == (x + q) + (x + x) + (q + x + y)
    assert cost.boundary == x + y


def test_a_weight_is_counted_in_the_dtype_in_which_it_is_used_and_its_cast_is_not() -> None:
    model = with_weights("cast (float[4, 8] x) => (float[4, 6] y) { v = Cast<to = 1>(w)\n y = Gemm(x, v, b) }", b=(6,))
    weight = model.graph.initializer.add()
    weight.name, weight.data_type = "w", onnx.TensorProto.FLOAT16
    weight.dims.extend((8, 6))
    cost = count_graph(model, {})
    assert cost.weights == 4 * (8 * 6 + 6)
    assert cost.flops == {"matmul": 2 * 4 * 8 * 6, "attention": 0, "convolution": 0, "other": 4 * 6}


@pytest.mark.parametrize(
    ("operator", "weight", "out", "expected"),
    [
        ("Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>", (6, 4, 3, 3), (6, 8, 8), 2 * 6 * 64 * 4 * 9),
        ("Conv<kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]>", (6, 4, 3, 3), (6, 4, 4), 2 * 96 * 36),
        ("Conv<kernel_shape = [3, 3], pads = [1, 1, 1, 1], group = 2>", (6, 2, 3, 3), (6, 8, 8), 2 * 6 * 64 * 18),
        ("ConvTranspose<kernel_shape = [2, 2], strides = [2, 2]>", (4, 5, 2, 2), (5, 16, 16), 2 * 4 * 64 * 5 * 4),
    ],
)
def test_convolutions(operator: str, weight: tuple[int, ...], out: tuple[int, ...], expected: int) -> None:
    shape = ", ".join(map(str, out))
    cost = count_graph(
        with_weights(f"c (float[1, 4, 8, 8] x) => (float[1, {shape}] y) {{ y = {operator}(x, w) }}", w=weight), {}
    )
    assert cost.flops["convolution"] == expected
    assert cost.flops["other"] == cost.flops["matmul"] == 0


def test_one_value_per_channel_is_a_scaling() -> None:
    text = "c (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) { y = Conv<kernel_shape = [1, 1], group = 4>(x, w, b) }"
    cost = count_graph(with_weights(text, w=(4, 1, 1, 1), b=(4,)), {})
    assert cost.products == 0
    assert cost.flops["other"] == 3 * 4 * 64


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Softmax<axis = -1>(x)", 5 * 512),
        ("GroupNormalization<num_groups = 2>(x, s, b)", 7 * 512),
        ("LayerNormalization<axis = 1>(x, t)", 7 * 512),
        ("Sigmoid(x)", 512),
        ("Reshape<allowzero = 0>(x, four)", 0),
        ("Cast<to = 1>(x)", 0),
    ],
)
def test_operations_per_element(line: str, expected: int) -> None:
    shape = "float[2, 4, 8, 8]"
    text = f"e ({shape} x) => ({shape} y) <int64[4] four = {{2, 4, 8, 8}}> {{ z = {line}\n y = Add(z, z) }}"
    cost = count_graph(with_weights(text, s=(4,), b=(4,), t=(4, 8, 8)), {})
    assert cost.flops["other"] == expected + 512


def test_the_operator_attention_is_its_two_products_in_both_layouts() -> None:
    decomposed = count_graph(
        parsed(
            """a (float[2, 3, 10, 8] q, float[2, 3, 8, 14] k, float[2, 3, 14, 8] v) => (float[2, 3, 10, 8] y) {
                s = MatMul(q, k)
                p = Softmax(s)
                y = MatMul(p, v)
            }"""
        ),
        {},
    )
    by_heads = "(float[2, 3, 10, 8] q, float[2, 3, 14, 8] k, float[2, 3, 14, 8] v) => (float[2, 3, 10, 8] y)"
    packed = "(float[2, 10, 24] q, float[2, 14, 24] k, float[2, 14, 24] v) => (float[2, 10, 24] y)"
    numbers = "<q_num_heads = 3, kv_num_heads = 3>"
    for text in (f"a {by_heads} {{ y = Attention(q, k, v) }}", f"a {packed} {{ y = Attention{numbers}(q, k, v) }}"):
        native = count_graph(parsed(text), {})
        assert native.flops["attention"] == decomposed.flops["attention"] == 2 * 2 * 2 * 3 * 10 * 14 * 8
        assert native.activations < decomposed.activations


def test_a_free_axis_without_a_size_is_named() -> None:
    with pytest.raises(BundleError, match="input x has a free axis rows"):
        count_graph(parsed("f (float[rows, 4] x) => (float[rows, 4] y) { y = Sigmoid(x) }"), {"frames": 2})


def test_shapes_that_contradict_each_other_are_a_sentence() -> None:
    with pytest.raises(BundleError, match="cannot be inferred"):
        count_graph(with_weights("f (float[2, 4] x) => (float[2, 4] y) { y = MatMul(x, w) }", w=(3, 4)), {})


# Against torch's own counter, which sees attention on the meta device as two products


@pytest.fixture(scope="module")
def torch() -> Any:
    for module in ("diffusers", "transformers", "onnx_ir"):
        pytest.importorskip(module)
    return pytest.importorskip("torch")


@pytest.fixture(scope="module")
def real(torch: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Kind -> (graph of the real architecture at 25x256x512, its network); weights are referred to and never made."""
    import onnx_ir as ir

    from amodal.export.checkpoints.checkpoint import random_checkpoint
    from amodal.export.families.diffusion_vas.plan import ExportSettings, stage_components

    folder = tmp_path_factory.mktemp("graphs")
    checkpoint = random_checkpoint("diffusion-vas", "segment")

    def written(kind: str, **settings: Any) -> tuple[Any, Any]:
        chosen = ExportSettings(**settings)
        graph = next(c for c in stage_components("segment", checkpoint, chosen) if c.kind == kind).write(chosen.size)
        places = {
            n: ir.ExternalTensor("w", 0, 1, w.stored, shape=ir.Shape(w.shape), name=n)
            for n, w in graph._pending.items()
        }
        file = folder / f"{kind}.onnx"
        graph.save(file, shared=places)
        return onnx.load(file, load_external_data=False), getattr(
            checkpoint, kind.split("_")[0] if kind.startswith("vae") else kind
        )

    return written


def counted_by_torch(torch: Any, run: Callable[[], Any]) -> dict[str, int]:
    """Operations by torch's counter, of all and by module."""
    from torch.utils.flop_counter import FlopCounterMode

    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return {name: sum(kinds.values()) for name, kinds in counter.get_flop_counts().items()}


def velocity(torch: Any, network: Any, rows: int, tokens: int = 1) -> Callable[[], Any]:
    from amodal.export.families.diffusion_vas.reference import UnrepeatedContext

    module = network.build().eval()
    inputs = torch.empty(rows, FRAMES, 12, 32, 64, device="meta")
    context = UnrepeatedContext(torch.empty(rows * FRAMES, tokens, 1024, device="meta"))
    time, ids = torch.empty(1, device="meta"), torch.empty(rows, 3, device="meta")
    return lambda: module(inputs, time, context, ids, return_dict=False)


@pytest.mark.slow
def test_the_real_unet_agrees_with_torch_and_cross_attention_is_4_percent_less(torch: Any, real: Any) -> None:
    model, network = real("unet")
    modules = counted_by_torch(torch, velocity(torch, network, 2))
    untouched = modules["Global"]
    assert untouched == pytest.approx(30.19e12, rel=1e-3)
    # What the conditioner computes once per clip instead, and what falls away with one key to attend to.
    gone = ("attn2", "time_emb_proj", "time_embedding", "add_embedding", "time_pos_embed")
    collapsed = untouched - sum(count for name, count in modules.items() if name.endswith(gone))
    cost = count_graph(model, {"rows": 2})
    assert cost.products == pytest.approx(collapsed, rel=1e-3)
    assert 1 - cost.products / untouched == pytest.approx(0.044, abs=0.002)
    assert cost.flops["attention"] == pytest.approx(1.56e12, rel=2e-3)
    assert cost.weights == pytest.approx(2.54e9, rel=0.01)
    assert count_graph(model, {"rows": 1}).products == pytest.approx(cost.products / 2, rel=1e-9)


@pytest.mark.slow
def test_attention_over_all_tokens_is_counted_too(torch: Any, real: Any) -> None:
    model, network = real("unet", context="sequence")
    modules = counted_by_torch(torch, velocity(torch, network, 1, tokens=FRAMES))
    # Keys and values of the context are the conditioner's, once per clip.
    elsewhere = ("attn2.to_k", "attn2.to_v", "time_emb_proj", "time_embedding", "add_embedding", "time_pos_embed")
    expected = modules["Global"] - sum(count for name, count in modules.items() if name.endswith(elsewhere))
    assert count_graph(model, {"rows": 1}).products == pytest.approx(expected, rel=0.02)


@pytest.mark.slow
def test_the_other_real_networks_agree_with_torch(torch: Any, real: Any) -> None:
    encoder, vae = real("vae_encoder")
    decoder, _ = real("vae_decoder")
    image_encoder, clip = real("image_encoder")
    module, tower = vae.build().eval(), clip.build().eval()
    frames = torch.empty(CHUNK, 3, 256, 512, device="meta")
    latents = torch.empty(CHUNK, 4, 32, 64, device="meta")
    pixels = torch.empty(CHUNK, 3, 224, 224, device="meta")
    for model, run in (
        (encoder, lambda: module.encode(frames)),
        (decoder, lambda: module.decode(latents, num_frames=CHUNK)),
        (image_encoder, lambda: tower(pixels)),
    ):
        expected = counted_by_torch(torch, run)["Global"]
        assert count_graph(model, {"frames": CHUNK}).products == pytest.approx(expected, rel=2e-3), model.graph.name


def test_depth_agrees_with_torch(torch: Any, tmp_path: Path) -> None:
    from amodal.export.depth_anything.graph import write_depth
    from amodal.export.depth_anything.network import random_depth
    from amodal.export.graph.variants import VARIANTS
    from amodal.export.graph.writer import Dtypes

    network = random_depth("tiny")
    file = tmp_path / "depth.onnx"
    write_depth(network, (56, 84), VARIANTS["engine"], dtypes=Dtypes.of("fp32")).save(file)
    from torch.utils.flop_counter import FlopCounterMode

    def attention(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(2 * query[0] * query[1] * query[2] * key[2] * (query[3] + value[3]))

    # On the CPU torch's counter leaves attention out.
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping={kernel: attention}) as counter:
        network(torch.zeros(2, 3, 56, 84))
    cost = count_graph(onnx.load(file, load_external_data=False), {"frames": 2})
    assert cost.products == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert cost.flops["attention"] > 0.01 * cost.products
