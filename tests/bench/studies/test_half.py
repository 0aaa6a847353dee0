"""Loss by half precision, in torch, on a toy."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("diffusers")
pytest.importorskip("transformers")


from amodal.bench.studies.half import measure_loss, summed_in_single  # noqa: E402
from amodal.runtime.errors import CheckpointError  # noqa: E402

from ...checkpoints import make_checkpoint  # noqa: E402


@pytest.mark.slow
def test_half_precision_differs_by_its_rounding_and_no_more(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "toy", seed=1, block_out_channels=(32, 64), heads=(2, 4), vae_channels=(32, 32, 32))
    found = measure_loss(tmp_path / "toy", 1, 2, 2, (64, 64))
    assert len(found.iou) == 1
    assert 0 < found.latents[0] < 0.05  # another noise, or another seed, would give about 1
    assert found.iou[0] > 0.9


def test_products_of_halves_are_rounded_once() -> None:
    x, weight = torch.randn(2, 8, 6, 6).half(), torch.randn(4, 8, 3, 3).half()
    a, b = torch.randn(5, 700).half(), torch.randn(700, 5).half()
    with torch.inference_mode(), summed_in_single():
        convolved, product = torch.nn.functional.conv2d(x, weight), a @ b
    exact = torch.nn.functional.conv2d(x.double(), weight.double())
    assert convolved.dtype == product.dtype == torch.float16
    assert (convolved.double() - exact).abs().max() <= exact.abs().max() * 2**-11
    exact = a.double() @ b.double()
    assert ((product.double() - exact).abs() <= exact.abs() * 2**-11 + 1e-3).all()


def test_a_checkpoint_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        measure_loss(tmp_path, 1, 2, 2, (64, 64))
