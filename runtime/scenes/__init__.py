"""Scenes: seeded videos of moving things that hide one another, with the truth of what is hidden."""

from .scene import Scene, make_scene

__all__ = ["Scene", "make_scene"]
