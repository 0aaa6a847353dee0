"""What is read of SAMEO's checkpoints, and what is refused."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from amodal.export.families.sameo.checkpoint import SameoCheckpoint, random_checkpoint, read_sameo
from amodal.runtime.errors import CheckpointError, InputError


@pytest.fixture(scope="module")
def toy() -> SameoCheckpoint:
    return random_checkpoint("tiny")


def saved(folder: Path, toy: SameoCheckpoint, facts: dict[str, Any] | None = None, **changed: Any) -> Path:
    file = folder / "toy.pt"
    tensors = {**toy.tensors, **changed}
    torch.save({"model": {name: t for name, t in tensors.items() if t is not None}}, file)
    usual = {"img_size": [64, 128], "heads": 2, "decoder_heads": 4}
    file.with_suffix(".json").write_text(json.dumps(usual | (facts or {})))
    return file


def test_a_checkpoint_is_read_as_it_was_saved(tmp_path: Path, toy: SameoCheckpoint) -> None:
    read = read_sameo(saved(tmp_path, toy))
    assert read.config == toy.config
    assert all(torch.equal(read.tensors[name], tensor) for name, tensor in toy.tensors.items())


def test_a_checkpoint_inside_a_zip_is_read(tmp_path: Path, toy: SameoCheckpoint) -> None:
    file = saved(tmp_path, toy)
    archive = tmp_path / "toy.zip"
    with zipfile.ZipFile(archive, "w") as writing:
        writing.write(file, "weights/toy.pt")
    archive.with_suffix(".json").write_text(file.with_suffix(".json").read_text())
    assert read_sameo(archive).config == toy.config


def test_tuned_parts_take_the_place_of_the_checkpoint_s(tmp_path: Path, toy: SameoCheckpoint) -> None:
    prefix = "mask_decoder."
    decoder = {n.removeprefix(prefix): t + 1 for n, t in toy.tensors.items() if n.startswith(prefix)}
    torch.save({"decoder": decoder}, tuned := tmp_path / "sameo.pth")
    read = read_sameo(saved(tmp_path, toy), tuned)
    for name, tensor in toy.tensors.items():
        torch.testing.assert_close(read.tensors[name], tensor + 1 if name.startswith(prefix) else tensor)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"mask_decoder.iou_token.weight": None}, "there is no tensor mask_decoder.iou_token.weight"),
        ({"mask_decoder.iou_token.weight": torch.zeros(2, 32)}, "iou_token.weight has shape [2, 32]; expected [1, 32]"),
        ({"image_encoder.extra": torch.zeros(1)}, "EfficientSAM has no tensor image_encoder.extra"),
        ({"image_encoder.blocks.0.attn.rel_pos_h": torch.zeros(1)}, "a checkpoint of SAM (ViT-B, -L or -H)"),
        ({"image_encoder.patch_embed.seq.0.c.weight": torch.zeros(1)}, "a checkpoint of MobileSAM"),
        ({"sam_mask_decoder.iou_token.weight": torch.zeros(1)}, "a checkpoint of SAM 2"),
        ({"image_encoder.patch_embed.proj.weight": None}, "is no EfficientSAM checkpoint"),
    ],
)
def test_the_first_wrong_tensor_is_named(
    tmp_path: Path, toy: SameoCheckpoint, changed: dict[str, Any], said: str
) -> None:
    with pytest.raises(CheckpointError) as refused:
        read_sameo(saved(tmp_path, toy, **changed))
    assert said in str(refused.value)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"dim": 64}, "says dim 64, but"),
        ({"heads": 3}, "do not fit 3 heads"),
        ({"points": 0}, "points is 0; expected a number from 1 on"),
        ({"img_size": 60}, "is no multiple of the patch, 8"),
        ({"mean": [1, 2]}, "mean is [1, 2]; expected three numbers"),
        ({"position_grid": [3, 5]}, "which is no grid of 3x5"),
    ],
)
def test_a_json_that_contradicts_the_tensors_is_refused(
    tmp_path: Path, toy: SameoCheckpoint, facts: dict[str, Any], said: str
) -> None:
    with pytest.raises(CheckpointError) as refused:
        read_sameo(saved(tmp_path, toy, facts))
    assert said in str(refused.value)


def test_tuned_parts_alone_are_told_from_a_checkpoint(tmp_path: Path) -> None:
    torch.save({"decoder": {}}, tmp_path / "sameo.pth")
    with pytest.raises(CheckpointError, match="tuned parts alone; give it as --decoder"):
        read_sameo(tmp_path / "sameo.pth")


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    torch.save({"model": Path("x")}, tmp_path / "bad.pt")
    with pytest.raises(CheckpointError, match="more in it than tensors"):
        read_sameo(tmp_path / "bad.pt")


def test_a_size_has_whole_patches(toy: SameoCheckpoint) -> None:
    with pytest.raises(InputError, match="multiples of 8; try 56x128"):
        toy.resized((60, 128))
