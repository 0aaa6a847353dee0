"""Depth Anything V2 against the authors' network, written again over the names of its tensors."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from torch.nn import functional as F  # noqa: E402

from amodal.export.depth_anything.checkpoint import VARIANTS, DepthCheckpoint, DepthVariant, _authors_place, bind  # noqa: E402
from amodal.export.depth_anything.network import _skeleton, interpolate_positions, load_depth, random_depth  # noqa: E402
from amodal.runtime.errors import InputError  # noqa: E402

TINY = VARIANTS["tiny"]
SIZE = (56, 98)
State = dict[str, Any]


def authors_shapes(variant: DepthVariant) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the authors' state dict."""
    width, neck, fusion = variant.width, variant.neck, variant.fusion
    shapes: dict[str, tuple[int, ...]] = {
        "pretrained.cls_token": (1, 1, width),
        "pretrained.pos_embed": (1, 37 * 37 + 1, width),
        "pretrained.mask_token": (1, width),
    }

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        shapes[f"{name}.weight"] = shape
        if bias:
            shapes[f"{name}.bias"] = (shape[0],)

    layer("pretrained.patch_embed.proj", width, 3, 14, 14)
    for i in range(variant.layers):
        block = f"pretrained.blocks.{i}"
        layer(f"{block}.norm1", width)
        layer(f"{block}.attn.qkv", 3 * width, width)
        layer(f"{block}.attn.proj", width, width)
        shapes[f"{block}.ls1.gamma"] = (width,)
        layer(f"{block}.norm2", width)
        layer(f"{block}.mlp.fc1", 4 * width, width)
        layer(f"{block}.mlp.fc2", width, 4 * width)
        shapes[f"{block}.ls2.gamma"] = (width,)
    layer("pretrained.norm", width)
    for i, channels in enumerate(neck):
        layer(f"depth_head.projects.{i}", channels, width, 1, 1)
        layer(f"depth_head.scratch.layer{i + 1}_rn", fusion, channels, 3, 3, bias=False)
    for i, kernel in ((0, 4), (1, 2), (3, 3)):
        layer(f"depth_head.resize_layers.{i}", neck[i], neck[i], kernel, kernel)
    for i in (1, 2, 3, 4):
        layer(f"depth_head.scratch.refinenet{i}.out_conv", fusion, fusion, 1, 1)
        for unit in (1, 2):
            for conv in (1, 2):
                name = f"depth_head.scratch.refinenet{i}.resConfUnit{unit}.conv{conv}"
                layer(name, fusion, fusion, 3, 3)
    layer("depth_head.scratch.output_conv1", fusion // 2, fusion, 3, 3)
    layer("depth_head.scratch.output_conv2.0", 32, fusion // 2, 3, 3)
    layer("depth_head.scratch.output_conv2.2", 1, 32, 1, 1)
    return shapes


def authors_state(variant: DepthVariant, seed: int = 0) -> State:
    """A state dict in the authors' layout, random."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, shape in authors_shapes(variant).items():
        value = torch.randn(shape, generator=generator)
        spread = 0.3 if len(shape) != 2 and len(shape) != 4 else math.prod(shape[1:]) ** -0.5
        state[name] = value * spread + (1 if "norm" in name and name.endswith("weight") else 0)
    # Weights that make both signs would leave a tiny network's ReLU'd depth zero almost everywhere.
    state["depth_head.scratch.output_conv2.2.weight"].abs_()
    state["depth_head.scratch.output_conv2.2.bias"].abs_()
    return state


def slow_positions(table: Any, rows: int, columns: int) -> Any:
    """The authors' rule, tap by tap: cubic with a = -0.75, sample i at (i + 0.5) / ((n + 0.1) / 37) - 0.5."""

    def matrix(count: int) -> Any:
        weights = torch.zeros(count, 37, dtype=torch.float64)
        for i in range(count):
            at = (i + 0.5) / ((count + 0.1) / 37) - 0.5
            for tap in range(math.floor(at) - 1, math.floor(at) + 3):
                d, a = abs(at - tap), -0.75
                near = (a + 2) * d**3 - (a + 3) * d**2 + 1
                far = a * (d**3 - 5 * d**2 + 8 * d - 4)
                weights[i, min(max(tap, 0), 36)] += near if d <= 1 else far
        return weights

    grid = table[0, 1:].double().reshape(37, 37, -1)
    spread = torch.einsum("ry,cx,yxk->rck", matrix(rows), matrix(columns), grid)
    return torch.cat((table[:, :1].double(), spread.reshape(1, rows * columns, -1)), 1).float()


def authors_depth(state: State, variant: DepthVariant, pixels: Any) -> Any:
    """The authors' forward pass (dinov2.py, dpt.py) in functions over their state dict."""

    def get(name: str) -> tuple[Any, Any]:
        return state[f"{name}.weight"], state.get(f"{name}.bias")

    def norm(x: Any, name: str) -> Any:
        return F.layer_norm(x, (variant.width,), *get(name), eps=1e-6)

    def conv(x: Any, name: str, padding: int = 1) -> Any:
        return F.conv2d(x, *get(f"depth_head.{name}"), padding=padding)

    def unit(x: Any, name: str) -> Any:
        return x + conv(F.relu(conv(F.relu(x), f"{name}.conv1")), f"{name}.conv2")

    def upsample(x: Any, size: Any) -> Any:
        return F.interpolate(x, size=size, mode="bilinear", align_corners=True)

    count, rows, columns = pixels.shape[0], pixels.shape[2] // 14, pixels.shape[3] // 14
    tokens = F.conv2d(pixels, *get("pretrained.patch_embed.proj"), stride=14).flatten(2).transpose(1, 2)
    tokens = torch.cat((state["pretrained.cls_token"].expand(count, -1, -1), tokens), 1)
    tokens = tokens + slow_positions(state["pretrained.pos_embed"], rows, columns)
    maps, head = [], variant.width // variant.heads
    for i in range(variant.layers):
        block = f"pretrained.blocks.{i}"
        fused = F.linear(norm(tokens, f"{block}.norm1"), *get(f"{block}.attn.qkv"))
        q, k, v = fused.reshape(count, -1, 3, variant.heads, head).permute(2, 0, 3, 1, 4)
        scores = (q * head**-0.5) @ k.transpose(-2, -1)
        mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        tokens = tokens + F.linear(mixed, *get(f"{block}.attn.proj")) * state[f"{block}.ls1.gamma"]
        hidden = F.gelu(F.linear(norm(tokens, f"{block}.norm2"), *get(f"{block}.mlp.fc1")))
        tokens = tokens + F.linear(hidden, *get(f"{block}.mlp.fc2")) * state[f"{block}.ls2.gamma"]
        if i in variant.taps:
            patches = norm(tokens, "pretrained.norm")[:, 1:]
            maps.append(patches.transpose(1, 2).reshape(count, -1, rows, columns))
    maps = [conv(x, f"projects.{i}", 0) for i, x in enumerate(maps)]
    maps[0] = F.conv_transpose2d(maps[0], *get("depth_head.resize_layers.0"), stride=4)
    maps[1] = F.conv_transpose2d(maps[1], *get("depth_head.resize_layers.1"), stride=2)
    maps[3] = F.conv2d(maps[3], *get("depth_head.resize_layers.3"), stride=2, padding=1)
    maps = [conv(x, f"scratch.layer{i + 1}_rn") for i, x in enumerate(maps)]
    path = maps[3]
    for i in (4, 3, 2, 1):
        name = f"scratch.refinenet{i}"
        if i < 4:
            path = path + unit(maps[i - 1], f"{name}.resConfUnit1")
        path = unit(path, f"{name}.resConfUnit2")
        size = maps[i - 2].shape[2:] if i > 1 else (2 * path.shape[2], 2 * path.shape[3])
        path = conv(upsample(path, size), f"{name}.out_conv", 0)
    out = upsample(conv(path, "scratch.output_conv1"), pixels.shape[2:])
    out = F.relu(conv(F.relu(conv(out, "scratch.output_conv2.0")), "scratch.output_conv2.2", 0))
    return out[:, 0]


def pixels_of(count: int, size: tuple[int, int] = SIZE) -> Any:
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(7))


def distance(a: Any, b: Any) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


@pytest.fixture(scope="module")
def pth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("authors") / "depth_anything_v2_tiny.pth"
    torch.save(authors_state(TINY), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformers folder as save_pretrained writes it."""
    path: Path = tmp_path_factory.mktemp("transformers") / "depth"
    torch.manual_seed(0)
    config = transformers.DepthAnythingConfig(
        backbone_config={
            "model_type": "dinov2",
            "hidden_size": TINY.width,
            "num_hidden_layers": TINY.layers,
            "num_attention_heads": TINY.heads,
            "image_size": 518,
            "patch_size": 14,
            "out_indices": [tap + 1 for tap in TINY.taps],
            "reshape_hidden_states": False,
        },
        reassemble_hidden_size=TINY.width,
        neck_hidden_sizes=list(TINY.neck),
        fusion_hidden_size=TINY.fusion,
    )
    model = transformers.DepthAnythingForDepthEstimation(config)
    with torch.no_grad():
        for name, value in model.named_parameters():
            value.add_(0.05 * torch.randn(value.shape))
            if name.startswith("head.conv3"):
                value.abs_()
    model.save_pretrained(path)
    return path


@pytest.mark.parametrize("size", [SIZE, (112, 42)])
def test_a_state_dict_gives_the_authors_depth(pth: Path, size: tuple[int, int]) -> None:
    network = load_depth(pth)
    pixels = pixels_of(2, size)
    expected = authors_depth(torch.load(pth, weights_only=True), TINY, pixels)
    depth = network(pixels)
    assert depth.shape == (2, *size)
    assert (expected > 0).float().mean() > 0.5
    assert distance(depth, expected) <= 1e-5
    parameters = sum(v.numel() for k, v in authors_state(TINY).items() if "mask_token" not in k)
    assert network.variant.name == "tiny"
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert network.source == str(pth)


def test_a_folder_gives_the_untouched_modules_depth_on_the_trained_grid(folder: Path) -> None:
    """No interpolation there, so both rules agree."""
    module = transformers.DepthAnythingForDepthEstimation.from_pretrained(folder).eval()
    network = load_depth(folder)
    pixels = pixels_of(1, (518, 518))
    with torch.no_grad():
        expected = module(pixels).predicted_depth
    assert expected.std() > 0
    assert distance(network(pixels), expected) <= 1e-5
    assert network.variant.name == "tiny"


def test_a_folder_differs_from_the_untouched_module_in_the_position_rule_only(folder: Path) -> None:
    module = transformers.DepthAnythingForDepthEstimation.from_pretrained(folder).eval()
    network = load_depth(folder)
    pixels = pixels_of(2)
    with torch.no_grad():
        expected = module(pixels).predicted_depth
    assert distance(network(pixels), expected) > 2e-5
    del network.module.backbone.embeddings.interpolate_pos_encoding  # back to transformers' rule
    assert distance(network(pixels), expected) <= 2e-6


@pytest.mark.parametrize("grid", [(37, 74), (4, 7), (50, 37), (36, 38)])
def test_positions_follow_the_authors_rule(grid: tuple[int, int]) -> None:
    table = torch.randn(1, 1370, 8, generator=torch.Generator().manual_seed(1))
    positions = interpolate_positions(table, grid)
    assert positions.shape == (1, 1 + grid[0] * grid[1], 8)
    assert distance(positions, slow_positions(table, *grid)) <= 1e-5
    plain = F.interpolate(table[:, 1:].reshape(1, 37, 37, 8).permute(0, 3, 1, 2), size=grid, mode="bicubic")
    by_size = plain.flatten(2).transpose(1, 2)
    assert distance(positions[:, 1:], by_size) > 1e-4  # transformers' rule is another


def test_positions_on_the_trained_grid_are_untouched() -> None:
    table = torch.randn(1, 1370, 8)
    assert torch.equal(interpolate_positions(table, (37, 37)), table)


@pytest.mark.parametrize("name", ["small", "base", "large"])
def test_the_real_variants_have_the_authors_tensors(name: str) -> None:
    """On the meta device: every tensor of the authors' layout is placed, and none is left over."""
    variant = VARIANTS[name]
    with torch.device("meta"):
        state = {key: torch.empty(value) for key, value in authors_shapes(variant).items()}
    module = _skeleton(variant)
    bind(module, DepthCheckpoint(Path("x.pth"), variant, state, _authors_place))
    parameters = sum(p.numel() for p in module.parameters())
    published = {"small": 24.8e6, "base": 97.5e6, "large": 335.3e6}  # the authors' README
    assert parameters == pytest.approx(published[name], rel=2e-3)


def test_random_weights_are_seeded_and_give_depth_that_varies() -> None:
    a, b, c = (random_depth("tiny", seed) for seed in (3, 3, 4))
    depth = a(pixels_of(2))
    assert torch.equal(depth, b(pixels_of(2)))
    assert not torch.equal(depth, c(pixels_of(2)))
    assert depth.isfinite().all()
    assert depth.min() >= 0
    assert 0.05 < depth.std() / depth.mean() < 5
    with pytest.raises(InputError, match="'giant'"):
        random_depth("giant")


def test_half_precision_keeps_float32_at_both_ends() -> None:
    expected = random_depth("tiny", 0)(pixels_of(2))
    depth = random_depth("tiny", 0).half()(pixels_of(2))
    assert depth.dtype == torch.float32
    assert distance(depth, expected) <= 5e-3
