"""Draws worlds: the motions of a target, of things in front of it and behind it, and of the camera.

Lengths are in frame heights, x to the right and y down from the frame's upper left corner. Nearness is from 0
(farthest) to 1 (nearest). A world has no pixels and can be drawn at any size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from operator import attrgetter

import numpy as np
from numpy.typing import NDArray

from .shapes import FIGURES, SHAPES, Outline, Shape, hedge, pole
from .textures import surface

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Thing:
    """A moving thing with an outline and a painted surface."""

    outline: Outline  # parts [T, N, 2] in its own coordinates, see `shapes`
    surface: NDArray[np.uint8]  # [64, 64, 3], spread over [-0.6, 0.6] of its own coordinates
    pose: Floats  # [T, 2, 3], from its own coordinates to the frame's
    near: float  # nearness of its centre
    slope: tuple[float, float]  # change of nearness per length along (x, y)

    def parts(self) -> Outline:
        """Returns the outline's parts [T, N, 2] in the frame's coordinates."""
        turned, moved = self.pose[:, :, :2], self.pose[:, None, :, 2]
        return [np.einsum("tnj,tij->tni", part, turned) + moved for part in self.outline]


@dataclass(frozen=True)
class World:
    """Contents of a clip."""

    target: Thing
    before: tuple[Thing, ...]  # nearer than the target, farthest first
    behind: tuple[Thing, ...]  # farther than the target, farthest first
    drift: Floats  # [T, 2], motion of the background


def make_world(rng: np.random.Generator, frames: int, aspect: float, pace: int | None = None) -> World:
    """Draws a world for `frames` frames of `aspect` (width to height).

    Args:
        pace: frames of one course of the target, in which something crosses it; it goes on and turns at the frame's
            edges in the frames after that. None if the whole clip is one course.
    """
    courses = 1.0 if pace is None else frames / pace
    moments = np.linspace(0, courses, frames)
    camera = _camera(rng, moments)
    near = rng.uniform(0.35, 0.6)
    size = rng.uniform(0.42, 0.78)
    path = _target_path(rng, moments, aspect, size)
    target = _thing(rng, moments, _any_shape(rng, 0.3), path, size, near)
    before = [_occluder(rng, moments, camera, path, size, near)]
    before += [_occluder(rng, moments, camera, path, size, near, begin=at) for at in range(1, math.ceil(courses))]
    if rng.random() < 0.2:
        before.append(_occluder(rng, moments, camera, path, size, near, scale=0.6))
    if rng.random() < 0.3:
        before.append(_stray(rng, moments, camera, aspect, rng.uniform(near + 0.1, 0.98)))
    behind = [
        _stray(rng, moments, camera, aspect, rng.uniform(0.22, near - 0.08)) for _ in range(int(rng.integers(0, 3)))
    ]
    before, behind = (sorted(things, key=attrgetter("near")) for things in (before, behind))
    return World(target, tuple(before), tuple(behind), -0.35 * camera)


def zoomed_out(world: World, zoom: float, corner: Floats) -> World:
    """Returns a world drawn `zoom` times smaller; `corner` [2] (x, y) is where its former frame begins."""

    def moved(thing: Thing) -> Thing:
        pose = thing.pose / zoom
        pose[:, :, 2] += corner
        return replace(thing, pose=pose, slope=(thing.slope[0] * zoom, thing.slope[1] * zoom))

    before, behind = (tuple(map(moved, things)) for things in (world.before, world.behind))
    return World(moved(world.target), before, behind, world.drift / zoom)


def _camera(rng: np.random.Generator, moments: Floats) -> Floats:
    """Draws the position of the camera, [T, 2]: still, panning, or held by hand."""
    reach = rng.choice([0.0, 0.15, 0.5], p=[0.3, 0.35, 0.35])
    pan = rng.uniform(-reach, reach, 2) * [1, 0.3]
    strength, phases = 0.015 * rng.random(), rng.uniform(0, 6, 2)
    shake = strength * np.stack([np.sin(rng.uniform(4, 12) * moments + phase) for phase in phases], -1)
    return np.asarray(moments[:, None] * pan + shake)


def _target_path(rng: np.random.Generator, moments: Floats, aspect: float, size: float) -> Floats:
    """Draws the path of the target's centre, [T, 2], in the frame; parts of the target may leave it."""
    leaving = rng.random() < 0.3
    margin = 0.08 if leaving else min(0.55 * size, 0.42)
    beside, above = min(margin, 0.42 * aspect), max(margin, 0.3)  # a frame may be narrower than two margins
    low, high = np.array([beside, above]), np.array([aspect - beside, 1 - above])
    if leaving and rng.random() < 0.3:
        low[1], high[1] = margin, 1 - margin
    start = rng.uniform(low, high)
    travel = rng.uniform(-0.9, 0.9, 2) * [1.0, 0.35]
    if leaving:  # towards the nearer side
        travel[0] = abs(travel[0]) * (1 if start[0] > aspect / 2 else -1)
    bend = rng.uniform(-0.25, 0.25, 2) * [1, 0.6]
    bob = rng.uniform(0, 0.03) * np.sin(rng.uniform(5, 14) * moments + rng.uniform(0, 6))
    turning = np.minimum(moments, 1.0)[:, None]  # in the first course
    path = start + travel * moments[:, None] + bend * turning**2
    path[:, 1] += bob
    return np.asarray(np.clip(path, low, high) * 0.35 + 0.65 * _reflected(path, low, high))


def _reflected(path: Floats, low: Floats, high: Floats) -> Floats:
    """Reflects a path at the edges."""
    span = np.maximum(high - low, 1e-6)
    folded = np.mod(path - low, 2 * span)
    return np.asarray(low + np.where(folded > span, 2 * span - folded, folded))


def _any_shape(rng: np.random.Generator, figures: float) -> Shape:
    return FIGURES[rng.integers(len(FIGURES))] if rng.random() < figures else SHAPES[rng.integers(len(SHAPES))]


def _thing(
    rng: np.random.Generator,
    moments: Floats,
    shape: Shape,
    path: Floats,
    size: float | tuple[float, float],
    near: float,
    angle: Floats | None = None,
) -> Thing:
    """Draws a thing on a path; it turns and deforms unless an angle is given."""
    wide, high = size if isinstance(size, tuple) else (size, size)
    upright = shape in FIGURES
    if angle is None:
        turn = rng.uniform(-0.25, 0.25) if upright else rng.uniform(-1.6, 1.6)
        first = rng.uniform(-0.12, 0.12) if upright else rng.uniform(0, 2 * np.pi)
        angle = first + turn * moments
        pulse = rng.uniform(0, 0.1) * np.sin(rng.uniform(2, 7) * moments + rng.uniform(0, 6))
    else:
        pulse = np.zeros_like(moments)
    mirror = rng.choice([-1.0, 1.0])
    cos, sin = np.cos(angle), np.sin(angle)
    x, y = mirror * wide * (1 + pulse), high * (1 - pulse)
    pose = np.stack([np.stack([x * cos, -y * sin, path[:, 0]], -1), np.stack([x * sin, y * cos, path[:, 1]], -1)], -2)
    slope = tuple(rng.uniform(-0.06, 0.06, 2))
    return Thing(shape(rng, moments), surface(rng), pose, near, (float(slope[0]), float(slope[1])))


def _occluder(
    rng: np.random.Generator,
    moments: Floats,
    camera: Floats,
    target: Floats,
    size: float,
    target_near: float,
    scale: float = 1.0,
    begin: float = 0.0,
) -> Thing:
    """Draws a nearer thing that crosses the target in the course from `begin` on: a pole, a hedge, or another thing."""
    near = rng.uniform(target_near + 0.1, 0.98)
    when = begin + rng.uniform(0.05, 0.95)
    meeting = np.array([np.interp(when, moments, target[:, i]) for i in range(2)])
    shift = camera * near
    shift = shift - np.array([np.interp(when, moments, shift[:, i]) for i in range(2)])
    kind = rng.random()
    if kind < 0.33:
        wide = size * scale * rng.uniform(0.35, 1.85)
        passing = np.array([rng.uniform(0.6, 1.8) * rng.choice([-1.0, 1.0]) * (rng.random() < 0.7), 0.0])
        path = meeting - shift + rng.normal(0, 0.1, 2) * size + passing * (moments - when)[:, None]
        tilt = np.full(len(moments), rng.normal(0, 0.25) if rng.random() < 0.85 else np.pi / 2)
        return _thing(rng, moments, pole, path, (wide, 1.0), near, tilt)
    if kind < 0.43:
        upwards = rng.random() < 0.15
        offset = size * rng.uniform(-0.05, 0.4) * (-1 if upwards else 1)
        angle = np.full(len(moments), np.pi if upwards else 0.0)
        return _thing(rng, moments, hedge, meeting - shift + [0, offset], 1.0, near, angle)
    grown = size * scale * rng.uniform(0.8, 2.2)
    speed = rng.uniform(0.6, 2.0) * rng.choice([-1.0, 1.0]) * np.array([1.0, rng.uniform(-0.4, 0.4)])
    path = meeting + rng.normal(0, 0.18, 2) * size + speed * (moments - when)[:, None] - shift
    return _thing(rng, moments, _any_shape(rng, 0.2), path, grown, near)


def _stray(rng: np.random.Generator, moments: Floats, camera: Floats, aspect: float, near: float) -> Thing:
    """Draws a distractor anywhere in the frame."""
    start = rng.uniform([0, 0.2], [aspect, 0.9])
    path = start + rng.uniform(-0.7, 0.7, 2) * [1, 0.3] * moments[:, None] - camera * near
    return _thing(rng, moments, _any_shape(rng, 0.3), path, rng.uniform(0.25, 0.6), near)
