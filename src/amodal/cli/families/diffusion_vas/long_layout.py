"""Where the results of long clips and of several objects lie in OUT, and what is said of frames in files beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from amodal.cli.viewing import view_files
from amodal.runtime.files.object_overlay import LANE
from amodal.runtime.files.objects import folder_names
from amodal.runtime.files.results import png_names
from amodal.runtime.files.rows import MaskRows, Rows
from amodal.runtime.files.track_writing import FrameLines
from amodal.runtime.pictures.object_ids import ObjectId, format_id

GIF_FRAMES, SHEET_FRAMES = 100, 5


@dataclass(frozen=True)
class Facts:
    """A run over a clip: what is known before it begins.

    Attributes:
        count: N frames of `size` (h, w).
        objects: the ids of those that are seen somewhere.
        several: whether OUT has a folder for each object.
        names: file names of the frames, None for a video.
        stages: that run.
        at: the bundle's size (H, W).
        fps: that the model is told.
        videos: formats of the overlay.
        cutouts: whether cut-outs are written.
        propagates: whether `complete` tells known pixels.
    """

    count: int
    size: tuple[int, int]
    objects: tuple[ObjectId, ...]
    several: bool
    names: list[str] | None
    stages: tuple[str, ...]
    at: tuple[int, int]
    fps: float
    videos: tuple[str, ...]
    cutouts: bool
    propagates: bool

    @property
    def last_stage(self) -> str:
        """The stage in which pictures for people are drawn, since everything is known."""
        return self.stages[-1]

    @cached_property
    def pngs(self) -> list[str]:
        """Names of the frames' results."""
        return png_names(self.count, self.names)

    @cached_property
    def folders(self) -> dict[ObjectId, str]:
        """The folder of each object in OUT, with a slash at its end; empty for the only one."""
        if not self.several:
            return {self.objects[0]: ""}
        return {o: f"objects/{name}/" for o, name in zip(self.objects, folder_names(self.objects), strict=True)}

    @property
    def labels(self) -> list[str]:
        """The objects as people name them."""
        return [format_id(o) for o in self.objects] if self.several else ["object"]

    @property
    def gif_step(self) -> int:
        """Every which frame is in the GIF."""
        return -(-self.count // GIF_FRAMES)

    @cached_property
    def on_sheet(self) -> set[int]:
        """Frames on the contact sheet."""
        return set(np.linspace(0, self.count - 1, min(SHEET_FRAMES, self.count)).round().astype(int).tolist())


class Notes:
    """What is said of each frame, in files of fixed rows beside OUT; and of which frames, in the state of the run."""

    def __init__(self, work: Path, facts: Facts) -> None:
        objects = len(facts.objects)
        self.masks = MaskRows(work / "masks.bits", objects, facts.at)
        self.order = Rows(work / "order.rows", (objects,), np.int32)
        self.judged = Rows(work / "judged.rows", (objects,), np.uint8)
        self.drawn = Rows(work / "drawn.rows", (objects, 2), np.uint8)  # by segment, by complete
        self.known = Rows(work / "known.rows", (objects,), np.float32)
        self.change = Rows(work / "change.rows", (objects,), np.float32)
        self.lanes = Rows(work / "lanes.rows", (objects, 2, LANE), np.uint8)
        self.lines = FrameLines(work / "frames.jsonl")
        self.depth = work / "depth.f32"  # only if a network computes it, and until all masks are there

    @property
    def files(self) -> list[Path]:
        """All that are there."""
        rows = (self.order, self.judged, self.drawn, self.known, self.change, self.lanes, self.masks, self.lines)
        return [*(one.path for one in rows), *([self.depth] if self.depth.exists() else [])]


def files_of(facts: Facts, options: Mapping[str, Any]) -> list[str]:
    """Returns the names of what OUT has, for result.json."""
    folders = ["amodal_masks/"] * ("segment" in facts.stages) + ["completed/"] * ("complete" in facts.stages)
    folders += ["rgba/", "visible/"] * facts.cutouts
    names = ["objects/"] if facts.several else folders
    pictures = [*(f"overlay.{video}" for video in facts.videos), "sheet.png", "strip.png"] if options["overlay"] else []
    return [*names, "masks.json", *pictures, *view_files(options)]
