"""`amodal export` and `amodal inspect`: what they write and say, and bad input to the export."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from amodal.runtime.loading import load
from amodal.runtime.pictures.depth import prepare_depth_input, quantise_frames
from amodal.runtime.pictures.images import prepare_rgb

from .conftest import Clip, Outcome, assert_refusal, issue, leftovers

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from ..checkpoints import make_checkpoint  # noqa: E402

Refused = Callable[..., str]
UNET = "unet/diffusion_pytorch_model.safetensors"
COMPONENTS = {
    *("image_encoder", "vae_encoder", "vae_decoder", "depth"),
    *("segment_unet_conditioner", "segment_unet", "complete_unet_conditioner", "complete_unet"),
}


@pytest.fixture(scope="session")
def kept_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In the authors' format, as small as can be; needs multiples of 4 * 2 pixels; not to be changed."""
    folder = tmp_path_factory.mktemp("checkpoint") / "stage"
    return make_checkpoint(folder, block_out_channels=(32, 32), heads=(2, 2), vae_channels=(32, 32, 32))


@pytest.fixture
def checkpoint(kept_checkpoint: Path, tmp_path: Path) -> Path:
    """To be damaged."""
    return shutil.copytree(kept_checkpoint, tmp_path / "stage")


def edit(file: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    change(tensors)
    file.unlink()
    save_file(tensors, file)


def test_an_export_says_what_it_wrote_in_eighty_columns(toy_with_depth: tuple[Path, Outcome]) -> None:
    bundle, outcome = toy_with_depth
    lines = outcome.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split() == ["component", "arithmetic", "parameters", "size", "difference", "seconds"]
    assert {line.split()[0] for line in lines[2:10]} == COMPONENTS
    assert lines[-1] == f"Wrote {bundle}"
    assert outcome.err == ""
    assert leftovers(bundle.parent) == []


def test_inspect_says_what_is_inside_in_eighty_columns(toy_with_depth: tuple[Path, Outcome]) -> None:
    bundle, _ = toy_with_depth
    plain = issue("inspect", bundle)
    assert plain.err == ""
    assert max(map(len, plain.out.splitlines()[1:])) <= 80
    for expected in ("3 frames of 64x64", "every file matches its hash", "Depth Anything V2 tiny", *COMPONENTS):
        assert expected in plain.out
    assert "conditioning" not in plain.out
    assert "in   conditioning    float32  [rows, 3, 8, 8, 8]" in issue("inspect", bundle, "--shapes").out
    assert "hashes not compared" in issue("inspect", bundle, "--no-verify").out
    as_json = json.loads(issue("inspect", bundle, "--json").out)
    assert as_json["verified"] is True
    assert set(as_json["components"]) == COMPONENTS
    assert {k: v for k, v in as_json.items() if k not in ("path", "verified")} == json.loads(
        (bundle / "manifest.json").read_text()
    )


@pytest.mark.slow
def test_a_checkpoint_becomes_a_bundle_that_was_compared_with_torch(
    kept_checkpoint: Path, kept_clip: Clip, tmp_path: Path
) -> None:
    options = ("--size", "16x24", "--frames", 3, "--precision", "fp32", "--decode-chunk", 2, "--json")
    outcome = issue("export", "--segment", kept_checkpoint, *options, "-o", tmp_path / "new" / "bundle")
    assert outcome.err == ""
    document = json.loads(outcome.out)
    assert document["bundle"] == str(tmp_path / "new" / "bundle")
    assert len(document["components"]) == 5
    for row in document["components"]:
        assert row["difference"] <= 1e-5
        assert row["checked_at"] == [16, 24]
    shown = issue("inspect", document["bundle"]).out
    assert f"stage segment     {kept_checkpoint}" in shown
    assert "relative L2 to torch" in shown
    run = issue("run", document["bundle"], *kept_clip.inputs, "--steps", 1, "-q", "-o", tmp_path / "out")
    assert run == Outcome(0, "", "")
    assert not (tmp_path / "out" / "completed").exists()


def test_a_quiet_export_is_silent_and_replaces_a_bundle_if_told(kept_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    options = ("--segment", kept_checkpoint, "--size", "16x16", "--frames", 1, "--check", "none", "-q", "-o", out)
    assert issue("export", *options) == Outcome(0, "", "")
    before = (out / "manifest.json").read_bytes()
    outcome = issue("export", *options)
    assert_refusal(outcome)
    assert "--overwrite" in outcome.err
    assert (out / "manifest.json").read_bytes() == before
    (out / "of old").touch()
    assert issue("export", *options, "--overwrite") == Outcome(0, "", "")
    assert not (out / "of old").exists()


def test_a_checkpoint_without_a_tensor(refused: Refused, checkpoint: Path) -> None:
    edit(checkpoint / UNET, lambda tensors: (tensors.pop("conv_out.bias"), tensors.pop("conv_norm_out.bias")))
    assert "lacks the tensor conv_norm_out.bias" in refused("export", "--segment", checkpoint)


def test_a_checkpoint_with_a_misshapen_tensor(refused: Refused, checkpoint: Path) -> None:
    edit(checkpoint / UNET, lambda tensors: tensors.update({"conv_out.weight": torch.zeros(4, 32, 1, 1)}))
    sentence = refused("export", "--complete", checkpoint)
    assert "tensor conv_out.weight has shape [4, 32, 1, 1] where the config asks for [4, 32, 3, 3]" in sentence


@pytest.mark.parametrize("disguise", [False, True])
def test_a_pickle_in_place_of_safetensors(disguise: bool, refused: Refused, checkpoint: Path) -> None:
    (checkpoint / UNET).unlink()
    name = UNET if disguise else UNET.replace(".safetensors", ".bin")
    torch.save({"conv_out.bias": torch.zeros(4)}, checkpoint / name)
    sentence = refused("export", "--segment", checkpoint)
    assert str(checkpoint / name) in sentence
    assert ("is not a readable safetensors file" if disguise else "holds a pickle") in sentence


def test_truncated_weights(refused: Refused, checkpoint: Path) -> None:
    file = checkpoint / UNET
    file.write_bytes(file.read_bytes()[:-1000])
    assert f"{file} is not a readable safetensors file" in refused("export", "--segment", checkpoint)


def test_a_folder_that_is_no_checkpoint(refused: Refused, toy_bundle: Path) -> None:
    assert "There is no checkpoint folder at nowhere" in refused("export", "--segment", "nowhere")
    assert "model_index.json is missing" in refused("export", "--segment", toy_bundle)


def test_a_hub_id_without_the_hub(refused: Refused, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    sentence = refused("export", "--segment", "org/name")
    assert "org/name is no folder and could not be fetched from Hugging Face" in sentence
    assert "HF_HUB_OFFLINE" in sentence


def test_a_depth_id_without_the_hub(
    refused: Refused, kept_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    sentence = refused("export", "--segment", kept_checkpoint, "--depth", "depth-anything/Depth-Anything-V2-Large-hf")
    assert "V2-Large-hf is no folder and could not be fetched from Hugging Face" in sentence


@pytest.mark.parametrize("part", ["unet", "vae", "image_encoder"])
def test_a_checkpoint_cloned_without_git_lfs(part: str, refused: Refused, checkpoint: Path) -> None:
    (file,) = (checkpoint / part).glob("*.safetensors")
    file.unlink()
    file.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "ab" * 32 + "\nsize 3049435888\n")
    sentence = refused("export", "--segment", checkpoint)
    assert f"{file} is a git-lfs pointer, not the file itself: run `git lfs pull`" in sentence


@pytest.mark.slow
def test_a_metric_depth_checkpoint_is_exported_when_it_is_meant(
    refused: Refused, kept_checkpoint: Path, kept_clip: Clip, tmp_path: Path
) -> None:
    from amodal.export.depth_anything.checkpoint import _authors_place
    from amodal.export.depth_anything.network import load_depth, random_depth

    state: dict[str, Any] = {}
    for name, value in random_depth("tiny").module.state_dict().items():
        place, part = _authors_place(name, {})
        state[place] = value if not part else torch.cat((state[place], value))
    file = tmp_path / "depth_anything_v2_metric_hypersim_vits.pth"
    torch.save(state, file)
    options = ("--segment", kept_checkpoint, "--depth", file, "--size", "16x24", "--frames", 3, "--precision", "fp32")
    assert "say --depth-kind metric to have them inverted" in refused("export", *options)
    bundle = tmp_path / "bundle"
    more = ("--depth-kind", "metric", "--depth-channels", "rgb", "--check", "none", "-q", "-o", bundle)
    assert issue("export", *options, *more) == Outcome(0, "", "")
    depth = json.loads((bundle / "manifest.json").read_text())["config"]["depth"]
    assert (depth["kind"], depth["channels"], depth["model"]) == ("metric", "rgb", "Depth Anything V2 tiny metric")
    assert "Depth Anything V2 tiny metric, channels red first" in issue("inspect", bundle).out
    with load(bundle, threads=1) as model:
        found, demo = (model.depth(kept_clip.rgb, channels) for channels in (None, "demo"))
        np.testing.assert_array_equal(found, model.depth(kept_clip.rgb, "rgb"))
        assert np.abs(found - demo).max() > 0.01
        pixels = prepare_depth_input(quantise_frames(prepare_rgb(kept_clip.rgb, (16, 24))), channels="rgb")
        distances = load_depth(file, "metric")(torch.from_numpy(pixels))[:, None]
        resized = torch.nn.functional.interpolate(distances, (16, 24), mode="bilinear", align_corners=True)[:, 0]
        near = 1 / resized.numpy()
        np.testing.assert_allclose(found, (near - near.min()) / np.ptp(near) * 2 - 1, atol=1e-3)


@pytest.mark.parametrize("content", [None, b"", b"\x80\x04N.", "tensors"])
def test_a_depth_checkpoint_that_is_none(content: Any, refused: Refused, kept_checkpoint: Path, tmp_path: Path) -> None:
    file = tmp_path / "depth.pth"
    if content == "tensors":
        torch.save({"x": torch.zeros(1)}, file)
    elif content is not None:
        file.write_bytes(content)
    assert str(file) in refused("export", "--segment", kept_checkpoint, "--depth", file, "--size", "16x16")


@pytest.mark.parametrize(
    ("size", "nearest"),
    [
        ("17x24", "the nearest are 16x24 and 24x24"),
        ("100x100", "the nearest are 96x96 and 104x104"),
        ("3x3", "the nearest is 8x8"),
        ("0x16", "the nearest is 8x16"),
    ],
)
def test_a_size_that_does_not_divide(size: str, nearest: str, refused: Refused, kept_checkpoint: Path) -> None:
    sentence = refused("export", "--segment", kept_checkpoint, "--size", size)
    assert f"size {size} does not fit" in sentence
    assert nearest in sentence


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), "nothing to export"),
        (("--depth", "depth.pth"), "nothing to export"),
        (("--random", "tiny", "--segment", "ckpt"), "omit --segment, or omit --random"),
        (("--random", "tiny", "--segment", "a", "--complete", "b"), "omit --segment and --complete"),
        (("--random", "huge"), "'huge' is not one of"),
        (("--random", "tiny", "--random-depth", "tiny", "--depth", "x.pth"), "without --depth"),
        (("--segment", "ckpt", "--random-depth", "tiny"), "--random-depth needs --random"),
        (("--random", "tiny", "--size", "64"), "expected HEIGHTxWIDTH"),
        (("--random", "tiny", "--size", "64x-64"), "expected HEIGHTxWIDTH"),
        (("--random", "tiny", "--size", "64x64", "--frames", "0"), "--frames 0"),
        (("--random", "tiny", "--size", "64x64", "--decode-chunk", "0"), "--decode-chunk 0"),
        (("--random", "tiny", "--precision", "int4"), "'int4' is not one of"),
    ],
)
def test_options_that_make_no_sense(options: tuple[str, ...], expected: str, refused: Refused) -> None:
    assert expected in refused("export", *options)


def test_the_export_extra_missing(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    from amodal.cli.families import exported

    find = exported.find_spec
    monkeypatch.setattr(exported, "find_spec", lambda name: None if name in ("torch", "onnx_ir") else find(name))
    sentence = refused("export", "--random", "tiny")
    assert "export needs torch, onnx_ir, not installed here" in sentence
    assert 'pip install "amodal[export]"' in sentence


@pytest.mark.parametrize("size", [1000, 200_000])
def test_a_disk_that_fills_up(
    size: int, refused: Refused, kept_checkpoint: Path, largest_file: Callable[[int], Any]
) -> None:
    with largest_file(size):
        sentence = refused("export", "--segment", kept_checkpoint, "--size", "16x16", "--check", "none")
    assert "could not be written" in sentence
    assert "nothing was left behind" in sentence
