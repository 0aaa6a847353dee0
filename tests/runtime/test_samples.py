"""Several seeds in one call: each sample is the run it would have been alone, and what they share is computed once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import amodal
from amodal import Churn, NoiseStream
from amodal.runtime.errors import InputError
from amodal.runtime.execution.components import Component

OPTIONS: dict[str, Any] = {"steps": 3}


@pytest.fixture(scope="module")
def toy(toy_bundle: Path) -> Iterator[amodal.Model]:
    with amodal.load(toy_bundle, threads=1) as model:
        yield model


@pytest.fixture(scope="module")
def clip() -> dict[str, Any]:
    """Two frames, where the bundle takes three; masks of another size than the network's."""
    modal = np.zeros((2, 50, 90), bool)
    modal[:, 10:30, 20:60] = True
    return {"modal": modal, "depth": np.random.default_rng(0).uniform(0, 9, (2, 30, 40))}


class Count:
    """Stands in for `Component.map` and `__call__`, and counts calls and loads."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.inputs: Counter[str] = Counter()
        inner = Component.map, Component.__call__

        def several(component: Any, batches: Any) -> Any:
            self.inputs[component._kind] += len(batches)
            return inner[0](component, batches)

        def one(component: Any, inputs: Any) -> Any:
            self.inputs[component._kind] += 1
            return inner[1](component, inputs)

        monkeypatch.setattr(Component, "map", several)
        monkeypatch.setattr(Component, "__call__", one)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"guidance": (1.0, 1.0)},
        {"churn": Churn(s_churn=2.0), "cfg_rows": "separate", "decode_chunk": 2},
    ],
    ids=["as by default", "without guidance", "with churn, rows apart"],
)
def test_every_sample_equals_the_run_with_its_seed(
    options: dict[str, Any], toy: amodal.Model, clip: dict[str, Any]
) -> None:
    together = toy.segment(**clip, **OPTIONS, **options, seed=-1, samples=3)
    assert len(together.samples) == 3
    assert together.samples[0] is together
    for seed, sample in zip((-1, 0, 1), together.samples, strict=True):
        alone = toy.segment(**clip, **OPTIONS, **options, seed=seed)
        assert alone.samples == (alone,)
        assert sample.others == () or seed == -1
        for name in ("masks", "masks_full", "frames"):
            np.testing.assert_array_equal(getattr(sample, name), getattr(alone, name))
        np.testing.assert_array_equal(sample.noise.randn((20,)), alone.noise.randn((20,)))
    first, *others = (sample.frames for sample in together.samples)
    assert all((other != first).any() for other in others)


def test_the_second_stage_goes_on_from_the_first_sample(toy: amodal.Model, clip: dict[str, Any]) -> None:
    rgb = np.random.default_rng(1).integers(0, 256, (*clip["modal"].shape, 3), np.uint8)
    drawn = []
    for samples in (1, 2):
        seen = toy.segment(**clip, **OPTIONS, samples=samples)
        drawn.append(toy.complete(rgb, clip["modal"], seen.masks, seed=seen.noise, **OPTIONS).frames)
    np.testing.assert_array_equal(*drawn)


def test_what_does_not_depend_on_noise_is_computed_once(
    toy_bundle: Path, clip: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    with amodal.load(toy_bundle, threads=1, memory="sequential") as model:
        count, load = Count(monkeypatch), model.backend.load
        monkeypatch.setattr(
            model.backend, "load", lambda entry, *rest: (loads.append(entry.kind), load(entry, *rest))[1]
        )
        model.segment(**clip, **OPTIONS, samples=4, cfg_rows="separate")
    assert loads == ["image_encoder", "vae_encoder", "unet_conditioner", "unet", "vae_decoder"]
    assert count.inputs == {
        "image_encoder": 1,
        "unet_conditioner": 1,
        "vae_encoder": 4 * 2 * 3,  # samples, conditions, the bundle's frames
        "unet": 4 * 3 * 2,  # samples, steps, rows
        "vae_decoder": 4,
    }


def test_the_callback_sees_the_steps_of_one_sample_after_the_other(toy: amodal.Model, clip: dict[str, Any]) -> None:
    steps: list[tuple[int, int]] = []
    toy.segment(**clip, **OPTIONS, samples=2, callback=lambda step, sigma, latents: steps.append((step, len(latents))))
    assert steps == [(0, 2), (1, 2), (2, 2)] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, r"0 samples: expected 1 or more"),
        ({"samples": -2}, "-2 samples"),
        ({"samples": 2, "seed": NoiseStream(3)}, "need a whole number as seed"),
        ({"samples": 2, "seed": 2**64 - 1}, "18446744073709551616 is out of range"),
    ],
)
def test_samples_out_of_range_are_refused_before_anything_runs(
    options: dict[str, Any], message: str, toy: amodal.Model, clip: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(toy.session.components, "use", lambda *_: pytest.fail("a component was loaded"))
    with pytest.raises(InputError, match=message):
        toy.segment(**clip, **options)
