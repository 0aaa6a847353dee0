"""`amodal export`: the options are those of the family that --family names."""

from __future__ import annotations

from .families import ExportCommand

command = ExportCommand("export")
