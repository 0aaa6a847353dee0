"""Seeded videos of moving things that hide each other, with ground truth."""

from .scene import Scene, Things, make_scene, make_things, write_scene

__all__ = ["Scene", "Things", "make_scene", "make_things", "write_scene"]
