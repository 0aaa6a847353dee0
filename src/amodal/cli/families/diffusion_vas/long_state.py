"""A run over a clip of any length, as its parts share it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from amodal.cli.progress import ClipBars
from amodal.runtime.clips.gate import Gate
from amodal.runtime.families.diffusion_vas.block_settings import BlockRequest
from amodal.runtime.files.clip_source import FileSource
from amodal.runtime.files.unfinished import Unfinished
from amodal.runtime.model import Model

from .long_layout import Facts
from .long_writing import LongWriter
from .results import settings_of


@dataclass(frozen=True)
class Job:
    """A run over a clip of any length.

    Attributes:
        source: what the engine reads.
        warnings: of the clip and its pictures, so far.
    """

    run: Unfinished
    options: Mapping[str, Any]
    model: Model
    bars: ClipBars
    source: FileSource
    empty: tuple[Any, ...]
    facts: Facts
    writer: LongWriter
    warnings: list[str]

    @property
    def request(self) -> BlockRequest:
        """How the blocks are run."""
        options = self.options
        gate = Gate(options["gate_tolerance"]) if options["gate"] == "auto" else None
        return BlockRequest(
            settings_of(options),
            options["seed"],
            options["windows"],
            options["block_frames"],
            gate,
            options["objects_at_once"],
            options["propagate"],
            self.bars.report,
        )
