"""Training clips: scenes prepared by the runtime's own functions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.pictures import images
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
        """Where the object is hidden, bool [T, 1, H, W]."""
        return np.asarray((self.amodal[:, :1] > 0) & (self.modal[:, :1] <= 0))

    def conditions(self, stage: str) -> tuple[Floats, Floats]:
        """Returns the stage's two conditions; the image encoder sees the first."""
        return (self.modal, self.depth) if stage == "segment" else (self.visible, self.amodal)

    def target(self, stage: str) -> Floats:
        """Returns the stage's target."""
        return self.amodal if stage == "segment" else self.whole


def pictures(index: int, recipe: Recipe) -> Pictures:
    """Returns clip number `index` of the training set.

    Every other clip's inputs are resized from frames of twice the size, as a user's are, so that their edges are grey.
    """
    seed = FIRST_SEED + index
    scene = make_scene(seed, recipe.frames, recipe.size)
    height, width = recipe.size
    source = make_scene(seed, recipe.frames, (2 * height, 2 * width)) if index % 2 else scene
    modal = images.prepare_modal(source.modal, recipe.size)
    rgb = images.prepare_rgb(source.frames, recipe.size)
    depth = images.prepare_depth(source.depth, recipe.size)
    amodal = np.where(scene.amodal, np.float32(1), np.float32(-1))
    whole = images.to_signed(scene.whole).transpose(0, 3, 1, 2)
    visible = images.visible_rgb(rgb, modal)
    return Pictures(_three(modal), _three(depth), _three(amodal), visible, np.ascontiguousarray(whole), rgb)


def augmented(frames: Floats, strength: float, rng: np.random.Generator) -> Floats:
    """Prepares a condition for the VAE as the pipeline does: the reference's rescaling, then noise."""
    noise = rng.standard_normal(frames.shape, dtype=np.float32)
    return np.asarray(images.rescale_unsigned(frames) + np.float32(strength) * noise, np.float32)


def _three(maps: Floats) -> Floats:
    return np.repeat(maps[:, None], 3, axis=1)
