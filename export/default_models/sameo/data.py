"""Training pictures: frames of scenes with everything that moves in them, drawn once and kept on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from amodal.runtime.scenes import make_things

from .recipe import FIRST_SEED, NETWORK, Recipe

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

_MOST_THINGS = 8
_VISIBLE, _WHOLE = 12, 24  # fewest pixels of a thing that is learnt
_POINTS = 4


@dataclass(frozen=True)
class Batch:
    """Pictures of one step with prompts for their things.

    Attributes:
        rgb: uint8 [B, H, W, 3].
        points: float32 [B, N, slots, 2], pixels.
        labels: float32 [B, N, slots].
        modal: bool [B, N, H, W].
        amodal: the same.
    """

    rgb: NDArray[np.uint8]
    points: Floats
    labels: Floats
    modal: Bools
    amodal: Bools


class Pictures:
    """The training pictures in `folder`; those not drawn yet are drawn.

    `rgb.npy` is uint8 [N, H, W, 3]; bit k of `things.npy`, uint8 [N, H, W], says where the whole thing k is, the
    farthest first.
    """

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.recipe = recipe
        shape = (recipe.scenes * recipe.frames, NETWORK.height, NETWORK.width)
        files = [folder / "rgb.npy", folder / "things.npy"]
        if not all(file.exists() for file in files):
            _draw(folder, recipe, shape)
        self.rgb = np.load(files[0], mmap_mode="r")
        self.things = np.load(files[1], mmap_mode="r")

    def batch(self, step: int) -> Batch:
        """Returns the batch of a step, the same whenever it is asked for."""
        recipe = self.recipe
        rng = np.random.default_rng([recipe.seed, step])
        found = [self._picture(rng) for _ in range(recipe.pictures)]
        return Batch(*(np.stack(part) for part in zip(*found, strict=True)))

    def _picture(self, rng: np.random.Generator) -> tuple[NDArray[np.uint8], Floats, Floats, Bools, Bools]:
        while True:
            index = int(rng.integers(len(self.rgb)))
            amodal, modal = masks_of(self.things[index])
            seen, whole = (masks.sum(axis=(1, 2)) for masks in (modal, amodal))
            fit = np.flatnonzero((seen >= _VISIBLE) & (whole >= _WHOLE))
            if len(fit):
                break
        hidden = 1 - seen[fit] / whole[fit]
        weight = 1 + self.recipe.hidden_share * (hidden > 0.02)
        chosen = rng.choice(fit, self.recipe.prompts, p=weight / weight.sum())
        flip = -1 if rng.random() < 0.5 else 1
        modal, amodal = modal[chosen][..., ::flip], amodal[chosen][..., ::flip]
        prompts = [self._prompt(one, other, rng) for one, other in zip(modal, amodal, strict=True)]
        points, labels = (np.stack(part).astype(np.float32) for part in zip(*prompts, strict=True))
        return self.rgb[index][:, ::flip], points, labels, modal, amodal

    def _prompt(self, modal: Bools, amodal: Bools, rng: np.random.Generator) -> tuple[Floats, Floats]:
        recipe = self.recipe
        points = np.full((NETWORK.slots, 2), -1, np.float32)
        labels = np.full(NETWORK.slots, -1, np.float32)
        corners = box_of(amodal if rng.random() < recipe.whole_share else modal).reshape(2, 2)
        if rng.random() < recipe.jitter_share:
            corners = corners + recipe.jitter * (corners[1] - corners[0]) * rng.standard_normal((2, 2))
        points[:2], labels[:2] = corners, (2, 3)
        if rng.random() < recipe.point_share:
            y, x = np.nonzero(modal)
            picked = rng.integers(len(x), size=int(rng.integers(1, _POINTS + 1)))
            points[2 : 2 + len(picked)] = np.stack([x[picked], y[picked]], axis=-1) + 0.5
            labels[2 : 2 + len(picked)] = 1
        return points, labels


def masks_of(things: NDArray[np.uint8]) -> tuple[Bools, Bools]:
    """Returns the whole and the visible masks, bool [8, H, W] each, from bits as in `Pictures`."""
    bits = np.arange(_MOST_THINGS, dtype=np.uint8)[:, None, None]
    amodal = (things >> bits & 1).astype(np.bool_)
    return amodal, amodal & (things >> bits == 1)


def box_of(mask: Bools) -> Floats:
    """Returns the box of a mask's pixels, from edge to edge: float32 (x, y, x, y)."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def _draw(folder: Path, recipe: Recipe, shape: tuple[int, int, int]) -> None:
    parts = {"rgb": (np.uint8, (*shape, 3)), "things": (np.uint8, shape)}
    memory = {
        name: np.lib.format.open_memmap(folder / f"{name}.part", "w+", dtype, size)
        for name, (dtype, size) in parts.items()
    }
    for index in track(range(recipe.scenes), "scenes"):
        things = make_things(FIRST_SEED + index, recipe.frames, (NETWORK.height, NETWORK.width))
        amodal = things.amodal[-_MOST_THINGS:]
        bits = np.uint8(1) << np.arange(len(amodal), dtype=np.uint8)
        rows = slice(index * recipe.frames, (index + 1) * recipe.frames)
        memory["rgb"][rows] = things.frames
        memory["things"][rows] = (amodal * bits[:, None, None, None]).sum(axis=0)
    for name in parts:
        memory[name].flush()
        (folder / f"{name}.part").rename(folder / f"{name}.npy")
