"""The U-Net's two graphs against diffusers' untouched `UNetSpatioTemporalConditionModel`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

torch = pytest.importorskip("torch")
diffusers = pytest.importorskip("diffusers")
pytest.importorskip("onnxruntime")

from diffusers.models.transformers.transformer_temporal import TransformerSpatioTemporalModel  # noqa: E402

from amodal.export.families.diffusion_vas.unet import _UNet, write_conditioner, write_unet  # noqa: E402
from amodal.export.families.diffusion_vas.unet_structure import Level, ResBlock, Transformer, UNetStructure  # noqa: E402
from amodal.export.graph.variants import VARIANTS, Variant  # noqa: E402
from amodal.export.graph.weights import Weights  # noqa: E402
from amodal.export.graph.writer import FLOAT, HALF, Dtypes, Graph  # noqa: E402
from amodal.runtime.errors import CheckpointError  # noqa: E402

DTYPES = {half: Dtypes.of("fp16" if half else "fp32") for half in (False, True)}

Session = Any  # tests/export/conftest.py
Load = Callable[[Graph], Session]

CROSS_DOWN, DOWN = "CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"
CROSS_UP, UP = "CrossAttnUpBlockSpatioTemporal", "UpBlockSpatioTemporal"
LAYOUTS = ("reference", "aligned", "sequence")
OTHER = Variant("other", "native", "native", "conv3d", "merged", "merged", "resize")
TIME_IDS = torch.tensor([7.0, 127.0, 0.02])
SIGMAS = (700.0, 14.6, 0.5, 0.002)
BASE: dict[str, Any] = {
    "in_channels": 12,
    "out_channels": 4,
    "block_out_channels": (32, 64),
    "down_block_types": (CROSS_DOWN, DOWN),
    "up_block_types": (UP, CROSS_UP),
    "num_attention_heads": (2, 4),
    "layers_per_block": 1,
    "cross_attention_dim": 24,
    "addition_time_embed_dim": 16,
    "projection_class_embeddings_input_dim": 48,
}


def random(*shape: int, seed: int = 1) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


class RowsAsGiven(torch.Tensor):  # type: ignore[misc]
    """A context that diffusers' U-Net does not repeat over the frames; the authors' U-Net does not repeat it."""

    def repeat_interleave(self, *_: Any, **__: Any) -> Any:
        return self.as_subclass(torch.Tensor)


class Case:
    """An untouched U-Net, its two graphs, and input for both."""

    def __init__(
        self,
        seeded: Any,
        frames: int = 3,
        size: tuple[int, int] = (4, 6),
        layout: str = "reference",
        variant: Variant = VARIANTS["cpu"],
        half: bool = False,
        faint: float = 1.0,
        **config: Any,
    ) -> None:
        self.module: Any = diffusers.UNetSpatioTemporalConditionModel(**BASE | config)
        self.weights = seeded(self.module, faint=faint)
        self.structure = UNetStructure.of(dict(self.module.config))
        self.frames, self.size, self.layout, self.half = frames, size, layout, half
        context: Any = layout
        self.conditioner = write_conditioner(self.weights, self.structure, frames, context, dtypes=DTYPES[half])
        self.unet = write_unet(self.weights, self.structure, frames, size, context, variant, dtypes=DTYPES[half])

    def inputs(self, rows: int) -> tuple[Any, Any, Any]:
        """Latents, conditioning and context, other ones in every row and frame."""
        latents = random(1, self.frames, 4, *self.size, seed=1)
        conditioning = random(rows, self.frames, 8, *self.size, seed=2)
        return latents, conditioning, random(rows, self.frames, 24, seed=3)

    def expected(self, latents: Any, conditioning: Any, context: Any, sigma: float) -> Any:
        """The untouched module's v-prediction, each frame attending to its own token, or to all of its row."""
        rows, frames = conditioning.shape[:2]
        tokens = context.flatten(0, 1)[:, None]
        if self.layout == "sequence":
            tokens = context[:, None].expand(-1, frames, -1, -1).flatten(0, 1)
        sample = torch.cat([latents.expand(rows, -1, -1, -1, -1), conditioning], dim=2)
        timestep = 0.25 * torch.tensor(sigma).log()
        return self.module(
            sample, timestep, tokens.as_subclass(RowsAsGiven), TIME_IDS.expand(rows, -1), return_dict=False
        )[0]

    def check(self, session: Load, assert_close: Any, rows: tuple[int, ...] = (2,), sigmas: Any = SIGMAS[1:2]) -> None:
        """Conditioner, then U-Net, in ONNX Runtime, against the module, row by row."""
        conditioner, unet = session(self.conditioner), session(self.unet)
        for count in rows:
            latents, conditioning, context = self.inputs(count)
            constants = conditioner(context=context, sigmas=sigmas, time_ids=TIME_IDS)
            table = constants.pop("time_table")
            for i, sigma in enumerate(sigmas):
                got = unet(latents=latents, conditioning=conditioning, time=table[i], **constants)
                expected = self.expected(latents, conditioning, context, sigma)
                assert_close(got["velocity"], expected, self.half, rows=True)


@contextmanager
def watched(module: Any, suffix: str) -> Iterator[dict[str, Any]]:
    """What the layers whose names end so give in a forward pass."""
    seen: dict[str, Any] = {}
    hooks = [
        layer.register_forward_hook(lambda _, __, output, name=name: seen.__setitem__(name, output))
        for name, layer in module.named_modules()
        if name.endswith(suffix)
    ]
    yield seen
    for hook in hooks:
        hook.remove()


# The conditioner


@pytest.mark.parametrize("half", [False, True])
def test_the_time_table_holds_what_every_block_gets_from_its_time_embedding(
    half: bool, session: Load, seeded: Any, assert_close: Any
) -> None:
    case = Case(seeded, half=half, layers_per_block=2, transformer_layers_per_block=2)
    latents, conditioning, context = case.inputs(1)
    table = session(case.conditioner)(context=context, sigmas=SIGMAS, time_ids=TIME_IDS)["time_table"]
    assert table.shape == (len(SIGMAS), case.structure.time_width)
    for row, sigma in zip(table, SIGMAS, strict=True):
        with watched(case.module, "time_emb_proj") as seen:
            case.expected(latents, conditioning, context, sigma)
        # In the order in which the module runs them. Each is [T, C] or [1, T, C], the same for every frame.
        expected = torch.cat([value.reshape(-1, value.shape[-1])[0] for value in seen.values()])
        assert_close(row, expected, half)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("layout", ["reference", "aligned"])
def test_the_constants_are_what_cross_attention_gives_in_the_whole_network(
    layout: str, half: bool, session: Load, seeded: Any, assert_close: Any
) -> None:
    """Plus the bias that the self-attention before it adds."""
    case = Case(seeded, layout=layout, half=half, layers_per_block=2, transformer_layers_per_block=2)
    latents, conditioning, context = case.inputs(2)
    found = session(case.conditioner)(context=context, sigmas=SIGMAS, time_ids=TIME_IDS)
    with watched(case.module, "attn2") as seen:
        case.expected(latents, conditioning, context, 14.6)
    spatial, temporal = [], []
    for name, value in seen.items():  # in the order in which the module runs them
        bias = case.module.get_submodule(name.removesuffix("attn2") + "attn1").to_out[0].bias
        assert_close(value, value[:, :1].expand_as(value))  # whatever the query
        if "temporal" in name:
            temporal.append(value.reshape(2, -1, value.shape[-1])[:, 0] + bias)
        else:
            spatial.append(value[:, 0].reshape(2, case.frames, -1) + bias)
    assert_close(found["spatial"], torch.cat(spatial, dim=-1), half, rows=True)
    assert_close(found["temporal"], torch.cat(temporal, dim=-1), half, rows=True)


@pytest.mark.parametrize("layout", ["reference", "aligned"])
def test_the_constants_hold_for_arbitrary_queries(layout: str, session: Load, seeded: Any, assert_close: Any) -> None:
    case = Case(seeded, layout=layout)
    *_, context = case.inputs(2)
    found = session(case.conditioner)(context=context, sigmas=SIGMAS, time_ids=TIME_IDS)
    start = 0
    for t, *blocks in case.structure.layers:
        for block, name in zip(blocks, ("spatial", "temporal"), strict=True):
            module = case.module.get_submodule(block)
            tokens = context if name == "spatial" else context[:, 0]
            queries = 30 * random(tokens[..., 0].numel(), 5, t.channels, seed=start)
            out = module.attn2(queries, encoder_hidden_states=tokens.reshape(-1, 1, 24))
            got = torch.from_numpy(found[name][..., start : start + t.channels]) - module.attn1.to_out[0].bias
            assert_close(got.reshape(-1, 1, t.channels).expand_as(out), out)
        start += t.channels
    assert start == case.structure.context_width == found["spatial"].shape[-1] == found["temporal"].shape[-1]


def test_no_context_layout_leaves_queries_keys_or_norms_behind_that_nobody_reads(seeded: Any) -> None:
    case = Case(seeded)
    unread = (".attn2.to_q", ".attn2.to_k", ".norm2.", "time_emb_proj", "time_embedding", "add_embedding")
    names = [name for name in case.unet._pending if "transformer_blocks" in name or "time_e" in name]
    assert names
    assert not [name for name in names if any(part in name for part in unread)]
    gone = sum(
        tensor.numel()
        for name, tensor in case.module.state_dict().items()
        if "time_emb" in name or "add_embedding" in name or "attn2" in name or (".norm2." in name and "transf" in name)
    )
    # What the unet gains are frame embeddings in the place of their MLPs; so it lost at least this much.
    assert case.unet.parameters < sum(p.numel() for p in case.module.parameters()) - gone


# The transformer on its own


def transformer_graph(
    weights: Weights, t: Transformer, frames: int, size: tuple[int, int], layout: str, variant: Variant, half: bool
) -> Graph:
    block = ResBlock("none", t.channels, 1e-5)
    structure = UNetStructure({}, [], Level("mid", [(block, t), (block, None)], False), [])
    dtype = HALF if half else FLOAT
    g = Graph("transformer", weights, dtype, dtype, variant)
    context: Any = layout
    unet = _UNet(g, structure, frames, context)
    x = g.input("x", ("n", t.channels, *size))
    unet._unpack_context([g.input(name, shape) for name, shape in structure.context_shapes(context, frames).items()])
    g.output("y", unet._transformer(x, t, size), ("n", t.channels, *size))
    return g


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("variant", [*VARIANTS.values(), OTHER], ids=lambda v: v.name)
@pytest.mark.parametrize("layout", ["aligned", "sequence"])
@pytest.mark.parametrize("frames", [25, 14, 1])
def test_a_transformer_is_diffusers(
    frames: int, layout: str, variant: Variant, half: bool, session: Load, seeded: Any, assert_close: Any
) -> None:
    module = TransformerSpatioTemporalModel(4, 16, in_channels=64, num_layers=2, cross_attention_dim=24)
    weights = seeded(module, prefix="t.")
    t = Transformer("t", 64, 4, 2)
    run = session(transformer_graph(weights, t, frames, (3, 2), layout, variant, half))
    for rows in (1, 2):
        x, context = random(rows * frames, 64, 3, 2), random(rows, frames, 24, seed=2)
        tokens = context.flatten(0, 1)[:, None]
        if layout == "sequence":
            tokens = context[:, None].expand(-1, frames, -1, -1).flatten(0, 1)
        with watched(module, "attn2") as constants, watched(module, "to_k") as keys, watched(module, "to_v") as values:
            expected = module(x, tokens, torch.zeros(rows, frames)).sample
        names = [f"{kind}.{i}" for i in range(2) for kind in ("transformer_blocks", "temporal_transformer_blocks")]
        if layout == "sequence":
            feeds = {
                out: torch.cat(
                    [
                        # Per frame in the spatial blocks, per pixel in the temporal ones: the same T tokens.
                        seen[f"{name}.attn2.{part}"].reshape(rows, -1, frames, 64)[:, 0]
                        for name in names
                    ],
                    dim=-1,
                )
                for out, part, seen in (("keys", "to_k", keys), ("values", "to_v", values))
            }
        else:
            parts = []
            for name in names:
                value = constants[f"{name}.attn2"] + module.get_submodule(name).attn1.to_out[0].bias
                # Spatial blocks are called with [BT, P, C], temporal ones with [BP, T, C]; every query gets the same.
                spatial = name.startswith("transformer_blocks")
                value = value.reshape(rows, frames, -1, 64) if spatial else value.reshape(rows, -1, frames * 64)
                parts.append(value[:, :, 0] if spatial else value[:, 0, :64])
            feeds = {"spatial": torch.cat(parts[::2], dim=-1), "temporal": torch.cat(parts[1::2], dim=-1)}
        assert_close(run(x=x, **feeds)["y"], expected, half, rows=True)


# The whole chain


@pytest.mark.parametrize("half", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("variant", [*VARIANTS.values(), OTHER], ids=lambda v: v.name)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_two_graphs_in_a_row_are_the_untouched_network(
    layout: str, variant: Variant, half: bool, session: Load, seeded: Any, assert_close: Any
) -> None:
    case = Case(seeded, layout=layout, variant=variant, half=half)
    case.check(session, assert_close, rows=(1, 2), sigmas=SIGMAS)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    ("frames", "config"),
    [
        pytest.param(25, {}, id="25 frames"),
        pytest.param(
            14, {"block_out_channels": (64, 32), "num_attention_heads": 2}, id="14 frames, heads as one number"
        ),
        pytest.param(1, {"block_out_channels": (96, 64), "num_attention_heads": (3, 8)}, id="one frame, 96 channels"),
        pytest.param(2, {"layers_per_block": 2, "transformer_layers_per_block": 2}, id="two layers each"),
        pytest.param(
            2,
            {"layers_per_block": (2, 1), "transformer_layers_per_block": (1, 2), "cross_attention_dim": (24, 24)},
            id="layers by level",
        ),
        pytest.param(
            2,
            {"down_block_types": (DOWN, CROSS_DOWN), "up_block_types": (CROSS_UP, UP)},
            id="attention in the deep level alone",
        ),
        pytest.param(
            2, {"down_block_types": (DOWN, DOWN), "up_block_types": (UP, CROSS_UP)}, id="attention on the way up alone"
        ),
        pytest.param(
            2,
            {
                "block_out_channels": (32, 32, 64, 96),
                "down_block_types": (CROSS_DOWN, DOWN, CROSS_DOWN, DOWN),
                "up_block_types": (UP, CROSS_UP, UP, CROSS_UP),
                "num_attention_heads": (1, 2, 4, 6),
                "layers_per_block": (1, 2, 1, 2),
                "transformer_layers_per_block": (2, 1, 1, 1),
            },
            id="four unlike levels",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            2,
            {"block_out_channels": (32,), "down_block_types": (CROSS_DOWN,), "up_block_types": (CROSS_UP,)}
            | {"num_attention_heads": 2},
            id="one level",
        ),
    ],
)
def test_every_structure_the_config_can_ask_for_is_the_untouched_network(
    frames: int, config: dict[str, Any], layout: str, session: Load, seeded: Any, assert_close: Any
) -> None:
    config = dict(config)
    widths = config.pop("cross_attention_dim", None)
    # 2x4 at the deepest level: a norm over groups of two values would blow rounding up, in torch as well.
    side = 2 ** max(len(config.get("block_out_channels", (1, 1))), 2)
    case = Case(seeded, frames, (side, 2 * side), layout, **config)
    if widths is not None:  # diffusers takes a tuple too
        assert set(widths) == {BASE["cross_attention_dim"]}
    case.check(session, assert_close)


@pytest.mark.parametrize(
    "types",
    [((CROSS_DOWN, DOWN), (UP, CROSS_UP)), ((DOWN, CROSS_DOWN), (CROSS_UP, UP))],
    ids=["authors", "reversed"],
)
def test_faint_activations_show_that_every_norm_has_its_epsilon(
    types: tuple[tuple[str, ...], tuple[str, ...]], session: Load, seeded: Any, assert_close: Any
) -> None:
    """diffusers builds three kinds of blocks with 1e-6 and two with 1e-5."""
    case = Case(seeded, faint=0.02, down_block_types=types[0], up_block_types=types[1])
    case.check(session, assert_close)


def test_a_row_is_the_same_alone_and_beside_another(session: Load, seeded: Any, assert_close: Any) -> None:
    case = Case(seeded)
    conditioner, unet = session(case.conditioner), session(case.unet)
    latents, conditioning, context = case.inputs(2)
    constants = conditioner(context=context, sigmas=[5.0], time_ids=TIME_IDS)
    time = constants.pop("time_table")[0]
    both = unet(latents=latents, conditioning=conditioning, time=time, **constants)["velocity"]
    for row in (0, 1):
        own = {name: value[row : row + 1] for name, value in constants.items()}
        alone = unet(latents=latents, conditioning=conditioning[row : row + 1], time=time, **own)["velocity"]
        assert_close(alone[0], both[row])
    swapped = {name: value[::-1] for name, value in constants.items()}
    other = unet(latents=latents, conditioning=conditioning.flip(0), time=time, **swapped)["velocity"]
    assert_close(other[::-1], both, rows=True)


def test_frames_see_their_own_token_in_the_spatial_blocks_and_the_first_in_the_temporal(
    session: Load, seeded: Any
) -> None:
    case = Case(seeded)
    conditioner = session(case.conditioner)
    context = random(2, 3, 24)
    plain = conditioner(context=context, sigmas=[5.0], time_ids=TIME_IDS)
    context[1, 2] += 1
    moved = conditioner(context=context, sigmas=[5.0], time_ids=TIME_IDS)
    changed = (plain["spatial"] != moved["spatial"]).any(axis=-1)
    assert changed.tolist() == [[False] * 3, [False, False, True]]
    assert (plain["temporal"] == moved["temporal"]).all()
    context[1, 0] += 1
    first = conditioner(context=context, sigmas=[5.0], time_ids=TIME_IDS)
    assert (first["temporal"] != moved["temporal"]).any(axis=-1).tolist() == [False, True]


# The plan


def test_the_plan_names_every_block_and_width_of_the_module(seeded: Any) -> None:
    case = Case(
        seeded,
        size=(8, 8),
        block_out_channels=(32, 64, 96),
        down_block_types=(CROSS_DOWN, CROSS_DOWN, DOWN),
        up_block_types=(UP, CROSS_UP, CROSS_UP),
        num_attention_heads=(1, 2, 3),
        layers_per_block=2,
    )
    blocks = {n: m for n, m in case.module.named_modules() if type(m).__name__ == "SpatioTemporalResBlock"}
    assert {r.name for r in case.structure.res_blocks} == set(blocks)
    for r in case.structure.res_blocks:
        module = blocks[r.name]
        assert r.channels == module.spatial_res_block.out_channels
        norms = (module.spatial_res_block.norm1, module.temporal_res_block.norm2)
        assert [norm.eps for norm in norms] == [r.eps, r.eps]
    transformers = {
        n: (m.in_channels, m.num_attention_heads, len(m.transformer_blocks))
        for n, m in case.module.named_modules()
        if isinstance(m, TransformerSpatioTemporalModel)
    }
    assert {t.name: (t.channels, t.heads, t.layers) for t in case.structure.transformers} == transformers
    assert case.structure.downscale == 4


def test_every_tensor_is_read_by_one_of_the_two_graphs_but_for_what_cross_attention_never_needs(
    seeded: Any,
) -> None:
    for layout in LAYOUTS:
        case = Case(seeded, layout=layout)
        read: set[str] = set()

        class Watch(Weights):
            def load(self, name: str, read: set[str] = read) -> Any:
                read.add(name)
                return super().load(name)

        weights = Watch(case.weights, "test weights")
        context: Any = layout
        for graph in (
            write_conditioner(weights, case.structure, 3, context, dtypes=DTYPES[False]),
            write_unet(weights, case.structure, 3, (4, 6), context, VARIANTS["cpu"], dtypes=DTYPES[False]),
        ):
            for pending in graph._pending.values():
                pending.load()
        unread = set(case.weights) - read
        if layout == "sequence":
            assert unread == set()
        else:
            assert unread
            assert all(".attn2.to_q" in n or ".attn2.to_k" in n or ".norm2." in n for n in unread)
            assert all("transformer_blocks" in n for n in unread)


def test_a_block_of_another_family_is_refused_by_name() -> None:
    config = BASE | {"down_block_types": ("CrossAttnDownBlock3D", DOWN), "transformer_layers_per_block": 1}
    with pytest.raises(CheckpointError, match="CrossAttnDownBlock3D; expected one of CrossAttnDownBlockSpatioTemporal"):
        UNetStructure.of(config)


def test_heads_that_do_not_divide_a_width_are_refused() -> None:
    with pytest.raises(CheckpointError, match="5 attention heads over 64 channels"):
        UNetStructure.of(BASE | {"num_attention_heads": (2, 5), "transformer_layers_per_block": 1})
