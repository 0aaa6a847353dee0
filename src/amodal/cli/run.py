"""`amodal run`: the options and the results are those of the bundle's family."""

from __future__ import annotations

from .families import FamilyCommand

command = FamilyCommand("run")
