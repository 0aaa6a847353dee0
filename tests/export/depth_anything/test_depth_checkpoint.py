"""Both layouts of a depth checkpoint: what is read, without a second copy, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import huggingface_hub  # noqa: E402

from amodal.export.depth_anything.checkpoint import VARIANTS, _authors_place  # noqa: E402
from amodal.export.depth_anything.network import DepthNetwork, _skeleton, load_depth  # noqa: E402
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
        ({"depth_estimation_type": "metric"}, 'as its config.json says: .*`depth_kind="metric"`'),
        ({"depth_estimation_type": "ordinal"}, "depth_estimation_type is 'ordinal'"),
        ({"depth_estimation_type": "metric", "max_depth": -1}, "'metric' and max_depth -1"),
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


METRIC = "depth_anything_v2_metric_hypersim_vits.pth"


def sigmoid_depth(state: State, most: float) -> Any:
    """What the authors' metric network gives: the last activation is a sigmoid, times the largest distance."""
    made = _skeleton(TINY).to_empty(device="cpu")
    made.load_state_dict(module().state_dict())
    found: list[Any] = []
    made.head.conv3.register_forward_hook(lambda _, __, result: found.append(result))
    network = DepthNetwork(made, TINY, "nowhere")
    network(torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(7)))
    return most * torch.sigmoid(found[0][:, 0])


@pytest.mark.parametrize(("name", "most"), [(METRIC, 20), ("depth_anything_v2_metric_vkitti_vitl.pth", 80)])
def test_a_metric_file_is_refused_until_it_is_said_to_be_meant(name: str, most: int, tmp_path: Path) -> None:
    torch.save(authors_state(), tmp_path / name)
    for path in (tmp_path / name, tmp_path):
        with pytest.raises(CheckpointError, match=f"{name}|{tmp_path.name}.* is a metric checkpoint, as its name says"):
            load_depth(path)
    network = load_depth(tmp_path / name, "metric")
    assert (network.kind, network.module.config.max_depth) == ("metric", most)
    pixels = torch.randn(1, 3, *SIZE, generator=torch.Generator().manual_seed(7))
    torch.testing.assert_close(network(pixels), sigmoid_depth(authors_state(), most), rtol=1e-5, atol=1e-6)
    assert load_depth(tmp_path / name, "relative").kind == "relative"


def test_a_metric_folder_says_so_itself(folder: Path, tmp_path: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    more = {"depth_estimation_type": "metric", "max_depth": 80}
    (tmp_path / "config.json").write_text(json.dumps({**config, **more}))
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    network = load_depth(tmp_path, "metric")
    assert (network.kind, network.module.config.max_depth) == ("metric", 80)
    with pytest.raises(CheckpointError, match=r"gives relative depth, as its config\.json says; omit `depth_kind`"):
        load_depth(folder, "metric")


def test_the_first_version_is_refused_by_its_name(tmp_path: Path) -> None:
    torch.save(authors_state(), tmp_path / "depth_anything_vitl14.pth")
    with pytest.raises(CheckpointError, match="is Depth Anything V1 by its name"):
        load_depth(tmp_path / "depth_anything_vitl14.pth")


@pytest.mark.parametrize("layout", ["transformers", "authors"])
def test_an_id_is_fetched_from_the_hub(
    layout: str, pth: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, list[str]]] = []

    def snapshot_download(repo: str, allow_patterns: list[str]) -> str:
        asked.append((repo, allow_patterns))
        snapshot = tmp_path / "cache" / "0123abc"
        shutil.copytree(folder if layout == "transformers" else pth.parent, snapshot)
        return str(snapshot)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    network = load_depth("depth-anything/Depth-Anything-V2-Tiny-hf")
    assert network.source == "depth-anything/Depth-Anything-V2-Tiny-hf@0123abc"
    assert asked == [("depth-anything/Depth-Anything-V2-Tiny-hf", ["config.json", "*.safetensors*", "*.pth"])]


def test_a_metric_id_is_refused_by_its_name(pth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(pth.parent))
    with pytest.raises(CheckpointError, match="is a metric checkpoint, as its name says"):
        load_depth("depth-anything/Depth-Anything-V2-Metric-VKITTI-Large")


@pytest.mark.parametrize("name", ["checkpoints/depth_anything_v2_vitl.pth", "a/b/c", "depth"])
def test_a_missing_file_is_not_looked_for_on_the_hub(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: pytest.fail("asked the hub"))
    with pytest.raises(CheckpointError, match=f"no depth checkpoint at {name}; .* or a Hugging Face id"):
        load_depth(name)


def test_an_unreachable_hub_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: Any, **__: Any) -> str:
        raise OSError("offline mode is on")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", offline)
    with pytest.raises(CheckpointError, match=r"org/name is no folder and could not be fetched .*HF_HUB_OFFLINE"):
        load_depth("org/name")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 1341322868\n"


@pytest.mark.parametrize("name", ["depth_anything_v2_vitl.pth", "depth.safetensors"])
def test_what_was_downloaded_in_place_of_a_file_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(POINTER)
    with pytest.raises(CheckpointError, match=f"{name} is a git-lfs pointer, .* run `git lfs pull` in {tmp_path}"):
        load_depth(tmp_path / name)
    (tmp_path / name).write_text("\n<!DOCTYPE html><html>")
    with pytest.raises(CheckpointError, match=f"{name} is a web page, not a checkpoint"):
        load_depth(tmp_path / name)


def test_a_folder_of_pointers_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    (tmp_path / "model.safetensors").write_text(POINTER)
    with pytest.raises(CheckpointError, match=r"model\.safetensors is a git-lfs pointer"):
        load_depth(tmp_path)
    (tmp_path / "config.json").write_text(POINTER)
    with pytest.raises(CheckpointError, match=r"config\.json is a git-lfs pointer"):
        load_depth(tmp_path)
