"""Both layouts of a depth checkpoint: what is read, without a second copy, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from amodal.export.depth_anything.checkpoint import VARIANTS, _authors_place  # noqa: E402
from amodal.export.depth_anything.network import _skeleton, load_depth  # noqa: E402
from amodal.runtime.errors import CheckpointError  # noqa: E402

TINY = VARIANTS["tiny"]
SIZE = (28, 42)
State = dict[str, Any]


def module() -> Any:
    """transformers' tiny network, random."""
    made = _skeleton(TINY).to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, value in made.named_parameters():
            value.copy_(0.1 * torch.randn(value.shape, generator=generator))
            if name.startswith("head.conv3"):
                value.abs_()
    return made


def authors_state() -> State:
    """The same weights as a state dict of the authors' (test_depth_network.py checks the names)."""
    state: State = {"pretrained.mask_token": torch.zeros(1, TINY.width)}
    for name, value in module().state_dict().items():
        place, part = _authors_place(name, {})
        state[place] = value if not part else torch.cat((state[place], value))
    return state


def depth_of(path: Path) -> Any:
    pixels = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(7))
    return load_depth(path)(pixels)


@pytest.fixture(scope="module")
def pth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("authors") / "depth_anything_v2_tiny.pth"
    torch.save(authors_state(), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("transformers") / "depth"
    module().save_pretrained(path)
    return path


def test_every_form_of_the_same_weights_gives_the_same_depth(pth: Path, folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file(authors_state(), tmp_path / "depth.safetensors")
    expected = depth_of(pth)
    assert expected.std() > 0
    for path in (pth.parent, tmp_path / "depth.safetensors", folder):
        assert torch.equal(depth_of(path), expected), path


def test_loading_keeps_one_copy_of_the_weights(pth: Path) -> None:
    """The three parts of a fused qkv stay views of one storage."""
    network = load_depth(pth)
    state = {name: value for name, value in network.state_dict().items() if "encoder.layer.0.attention" in name}
    weights = [value for name, value in state.items() if value.ndim == 2 and not ("o_proj" in name or "output" in name)]
    assert len(weights) == 3
    assert len({value.untyped_storage().data_ptr() for value in weights}) == 1


def test_shards_variants_and_both_spellings_of_the_attention_are_read(folder: Path, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    expected = depth_of(folder)
    tensors = load_file(folder / "model.safetensors")
    new = {
        name.replace("attention.attention.query", "attention.q_proj")
        .replace("attention.attention.key", "attention.k_proj")
        .replace("attention.attention.value", "attention.v_proj")
        .replace("attention.output.dense", "attention.o_proj"): value
        for name, value in tensors.items()
    }
    old = {
        name.replace("attention.q_proj", "attention.attention.query")
        .replace("attention.k_proj", "attention.attention.key")
        .replace("attention.v_proj", "attention.attention.value")
        .replace("attention.o_proj", "attention.output.dense"): value
        for name, value in new.items()
    }
    assert set(new).isdisjoint(n for n in old if "attention" in n)
    for spelling, state in (("new", new), ("old", old)):
        target = tmp_path / spelling
        target.mkdir()
        (target / "config.json").write_text((folder / "config.json").read_text())
        names = sorted(state)
        files = {name: f"model-0000{i % 2 + 1}-of-00002.safetensors" for i, name in enumerate(names)}
        for file in set(files.values()):
            save_file({name: state[name] for name in names if files[name] == file}, target / file)
        (target / "model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
        assert torch.equal(depth_of(target), expected)

    half = tmp_path / "half"
    half.mkdir()
    (half / "config.json").write_text((folder / "config.json").read_text())
    save_file({name: value.half() for name, value in old.items()}, half / "model.fp16.safetensors")
    network = load_depth(half)
    assert {p.dtype for p in network.parameters()} == {torch.float32}
    torch.testing.assert_close(depth_of(half), expected, rtol=2e-2, atol=2e-2)


def broken(change: Callable[[State], Any]) -> State:
    state = authors_state()
    change(state)
    return state


QKV = "pretrained.blocks.1.attn.qkv.weight"


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (lambda: broken(lambda s: s.pop(QKV)), f"there is no tensor '{QKV}'"),
        (lambda: broken(lambda s: s.pop("pretrained.cls_token")), "'pretrained.cls_token'"),
        (
            lambda: broken(lambda s: s.update({QKV: torch.zeros(3, 5)})),
            r"float32 \[3, 5\]; expected float \[144, 48\]",
        ),
        (lambda: broken(lambda s: s.update({QKV: s[QKV].int()})), r"int32 \[144, 48\]"),
        (
            lambda: broken(lambda s: s.update({"pretrained.registers": torch.zeros(1)})),
            "'pretrained.registers'",
        ),
        (lambda: {"pretrained.cls_token": torch.zeros(1, 1, 1536)}, "width 1536; expected one of 384"),
        (lambda: {"model": authors_state()}, "no plain state dict"),
        (lambda: [torch.zeros(1)], "no plain state dict"),
        (lambda: {"net": Path("x")}, "more in it than tensors"),
    ],
)
def test_a_bad_state_dict_is_refused(tmp_path: Path, state: Callable[[], Any], message: str) -> None:
    torch.save(state(), tmp_path / "depth.pth")
    with pytest.raises(CheckpointError, match=message):
        load_depth(tmp_path / "depth.pth")


def test_a_truncated_file_is_refused(pth: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.pth").write_bytes(pth.read_bytes()[:-5000])
    with pytest.raises(CheckpointError, match="truncated"):
        load_depth(tmp_path / "cut.pth")
    (tmp_path / "cut.safetensors").write_bytes(b"\x10\x00\x00")
    with pytest.raises(CheckpointError, match=r"cut\.safetensors is not a readable safetensors file"):
        load_depth(tmp_path / "cut.safetensors")
    with pytest.raises(CheckpointError, match="no depth checkpoint at"):
        load_depth(tmp_path / "absent.pth")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="there are 0"):
        load_depth(tmp_path / "empty")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model_type": "dpt"}, "model_type is 'dpt', expected 'depth_anything'"),
        ({"backbone_config": {"model_type": "swin"}}, "backbone_config.model_type is 'swin'"),
        ({"backbone_config": None}, "backbone_config.model_type is None"),
        ({"depth_estimation_type": "metric"}, "depth_estimation_type is 'metric'"),
        ({"neck_hidden_sizes": [8, 16]}, "no usable config"),
        ({"fusion_hidden_size": "wide"}, "no usable config"),
        ({"fusion_hidden_size": 24}, "neck.convs.0.weight|neck.fusion_stage.layers.0"),
    ],
)
def test_a_folder_of_another_network_is_refused(
    folder: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=message):
        load_depth(tmp_path)


def test_a_folder_without_safetensors_is_refused(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    with pytest.raises(CheckpointError, match=r"has no model\.safetensors"):
        load_depth(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_depth(tmp_path)
