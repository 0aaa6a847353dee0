"""`amodal run`: the options and the results are the family's."""

from __future__ import annotations

from .families import family_command

command = family_command("run")
