"""Draws the outlines of things in every frame of a clip.

An outline is a list of closed polygons, float64 [T, N, 2] (x, y), that may overlap; the thing is their union. In its
own coordinates, a thing is about one unit across and centred on the origin; y points down. `moments` are the times of
the frames in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Outline = list[Floats]
Shape = Callable[[np.random.Generator, Floats], Outline]

_TURN = 2 * np.pi


def ellipse(rng: np.random.Generator, moments: Floats) -> Outline:
    """An ellipse, its axes up to 1:2."""
    return _still(_circle(40) * [0.5, 0.5 * rng.uniform(0.5, 1.0)], moments)


def box(rng: np.random.Generator, moments: Floats) -> Outline:
    """A rectangle, from square to 1:2."""
    return _still(_rectangle(0.45, 0.45 * rng.uniform(0.5, 1.0)), moments)


def polygon(rng: np.random.Generator, moments: Floats) -> Outline:
    """A regular polygon of three to eight corners."""
    return _still(0.52 * _circle(int(rng.integers(3, 9))), moments)


def star(rng: np.random.Generator, moments: Floats) -> Outline:
    """A star of four to six points."""
    points = 2 * int(rng.integers(4, 7))
    radius = np.where(np.arange(points) % 2, rng.uniform(0.25, 0.36), 0.56)
    return _still(radius[:, None] * _circle(points), moments)


def blob(rng: np.random.Generator, moments: Floats) -> Outline:
    """A closed curve of a few harmonics that changes slowly."""
    angle = np.linspace(0, _TURN, 48, endpoint=False)
    radius = np.full((len(moments), 48), 0.45)
    for harmonic in (2, 3, 4):
        strength = rng.uniform(0, 0.13 / harmonic)
        phase = rng.uniform(0, _TURN) + rng.uniform(-1.5, 1.5) * moments[:, None]
        radius = radius + strength * np.cos(harmonic * angle + phase)
    return [radius[:, :, None] * _circle(48)]


def cross(rng: np.random.Generator, moments: Floats) -> Outline:
    """A plus sign, an L or a T."""
    wide, kind = rng.uniform(0.16, 0.24), rng.integers(3)
    upright = _rectangle(wide, 0.5)
    across = upright[:, ::-1]
    if kind == 1:
        across, upright = across + np.array([0, 0.5 - wide]), upright - np.array([0.5 - wide, 0])
    elif kind == 2:
        across = across - np.array([0, 0.5 - wide])
    return _still(upright, moments) + _still(across, moments)


def walker(rng: np.random.Generator, moments: Floats) -> Outline:
    """A figure on two legs, with swinging arms and legs."""
    stride, phase = rng.uniform(0.25, 0.6), rng.uniform(0, _TURN)
    swing = stride * np.sin(_TURN * rng.uniform(0.8, 2.0) * moments + phase)
    thick = rng.uniform(0.09, 0.13)
    hip, shoulder = np.array([0.0, 0.05]), np.array([0.0, -0.24])
    torso = _limb(np.array([0.0, -0.2]), np.zeros_like(moments), 0.26, 1.5 * thick)
    parts = [*_still(_round(0.0, -0.42, 0.115), moments), torso]
    for side in (1, -1):
        parts += _jointed(hip, side * swing, 0.24, 0.22, thick, -0.5 * np.abs(swing))
        parts += _jointed(shoulder, -0.9 * side * swing, 0.17, 0.16, 0.75 * thick, 0.6 + 0 * swing)
    return parts


def walker_on_four(rng: np.random.Generator, moments: Floats) -> Outline:
    """A figure on four legs, with neck, head and tail."""
    phase, rate = rng.uniform(0, _TURN), rng.uniform(0.8, 2.0)
    stride, thick = rng.uniform(0.25, 0.5), rng.uniform(0.07, 0.1)
    body = _circle(32) * [0.4, 0.17] + [0.0, -0.08]
    head = _round(0.48, -0.32, 0.11)
    neck = _limb(np.array([0.3, -0.12]), np.full_like(moments, 2.4), 0.26, 1.3 * thick)
    wag = -1.9 + 0.4 * np.sin(_TURN * 2 * rate * moments)
    tail = _limb(np.array([-0.38, -0.14]), wag, 0.2, 0.6 * thick)
    parts = [*_still(body, moments), *_still(head, moments), neck, tail]
    for leg, x in enumerate((-0.28, -0.22, 0.22, 0.28)):
        swing = stride * np.sin(_TURN * rate * moments + phase + np.pi * (leg in (1, 2)))
        parts += _jointed(np.array([x, 0.0]), swing, 0.2, 0.2, thick, -0.4 * np.abs(swing))
    return parts


def pole(rng: np.random.Generator, moments: Floats) -> Outline:
    """A bar far longer than a frame is high."""
    return _still(_rectangle(rng.uniform(0.4, 0.5), 12.0), moments)


def hedge(rng: np.random.Generator, moments: Floats) -> Outline:
    """Everything below a wavy edge, on which the origin lies."""
    x = np.linspace(-8, 8, 161)
    wave = sum(
        rng.uniform(0, 0.12) / k * np.sin(k * x * rng.uniform(1.5, 3.0) + rng.uniform(0, _TURN)) for k in (1, 2, 3)
    )
    edge = np.stack([x, np.asarray(wave)], -1)
    return _still(np.concatenate([edge, [[8.0, 12.0], [-8.0, 12.0]]]), moments)


SHAPES: tuple[Shape, ...] = (ellipse, box, polygon, star, blob, cross)
FIGURES: tuple[Shape, ...] = (walker, walker_on_four)


def _circle(count: int) -> Floats:
    angle = np.linspace(0, _TURN, count, endpoint=False)
    return np.stack([np.cos(angle), np.sin(angle)], -1)


def _rectangle(x: float, y: float) -> Floats:
    return np.array([[-x, -y], [x, -y], [x, y], [-x, y]])


def _still(points: Floats, moments: Floats) -> Outline:
    return [np.broadcast_to(points, (len(moments), *points.shape))]


def _round(x: float, y: float, radius: float) -> Floats:
    return np.array([x, y]) + radius * _circle(20)


def _limb(root: Floats, angle: Floats, length: float, thick: float) -> Floats:
    """Draws a capsule that starts at `root` ([2] or [T, 2]) and hangs down at angle 0: [T, N, 2]."""
    half = np.linspace(0, np.pi, 7)
    cap = 0.5 * thick * np.stack([np.cos(half), np.sin(half)], -1)
    capsule = np.concatenate([cap + np.array([0, length]), -cap])
    cos, sin = np.cos(angle), np.sin(angle)
    turn = np.stack([np.stack([cos, sin], -1), np.stack([-sin, cos], -1)], -2)
    return np.asarray(np.einsum("nj,tij->tni", capsule, turn) + np.broadcast_to(root, (len(angle), 2))[:, None])


def _jointed(root: Floats, angle: Floats, upper: float, lower: float, thick: float, bend: Floats) -> Outline:
    """Draws two capsules with a joint that bends the lower one."""
    joint = root + upper * np.stack([np.sin(angle), np.cos(angle)], -1)
    return [_limb(root, angle, upper, thick), _limb(joint, angle + bend, lower, 0.9 * thick)]
