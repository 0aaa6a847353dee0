"""Each layer of the graph writer against the untouched torch or diffusers module that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("onnxruntime")

from diffusers.models.attention import FeedForward  # noqa: E402
from diffusers.models.attention_processor import Attention  # noqa: E402
from diffusers.models.downsampling import Downsample2D  # noqa: E402
from diffusers.models.resnet import ResnetBlock2D, SpatioTemporalResBlock  # noqa: E402
from diffusers.models.upsampling import Upsample2D  # noqa: E402

from amodal.export.graph import blocks, layers  # noqa: E402
from amodal.export.graph.variants import VARIANTS, Variant  # noqa: E402
from amodal.export.graph.weights import Weights  # noqa: E402
from amodal.export.graph.writer import FLOAT, HALF, Graph  # noqa: E402

Session = Any  # tests/export/conftest.py
Load = Callable[[Graph], Session]
Write = Callable[..., Any]

HALVES = [pytest.param(False, id="fp32"), pytest.param(True, id="half")]
REGISTERED = [pytest.param(v, id=v.name) for v in VARIANTS.values()]
FORMS = [
    *REGISTERED,
    pytest.param(Variant("other", "native", "native", "conv3d", "merged", "merged", "resize"), id="other"),
]

half_or_not = pytest.mark.parametrize("half", HALVES)
every_variant = pytest.mark.parametrize("variant", FORMS)


def random(*shape: int, seed: int = 1, scale: float = 1.0) -> Any:
    return scale * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def graph_of(
    weights: Weights,
    half: bool,
    inputs: dict[str, tuple[Any, ...]],
    write: Write,
    variant: Variant = VARIANTS["cpu"],
    repeated: bool = False,
) -> Graph:
    """A graph of the one layer that `write(graph, *inputs)` appends."""
    dtype = HALF if half else FLOAT
    g = Graph("layer", weights, dtype, dtype, variant, repeated)
    g.output("y", write(g, *(g.input(name, shape) for name, shape in inputs.items())), ("free",))
    # The shape of the result is inferred: only its dtype matters here.
    g._outputs[0].shape = None
    return g


@half_or_not
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(1, 1, 0), (3, 1, 1), (3, 2, 1)])
def test_a_convolution_is_torchs(
    kernel: int, stride: int, padding: int, half: bool, session: Load, seeded: Any, assert_close: Any
) -> None:
    module = torch.nn.Conv2d(5, 7, kernel, stride, padding)
    g = graph_of(
        seeded(module, prefix="m."), half, {"x": (2, 5, 6, 8)}, lambda g, x: layers.conv(g, x, "m", stride=stride)
    )
    x = random(2, 5, 6, 8)
    assert_close(session(g)(x=x)["y"], module(x), half)


@half_or_not
def test_a_factor_on_a_convolution_scales_its_result(half: bool, session: Load, seeded: Any, assert_close: Any) -> None:
    module = torch.nn.Conv2d(5, 7, 3, padding=1)
    weights, factor = seeded(module, prefix="m."), torch.tensor([0.3])
    g = graph_of(weights, half, {"x": (2, 5, 6, 8)}, lambda g, x: layers.conv(g, x, "m", scale=lambda: factor))
    x = random(2, 5, 6, 8)
    assert_close(session(g)(x=x)["y"], 0.3 * module(x), half)


@half_or_not
def test_a_linear_layer_is_torchs_whatever_the_axes_before(
    half: bool, session: Load, seeded: Any, assert_close: Any
) -> None:
    module = torch.nn.Linear(6, 5)
    g = graph_of(
        seeded(module, prefix="m."),
        half,
        {"x": ("n", 3, 4, 6)},
        lambda g, x: layers.linear(g, x, "m", (-1, 3, 4, 5)),
    )
    x = random(2, 3, 4, 6)
    assert_close(session(g)(x=x)["y"], module(x), half)


@half_or_not
def test_a_layer_norm_is_torchs(half: bool, session: Load, seeded: Any, assert_close: Any) -> None:
    module = torch.nn.LayerNorm(48, eps=1e-5)
    g = graph_of(seeded(module, prefix="m."), half, {"x": (3, 7, 48)}, lambda g, x: layers.layer_norm(g, x, "m", 1e-5))
    run = session(g)
    ordinary, faint = random(3, 7, 48), random(3, 7, 48, scale=2e-3)
    assert_close(run(x=ordinary)["y"], module(ordinary), half)
    assert_close(run(x=faint)["y"], module(faint), half)


@half_or_not
@every_variant
@pytest.mark.parametrize(
    ("rest", "given"),
    [((4, 6), (4, 6)), ((5, 24), (5, 24)), ((5, 24), (-1, 24))],
    ids=["frames", "clips", "free"],
)
def test_a_group_norm_is_torchs_in_each_form(
    rest: tuple[int, int],
    given: tuple[int, int],
    variant: Variant,
    half: bool,
    session: Load,
    seeded: Any,
    assert_close: Any,
) -> None:
    """Over frames, over clips, and over one clip of a free number of frames."""
    module = torch.nn.GroupNorm(32, 96, eps=1e-5)
    count = 1 if -1 in given else 3
    free = tuple("free" if n < 0 else n for n in given)
    g = graph_of(
        seeded(module, prefix="m."),
        half,
        {"x": (count, 96, *free)},
        lambda g, x: layers.group_norm(g, x, "m", given, 1e-5),
        variant,
    )
    run = session(g)
    ordinary, faint, shifted = (random(count, 96, *rest, scale=s) for s in (1.0, 3e-3, 1.0))
    assert_close(run(x=ordinary)["y"], module(ordinary), half)
    assert_close(run(x=faint)["y"], module(faint), half)
    if not half:  # half rounds such an input itself
        assert_close(run(x=shifted + 10)["y"], module(shifted + 10))


@half_or_not
@pytest.mark.parametrize("most", [0, 4 * 6 * 96], ids=["per channel", "per value"])
def test_a_group_norm_that_is_run_again_and_again_is_torchs(
    most: int, half: bool, session: Load, seeded: Any, assert_close: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(layers, "_PER_VALUE", most)
    module = torch.nn.GroupNorm(32, 96, eps=1e-5)
    g = graph_of(
        seeded(module, prefix="m."),
        half,
        {"x": (3, 96, 4, 6)},
        lambda g, x: layers.group_norm(g, x, "m", (4, 6), 1e-5),
        VARIANTS["cuda"],
        repeated=True,
    )
    assert ("Expand" in {node.op_type for node in g._nodes}) == (most > 0)
    run = session(g)
    for scale in (1.0, 3e-3):
        x = random(3, 96, 4, 6, scale=scale)
        assert_close(run(x=x)["y"], module(x), half)


@half_or_not
@every_variant
@pytest.mark.parametrize(("queries", "keys"), [(24, 24), (48, 3)])
def test_attention_with_heads_beside_each_other_is_torchs_in_each_form(
    queries: int, keys: int, variant: Variant, half: bool, session: Load, seeded: Any, assert_close: Any
) -> None:
    q, k, v = (random(2, n, 3 * 16, seed=i, scale=2.0) for i, n in enumerate((queries, keys, keys)))
    g = graph_of(
        Weights({}, "none"),
        half,
        {"q": tuple(q.shape), "k": tuple(k.shape), "v": tuple(v.shape)},
        lambda g, q, k, v: layers.attend(g, q, k, v, 3, (queries, keys), (-1, queries, 48)),
        variant,
    )
    split = [x.unflatten(-1, (3, 16)).transpose(1, 2) for x in (q, k, v)]
    expected = torch.nn.functional.scaled_dot_product_attention(*split).transpose(1, 2).flatten(2)
    assert_close(session(g)(q=q, k=k, v=v)["y"], expected, half)


@half_or_not
@every_variant
@pytest.mark.parametrize(("queries", "keys"), [(24, 24), (25, 25), (48, 3), (1, 1)])
def test_attention_is_torchs_in_each_form(
    queries: int, keys: int, variant: Variant, half: bool, session: Load, seeded: Any, assert_close: Any
) -> None:
    q, k, v = (random(2, 3, n, 16, seed=i, scale=2.0) for i, n in enumerate((queries, keys, keys)))
    g = graph_of(
        Weights({}, "none"),
        half,
        {"q": tuple(q.shape), "k": tuple(k.shape), "v": tuple(v.shape)},
        lambda g, q, k, v: layers.attention(g, q, k, v, 16),
        variant,
    )
    assert_close(session(g)(q=q, k=k, v=v)["y"], torch.nn.functional.scaled_dot_product_attention(q, k, v), half)


@half_or_not
@every_variant
def test_query_key_and_value_are_those_of_diffusers_attention(
    variant: Variant, half: bool, session: Load, seeded: Any, assert_close: Any
) -> None:
    module = Attention(query_dim=32, heads=2, dim_head=16)

    def write(g: Graph, x: Any) -> Any:
        return g.op("Concat", *layers.project_qkv(g, x, "m"), axis=0)

    g = graph_of(seeded(module, prefix="m."), half, {"x": (2, 5, 32)}, write, variant)
    x = random(2, 5, 32)
    expected = torch.cat([module.to_q(x), module.to_k(x), module.to_v(x)])
    assert_close(session(g)(x=x)["y"], expected, half)


@half_or_not
@every_variant
def test_a_feed_forward_is_diffusers_geglu(
    variant: Variant, half: bool, session: Load, seeded: Any, assert_close: Any
) -> None:
    module = FeedForward(32, activation_fn="geglu")
    g = graph_of(
        seeded(module, prefix="m."),
        half,
        {"x": ("n", 5, 32)},
        lambda g, x: layers.feed_forward(g, x, "m", (-1, 5, 32)),
        variant,
    )
    x = random(3, 5, 32)
    assert_close(session(g)(x=x)["y"], module(x), half)


@half_or_not
@every_variant
@pytest.mark.parametrize("frames", [1, 2, 25])
def test_a_temporal_convolution_is_torchs_in_three_dimensions(
    frames: int, variant: Variant, half: bool, session: Load, seeded: Any, assert_close: Any
) -> None:
    module = torch.nn.Conv3d(6, 8, (3, 1, 1), padding=(1, 0, 0))
    g = graph_of(
        seeded(module, prefix="m."),
        half,
        {"x": (2, 6, frames, 15)},
        lambda g, x: layers.temporal_conv(g, x, "m", (8, frames, 15), lambda: torch.tensor(0.25)),
        variant,
    )
    x = random(2, 6, frames, 3, 5)
    assert_close(session(g)(x=x.flatten(3))["y"], 0.25 * module(x).flatten(3), half)


@half_or_not
@every_variant
@pytest.mark.parametrize("out", [32, 64])
def test_a_spatial_block_is_diffusers_with_its_time_embedding_given_as_a_row(
    out: int, variant: Variant, half: bool, session: Load, seeded: Any, assert_close: Any
) -> None:
    module = ResnetBlock2D(in_channels=32, out_channels=out, temb_channels=48, eps=1e-6)
    weights = seeded(module, prefix="m.")
    g = graph_of(
        weights,
        half,
        {"x": (3, 32, 4, 6), "time": (out,)},
        lambda g, x, time: blocks.res_block_2d(g, x, "m", (4, 6), 1e-6, *blocks.time_rows(g, time, ["m.conv1"])),
        variant,
    )
    x, emb = random(3, 32, 4, 6), random(1, 48, seed=2)
    row = module.time_emb_proj(torch.nn.functional.silu(emb))[0]
    assert_close(session(g)(x=x, time=row)["y"], module(x, emb.expand(3, -1)), half)


UNET_CONVS = [f"m.{part}_res_block.conv1" for part in ("spatial", "temporal")]


def unet_block(channels: int, out: int, eps: float) -> Any:
    return SpatioTemporalResBlock(channels, out, temb_channels=48, eps=eps)


def vae_block(channels: int, out: int) -> Any:
    """As diffusers' `MidBlockTemporalDecoder` and `UpBlockTemporalDecoder` make it."""
    return SpatioTemporalResBlock(
        channels,
        out,
        temb_channels=None,
        eps=1e-6,
        temporal_eps=1e-5,
        merge_factor=0.0,
        merge_strategy="learned",
        switch_spatial_to_temporal_mix=True,
    )


def unet_block_graph(weights: Weights, half: bool, frames: int, out: int, eps: float, variant: Variant) -> Graph:
    return graph_of(
        weights,
        half,
        {"x": ("rows", 32, 4, 6), "time": (2 * out,)},
        lambda g, x, time: blocks.res_block(
            g, x, "m", frames, (4, 6), (eps, eps), -1.0, tuple(blocks.time_rows(g, time, UNET_CONVS))
        ),
        variant,
    )


def unet_block_feeds(module: Any, x: Any, emb: Any) -> dict[str, Any]:
    emb = torch.nn.functional.silu(emb)
    rows = [part.time_emb_proj(emb)[0] for part in (module.spatial_res_block, module.temporal_res_block)]
    return {"x": x, "time": torch.cat(rows)}


@half_or_not
@every_variant
@pytest.mark.parametrize("out", [32, 64], ids=["same", "shortcut"])
@pytest.mark.parametrize("frames", [1, 4, 25])
def test_a_unet_block_with_the_mix_in_its_last_convolution_is_diffusers(
    frames: int, out: int, variant: Variant, half: bool, session: Load, seeded: Any, assert_close: Any
) -> None:
    module = unet_block(32, out, 1e-6)
    run = session(unet_block_graph(seeded(module, prefix="m."), half, frames, out, 1e-6, variant))
    emb = random(1, 48, seed=2)
    for rows in (1, 2):
        x = random(rows * frames, 32, 4, 6)
        expected = module(x, emb.expand(rows * frames, -1), torch.zeros(rows, frames))
        assert_close(run(**unet_block_feeds(module, x, emb))["y"], expected, half, rows=True)


@half_or_not
@every_variant
@pytest.mark.parametrize("out", [32, 64], ids=["same", "shortcut"])
def test_a_vae_block_takes_any_number_of_frames_and_mixes_the_other_way(
    out: int, variant: Variant, half: bool, session: Load, seeded: Any, assert_close: Any
) -> None:
    module = vae_block(32, out)
    g = graph_of(
        seeded(module, prefix="m."),
        half,
        {"x": ("frames", 32, 4, 6)},
        lambda g, x: blocks.res_block(g, x, "m", -1, (4, 6), (1e-6, 1e-5), 1.0),
        variant,
    )
    run = session(g)
    for frames in (1, 3, 8):
        x = random(frames, 32, 4, 6)
        expected = module(x, image_only_indicator=torch.zeros(1, frames))
        assert_close(run(x=x)["y"], expected, half, rows=True)


@pytest.mark.parametrize("mix", [-20.0, 20.0, 0.7])
def test_the_mix_follows_its_factor_to_either_end(mix: float, session: Load, seeded: Any, assert_close: Any) -> None:
    """In the U-Net +20 leaves the spatial part alone; in the VAE the whole temporal one."""
    x, emb = random(4, 32, 4, 6), random(1, 48, seed=2)
    unet, vae = unet_block(32, 32, 1e-6), vae_block(32, 32)
    weights = [seeded(module, prefix="m.") for module in (unet, vae)]
    for module in (unet, vae):
        module.time_mixer.mix_factor.fill_(mix)
    expected = unet(x, emb.expand(4, -1), torch.zeros(1, 4))
    if mix == 20.0:
        assert torch.equal(expected, unet.spatial_res_block(x, emb.expand(4, -1)))
    g = unet_block_graph(weights[0], False, 4, 32, 1e-6, VARIANTS["cpu"])
    assert_close(session(g)(**unet_block_feeds(unet, x, emb))["y"], expected)
    g = graph_of(
        weights[1],
        False,
        {"x": (4, 32, 4, 6)},
        lambda g, x: blocks.res_block(g, x, "m", 4, (4, 6), (1e-6, 1e-5), 1.0),
    )
    assert_close(session(g)(x=x)["y"], vae(x, image_only_indicator=torch.zeros(1, 4)))


@every_variant
@pytest.mark.parametrize("eps", [1e-5, 1e-6])
def test_faint_input_shows_that_each_norm_has_its_epsilon(
    eps: float, variant: Variant, session: Load, seeded: Any, assert_close: Any
) -> None:
    x, emb = random(4, 32, 4, 6, scale=1e-3), random(1, 48, seed=2)
    module = unet_block(32, 32, eps)
    g = unet_block_graph(seeded(module, prefix="m.", faint=1e-3), False, 4, 32, eps, variant)
    expected = module(x, emb.expand(4, -1), torch.zeros(1, 4))
    assert_close(session(g)(**unet_block_feeds(module, x, emb))["y"], expected)

    module = vae_block(32, 32)
    weights = seeded(module, prefix="m.", faint=1e-3)
    g = graph_of(
        weights,
        False,
        {"x": (4, 32, 4, 6)},
        lambda g, x: blocks.res_block(g, x, "m", -1, (4, 6), (1e-6, 1e-5), 1.0),
        variant,
    )
    assert_close(session(g)(x=x)["y"], module(x, image_only_indicator=torch.zeros(1, 4)))


@half_or_not
@every_variant
@pytest.mark.parametrize("size", [(4, 6), (1, 1), (3, 5)])
def test_upsampling_is_diffusers_in_each_form(
    size: tuple[int, int], variant: Variant, half: bool, session: Load, seeded: Any, assert_close: Any
) -> None:
    module = Upsample2D(8, use_conv=True, out_channels=5)
    weights = seeded(module, prefix="m.")
    g = graph_of(weights, half, {"x": ("n", 8, *size)}, lambda g, x: layers.upsample(g, x, "m"), variant)
    x = random(2, 8, *size)
    assert_close(session(g)(x=x)["y"], module(x), half)


@half_or_not
def test_downsampling_is_diffusers(half: bool, session: Load, seeded: Any, assert_close: Any) -> None:
    module = Downsample2D(32, use_conv=True, padding=1, name="op")
    weights = seeded(module, prefix="m.")
    g = graph_of(weights, half, {"x": (2, 32, 4, 6)}, lambda g, x: layers.conv(g, x, "m.conv", stride=2))
    x = random(2, 32, 4, 6)
    assert_close(session(g)(x=x)["y"], module(x), half)


def test_the_vaes_encoder_pads_below_and_to_the_right_alone(session: Load, seeded: Any, assert_close: Any) -> None:
    module = Downsample2D(32, use_conv=True, padding=0, name="op")
    g = graph_of(
        seeded(module, prefix="m."),
        False,
        {"x": (2, 32, 4, 6)},
        lambda g, x: layers.conv(g, x, "m.conv", stride=2, padding=(0, 0, 1, 1)),
    )
    x = random(2, 32, 4, 6)
    assert_close(session(g)(x=x)["y"], module(x))


def test_forms_are_told_apart_by_what_the_manifest_records() -> None:
    recorded = [v.as_dict() for v in VARIANTS.values()]
    assert [r["name"] for r in recorded] == list(VARIANTS)
    assert len({tuple(r.items()) for r in recorded}) == len(VARIANTS)
