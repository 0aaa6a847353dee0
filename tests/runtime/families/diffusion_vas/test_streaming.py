"""Streams over the default bundle."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

import amodal
from amodal.runtime.clips.depth_range import Extremes
from amodal.runtime.errors import InputError
from amodal.runtime.families.diffusion_vas.one_window import WindowRun
from amodal.runtime.families.diffusion_vas.settings import Settings
from amodal.runtime.pictures.images import prepare_modal, resize_depth, resize_masks, threshold
from amodal.runtime.scenes import make_scene


@pytest.fixture(scope="module")
def model() -> Iterator[amodal.Model]:
    with amodal.load("default") as loaded:
        yield loaded


def given(scene):
    return (
        (None, {1: modal}, depth, float(i))
        for i, (modal, depth) in enumerate(zip(scene.modal, scene.depth, strict=True))
    )


@pytest.mark.slow
def test_a_single_window_is_drawn_as_by_itself(model: amodal.Model) -> None:
    scene = make_scene(500_003, model.config.frames, (96, 192))
    with model.stream(every=8, lookahead=0, steps=2, gate=None) as stream:
        results = list(stream.over(given(scene)))
    extremes = Extremes()
    maps = resize_depth(scene.depth, model.config.size)
    extremes.add(maps)
    modal = prepare_modal(scene.modal, model.config.size)
    numbers = range(model.config.frames)
    run = WindowRun(model.session, Settings(steps=2))
    pictures = run({1: modal}, extremes.range().normalise(maps), numbers, 2)[1]
    expected = resize_masks(threshold(pictures, modal), (96, 192)) | scene.modal
    np.testing.assert_array_equal(np.stack([r.objects[1].mask for r in results]), expected)
    assert {r.objects[1].status for r in results} == {"fresh"}


@pytest.mark.slow
def test_an_object_is_drawn_the_same_whatever_the_others(model: amodal.Model) -> None:
    scene, other = (make_scene(seed, 10) for seed in (500_003, 500_004))
    frames = list(given(scene))
    with model.stream(steps=2, gate=None) as stream:
        alone = [r.objects[1].mask for r in stream.over(frames)]
    both = [(f, {2: m, **masks}, d, s) for (f, masks, d, s), m in zip(frames, other.modal, strict=True)]
    with model.stream(steps=2, gate=None) as stream:
        together = [r.objects[1].mask for r in stream.over(both)]
    np.testing.assert_array_equal(alone, together)


def test_options_that_the_model_cannot_serve_are_refused(model: amodal.Model) -> None:
    with pytest.raises(InputError, match="every 9 frames"):
        model.stream(every=9)
    with pytest.raises(InputError, match="preset 'slow' is unknown"):
        model.stream(preset="slow")  # type: ignore[typeddict-item]
    with pytest.raises(InputError, match="preset and steps both say"):
        model.stream(preset="exact", steps=3)
    with model.stream() as stream, pytest.raises(InputError, match="no depth component"):
        stream.push(np.zeros((64, 128, 3), np.uint8), {1: np.ones((64, 128), bool)})


def test_presets_name_steps(model: amodal.Model) -> None:
    for options, steps in (
        ({}, (6,)),
        ({"preset": "exact"}, (25,)),
        ({"preset": "auto"}, (25, 10, 6)),
        ({"steps": 3}, (3,)),
    ):
        assert model.stream(**options).options.steps == steps
