"""`amodal export`; its options are those of the family."""

from __future__ import annotations

from .families import family_command

command = family_command("export")
