"""Scenes longer than a window, of two kinds, in alternation: for the measures of windows, streams and the gate."""

from __future__ import annotations

from typing import Literal

from amodal.runtime.scenes import Scene, make_scene

from .scene_runs import FIRST_SEED

Kind = Literal["paced", "slow"]
COURSE = 8  # frames of a scene in training


def long_scene(index: int, size: tuple[int, int] = (64, 128)) -> tuple[Kind, Scene]:
    """Makes a scene that was not seen in training, of 24 to 40 frames.

    Even ones are `paced`: things move as in training, and one thing after the other crosses the object. Odd ones are
    `slow`: the course of a training scene takes the whole clip.
    """
    kind: Kind = "slow" if index % 2 else "paced"
    frames = 24 + (index * 7) % 17
    return kind, make_scene(FIRST_SEED + index, frames, size, pace=COURSE if kind == "paced" else None)
