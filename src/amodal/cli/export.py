"""`amodal export`: nothing names a family yet, so the options are those of the only one that exports from here."""

from __future__ import annotations

from .families.diffusion_vas.export import command

__all__ = ["command"]
