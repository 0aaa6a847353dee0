"""Scenes: seeded videos of moving things that hide each other, with ground truth."""

from .files import write_scene
from .scene import Scene, make_scene

__all__ = ["Scene", "make_scene", "write_scene"]
