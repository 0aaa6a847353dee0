"""Seeded videos of moving things that hide each other, with ground truth."""

from .scene import Scene, make_scene, write_scene

__all__ = ["Scene", "make_scene", "write_scene"]
