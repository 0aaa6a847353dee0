"""Scenes as the networks see them, prepared by the runtime's own functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.pictures.images import (
    prepare_depth,
    prepare_modal,
    prepare_rgb,
    rescale_unsigned,
    to_signed,
    visible_rgb,
)
from amodal.runtime.scenes import make_scene

from .recipe import FIRST_SEED, Recipe

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Pictures:
    """One clip's inputs and targets, each float32 [T, 3, H, W] in [-1, 1].

    Attributes:
        modal, depth: conditions of `segment`; amodal: its target.
        visible, amodal: conditions of `complete`; whole: its target.
        rgb: the frames, which only the VAE learns from.
    """

    modal: Floats
    depth: Floats
    amodal: Floats
    visible: Floats
    whole: Floats
    rgb: Floats

    @property
    def hidden(self) -> NDArray[np.bool_]:
        """What the object covers unseen, bool [T, 1, H, W]."""
        return np.asarray((self.amodal[:, :1] > 0) & (self.modal[:, :1] <= 0))

    def conditions(self, stage: str) -> tuple[Floats, Floats]:
        """The stage's two conditions, the first of which the image encoder sees."""
        return (self.modal, self.depth) if stage == "segment" else (self.visible, self.amodal)

    def target(self, stage: str) -> Floats:
        """What the stage draws."""
        return self.amodal if stage == "segment" else self.whole


def pictures(index: int, recipe: Recipe) -> Pictures:
    """Clip number `index` of the training set.

    Every other clip's inputs come from frames of twice the size, as a user's do, so that their edges are grey.
    """
    seed = FIRST_SEED + index
    scene = make_scene(seed, recipe.frames, recipe.size)
    height, width = recipe.size
    source = make_scene(seed, recipe.frames, (2 * height, 2 * width)) if index % 2 else scene
    modal = prepare_modal(source.modal, recipe.size)
    rgb = prepare_rgb(source.frames, recipe.size)
    depth = prepare_depth(source.depth, recipe.size)
    amodal = np.where(scene.amodal, np.float32(1), np.float32(-1))
    whole = to_signed(scene.whole).transpose(0, 3, 1, 2)
    visible = visible_rgb(rgb, modal)
    return Pictures(_three(modal), _three(depth), _three(amodal), visible, np.ascontiguousarray(whole), rgb)


def augmented(frames: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """A condition as the pipeline hands it to the VAE: the reference's rescaling, then noise."""
    noise = rng.standard_normal(frames.shape, dtype=np.float32)
    return np.asarray(rescale_unsigned(frames) + np.float32(strength) * noise, np.float32)


def _three(maps: Floats) -> Floats:
    return np.repeat(maps[:, None], 3, axis=1)
