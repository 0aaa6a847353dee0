"""What `amodal inspect` shows of a SAMEO bundle."""

from __future__ import annotations

from amodal.runtime.families import Bundle
from amodal.runtime.families.sameo.shape import PictureRun


def describe(bundle: Bundle) -> list[tuple[str, str]]:
    """Returns the `config` as rows of a name and a value."""
    config = bundle.config
    (height, width), (rows, columns) = config.low_size, config.grid
    return [
        ("picture", f"resized to {config.height}x{config.width}, {rows}x{columns} patches of {config.patch}"),
        ("masks", f"{height}x{width}, enlarged to the picture's size"),
        ("boxes", f"at most {config.boxes_at_once} at once"),
        ("prompt", f"{config.slots} points; a box takes two"),
        *([("trained on", f"{config.trained_on} alone")] if config.trained_on else []),
    ]


def run_to_plan(tasks: tuple[str, ...], size: tuple[int, int] | None) -> PictureRun:
    """Returns a run of `tasks` with default settings, on a picture of `size` (h, w), None for the bundle's."""
    return PictureRun(tasks, given=size)
