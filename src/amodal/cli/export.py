"""`amodal export`: which checkpoints, and how they are written, is the family's."""

from __future__ import annotations

from .families import family_command

command = family_command("export")
