"""Paints the surfaces of things and the backgrounds."""

from __future__ import annotations

import colorsys
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

SIDE = 64  # pixels of a thing's surface along each side


def surface(rng: np.random.Generator) -> Bytes:
    """Paints a surface, uint8 [SIDE, SIDE, 3]: gradients, stripes, halves, dots, rings or clouds in a few colours."""
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32) / SIDE - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    across = y * np.cos(angle) - x * np.sin(angle)
    kind = rng.choice(7, p=[0.22, 0.16, 0.14, 0.12, 0.12, 0.12, 0.12])
    rate = rng.uniform(1.5, 4.0)
    patterns: list[Callable[[], Floats]] = [
        lambda: _soft(along, 2.0),
        lambda: _soft(np.sin(2 * np.pi * rate * along + angle), 1.5),
        lambda: (along > rng.uniform(-0.15, 0.15)).astype(np.float32),
        lambda: _soft(np.sin(2 * np.pi * rate * x) * np.sin(2 * np.pi * rate * y) - 0.2, 4.0),
        lambda: _soft(np.sin(2 * np.pi * rate * np.hypot(x, y) + angle), 1.5),
        lambda: ((along > 0) ^ (across > 0)).astype(np.float32),
        lambda: _clouds(rng, (SIDE, SIDE), 5),
    ]
    share = patterns[kind]()
    first, second, third = colour(rng), colour(rng), colour(rng)
    picture = first + (second - first) * share[..., None]
    if rng.random() < 0.35:  # a band of a third colour, such as clothes or a horizon
        band = y > rng.uniform(-0.1, 0.25)
        picture = np.where(band[..., None], third, picture)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def scenery(rng: np.random.Generator, size: tuple[int, int]) -> Bytes:
    """Paints a background, uint8 [h, w, 3]: clouds of several scales, sometimes a horizon or stripes."""
    height, width = size
    base, other, far = colour(rng, 0.5), colour(rng, 0.5), colour(rng, 0.4)
    share = 0.6 * _clouds(rng, size, 4) + 0.3 * _clouds(rng, size, 12) + 0.1 * _clouds(rng, size, 40)
    picture = base + (other - base) * share[..., None]
    y, x = np.mgrid[:height, :width].astype(np.float32) / height
    kind = rng.random()
    if kind < 0.4:
        horizon = _soft(y - rng.uniform(0.35, 0.65), 40.0)
        picture = far + (picture - far) * horizon[..., None]
    elif kind < 0.6:
        angle = rng.uniform(0, np.pi)
        stripes = _soft(np.sin(rng.uniform(15, 45) * (x * np.cos(angle) + y * np.sin(angle))), 2.0)
        picture = picture + 0.3 * (far - picture) * stripes[..., None]
    return np.asarray(np.clip(np.rint(picture), 0, 255), np.uint8)


def colour(rng: np.random.Generator, saturation: float = 0.9) -> Floats:
    """Draws a colour that is neither black nor white: float32 [3] in [0, 255]."""
    values = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.1, saturation), rng.uniform(0.25, 0.95))
    return np.asarray(values, np.float32) * 255


def _soft(value: Floats, slope: float) -> Floats:
    return np.asarray(np.clip(0.5 + 0.5 * slope * value, 0, 1), np.float32)


def _clouds(rng: np.random.Generator, size: tuple[int, int], cells: int) -> Floats:
    height, width = size
    grid = rng.random((cells, max(2, cells * width // height)), dtype=np.float32)
    return np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), np.float32).clip(0, 1)
