"""`amodal run`; its options and results are those of the bundle's family."""

from __future__ import annotations

from .families import family_command

command = family_command("run")
