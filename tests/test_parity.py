"""Parity with the authors' pipeline, from this repository alone: `pytest -s tests/test_parity.py` prints the figures.

Weights, clip and noise come from seeds; `tests/recorded/case.npz` holds what the reference pipeline on torch and
diffusers drew from them. With the records beside the repository, that pipeline is itself held to what the authors' own
code drew (`tests/bench/reference/test_reference.py`).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import amodal

for module in ("torch", "diffusers", "transformers", "onnx_ir"):
    pytest.importorskip(module)

from .recorded.record import CASE, FRAMES, SEED, SIZE, STAGES, checkpoints, draw, inputs, signed  # noqa: E402


@pytest.fixture(scope="module")
def case() -> dict[str, Any]:
    with np.load(CASE) as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def drawn(case: dict[str, Any], exporter: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the exported bundle draws of the recorded case, both stages in one stream of noise, and every latent."""
    bundle = exporter(tmp_path_factory.mktemp("parity") / "bundle", checkpoints(), size=SIZE, frames=FRAMES)
    latents: dict[str, list[Any]] = {stage: [] for stage in STAGES}

    def keep(stage: str) -> Any:
        return lambda step, sigma, x: latents[stage].append(np.array(x))

    modal, depth, rgb = (signed(case[name]) for name in ("modal", "depth", "rgb"))
    with amodal.load(bundle) as model:
        seen = model.segment(modal, depth=depth, seed=SEED, callback=keep("segment"))
        whole = model.complete(rgb, modal, case["masks"], seed=seen.noise, callback=keep("complete"))
    return {"segment": seen, "complete": whole, "latents": latents}


@pytest.mark.parametrize("stage", STAGES)
def test_latents_of_all_steps_are_the_recorded_ones(stage: str, case: dict[str, Any], drawn: dict[str, Any]) -> None:
    latents = drawn["latents"][stage]
    assert len(latents) == 25
    recorded = case[f"{stage}_latents"].astype(np.float64)
    errors = [
        np.linalg.norm(latents[step] - want) / np.linalg.norm(want)
        for step, want in zip(case["steps"], recorded, strict=True)
    ]
    print(f"\n{stage}: latents within {max(errors):.1e} of the recorded ones, relative L2 over the steps")
    assert max(errors) <= 1e-5


@pytest.mark.parametrize("stage", STAGES)
def test_pictures_are_the_recorded_ones_but_for_rounding(
    stage: str, case: dict[str, Any], drawn: dict[str, Any]
) -> None:
    difference = np.abs(drawn[stage].frames.astype(int) - case[f"{stage}_frames"])
    print(f"\n{stage}: pictures within {difference.max()} of 255, {difference.mean():.1e} on average")
    assert difference.max() <= 2
    assert difference.mean() <= 0.01


def test_masks_are_the_recorded_ones(case: dict[str, Any], drawn: dict[str, Any]) -> None:
    got, want = drawn["segment"].masks, case["masks"]
    hidden = want & (case["modal"] == 0)
    assert hidden.sum() > 100, "the case shows nothing if the network adds nothing to the visible mask"
    iou = (got & want).sum() / (got | want).sum()
    print(f"\nmasks: IoU {iou:.4f}, over {hidden.sum()} hidden pixels")
    assert iou >= 0.9995


def test_the_case_is_small_and_made_of_what_is_drawn_here(case: dict[str, Any]) -> None:
    assert CASE.stat().st_size < 300_000
    for name, array in inputs().items():
        np.testing.assert_array_equal(case[name], array)


@pytest.mark.slow
def test_the_reference_pipeline_still_draws_the_recorded_case(case: dict[str, Any]) -> None:
    """If this fails and the tests above do not, torch or diffusers has changed; the other way round, we have."""
    again = draw(case["modal"], case["depth"], case["rgb"], case["masks"])
    for stage in STAGES:
        np.testing.assert_allclose(again[f"{stage}_latents"], case[f"{stage}_latents"], rtol=1e-4, atol=1e-4)
        assert np.abs(again[f"{stage}_frames"].astype(int) - case[f"{stage}_frames"]).max() <= 2
    assert (again["masks"] != case["masks"]).mean() < 1e-4
