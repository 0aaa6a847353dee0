"""Measures the scenes that the default model is trained on, for the `domain` in its manifest."""

from __future__ import annotations

from typing import Any

import numpy as np

from amodal.runtime.families.diffusion_vas.config import Domain
from amodal.runtime.families.diffusion_vas.domain import measure_depth, measure_frames, measure_masks
from amodal.runtime.scenes import make_scene

from .recipe import FIRST_SEED, Recipe

_LEFT_OUT = 0.001  # at either end: one scene in thousands, in which nothing is nearer than the object, is no rule
_ENLARGED = 4  # every second scene is drawn that much larger: resized, its edges are softer


def measure_domain(recipe: Recipe) -> Domain:
    """Returns the range of each measure over the training scenes of `segment`, without the outermost thousandths."""
    found: dict[str, list[float]] = {}
    for index in range(recipe.of("segment", "scenes")):
        larger = _ENLARGED if index % 2 else 1
        scene = make_scene(FIRST_SEED + index, recipe.frames, (larger * recipe.height, larger * recipe.width))
        depth = measure_depth(scene.depth, scene.modal, recipe.size)
        measured = measure_frames(scene.frames, recipe.size) | measure_masks(scene.modal, recipe.size) | depth
        for name, value in measured.items():
            found.setdefault(name, []).append(value)
    ranges: dict[str, Any] = {
        name: tuple(float(f"{limit:.3g}") for limit in np.quantile(values, (_LEFT_OUT, 1 - _LEFT_OUT)))
        for name, values in found.items()
    }
    return Domain(about="drawn scenes of shapes that pass behind one another", **ranges)
