"""Pricing half precision, in torch, on a toy."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")

from amodal.bench.checkpoints import make_checkpoint  # noqa: E402
from amodal.bench.half import price  # noqa: E402
from amodal.runtime.errors import CheckpointError  # noqa: E402


def test_half_precision_differs_by_its_rounding_and_no_more(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "toy", seed=1, block_out_channels=(32, 64), heads=(2, 4), vae_channels=(32, 32, 32))
    found = price(tmp_path / "toy", 1, 2, 2, (64, 64))
    assert len(found.iou) == 1
    assert 0 < found.latents[0] < 0.05  # another noise, or another seed, would give about 1
    assert found.iou[0] > 0.9


def test_a_checkpoint_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        price(tmp_path, 1, 2, 2, (64, 64))
