"""What `amodal live` writes and prints of each result."""

from __future__ import annotations

import json
from pathlib import Path
from typing import IO, Any

import click
import numpy as np

from amodal.robots.live.loop import LiveResult
from amodal.runtime.files.objects import folder_names
from amodal.runtime.files.results import write_masks_png
from amodal.runtime.pictures.object_ids import format_id
from amodal.viewing.view import Moment, Shown, Views

LINES = "results.jsonl"


class LiveOutput:
    """Writes results as they come. Use it as a context manager.

    Args:
        folder: for masks and results.jsonl; None to write none.
        views: are shown every result.
        prints: whether each line goes to standard output, too.
    """

    def __init__(self, folder: Path | None, views: Views, prints: bool) -> None:
        self._folder, self._views, self._prints = folder, views, prints
        self._ids: list[Any] = []  # in the order in which they came, which their folders' names depend on
        self._begin: float | None = None
        self._lines: IO[str] | None = None

    def __enter__(self) -> LiveOutput:
        if self._folder is not None:
            self._lines = (self._folder / LINES).open("w", encoding="utf-8", buffering=1)
        return self

    def __exit__(self, *error: object) -> None:
        if self._lines is not None:
            self._lines.close()

    @property
    def files(self) -> list[str]:
        """What was written to the folder."""
        return [] if self._folder is None else [*["objects/"] * bool(self._ids), LINES]

    def add(self, found: LiveResult) -> None:
        """Takes a result."""
        line = json.dumps(describe(found))
        if self._lines is not None:
            self._lines.write(line + "\n")
        if self._prints:
            click.echo(line)
        if self._folder is not None:
            self._write_masks(self._folder, found)
        if self._views:
            self._show(found)

    def _write_masks(self, folder: Path, found: LiveResult) -> None:
        self._ids += [one for one in found.result.objects if one not in self._ids]
        names = dict(zip(self._ids, folder_names(self._ids), strict=True))
        for object_id, known in found.result.objects.items():
            place = folder / "objects" / names[object_id] / "amodal_masks"
            write_masks_png(place, known.mask[None], [f"{found.taken.number:08d}.png"])

    def _show(self, found: LiveResult) -> None:
        self._begin = found.taken.stamp if self._begin is None else self._begin
        shown = [
            Shown(format_id(one), found.seen.masks.get(one), known.mask, note=f"{known.status}, {known.age:.2f} s")
            for one, known in found.result.objects.items()
        ]
        depth = None if found.seen.depth is None else np.asarray(found.seen.depth, np.float32)
        figures = {"age (s)": found.age, "window (s)": found.result.seconds, "steps": float(found.result.steps)}
        stamp = found.taken.stamp - self._begin
        self._views.add(Moment(found.taken.number, stamp, found.taken.frame, shown, depth, figures))


def describe(found: LiveResult) -> dict[str, Any]:
    """Returns a result as values of JSON; ages, stamps and seconds in seconds, areas in pixels."""
    result = found.result
    return {
        "frame": found.taken.number,
        "stamp": found.taken.stamp,
        "age": found.age,
        "steps": result.steps,
        "seconds": result.seconds,
        "skipped": result.skipped,
        "reset": result.reset,
        "objects": {
            format_id(one): {
                "status": known.status,
                "age": known.age,
                "hidden_frames": known.hidden,
                "pixels": int(known.mask.sum()),
            }
            for one, known in result.objects.items()
        },
    }
