"""What `amodal run` writes beside result.json: tried before the networks run, and written after that."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.files.clip import Clip
from amodal.runtime.files.overlay import write_contact_sheet, write_overlay
from amodal.runtime.files.results import cut_out, png_names, write_frames_png, write_masks_json, write_masks_png
from amodal.runtime.files.trial import require_space, try_names
from amodal.runtime.files.video_writing import require_video_encoder

from .results import Outputs, seeds_of, whole_masks

# Bytes per pixel that PNGs take at most, but for pictures of noise.
_MASK, _SHARES, _RGB = 0.1, 0.5, 3.0
OVERLAY_BYTES, SHEET_BYTES = 250_000, 2_000_000  # bytes of a displayed frame, and of the sheet and the documents


class Pictures(NamedTuple):
    """PNGs in a folder, one per frame.

    Attributes:
        folder: below OUT; of several folders, `result.json` names the first part.
        bytes_per_pixel: that they may take.
        draw: gives [T, H, W, ...] from the outputs, with the padding of --pad.
        padded: whether the padding's part is worth a folder of its own, FOLDER_padded.
    """

    folder: str
    bytes_per_pixel: float
    draw: Callable[[Clip, Outputs], NDArray[Any]]
    padded: bool = True


def products(stages: Sequence[str], options: Mapping[str, Any]) -> list[Pictures]:
    """Returns the pictures that a run of `stages` writes, in their order in result.json."""
    made = []
    if "segment" in stages:
        made.append(Pictures("amodal_masks", _MASK, partial(_sample, 0)))
        if options["samples"] > 1:
            seeds = enumerate(seeds_of(options))
            made += [Pictures(f"samples/{seed}/amodal_masks", _MASK, partial(_sample, index)) for index, seed in seeds]
            made.append(Pictures("probability", _SHARES, _shares))
    if "complete" in stages:
        made.append(Pictures("completed", _RGB, lambda _, outputs: _completed(outputs)))
        if options["cutouts"]:
            made.append(Pictures("rgba", _RGB, _whole_object))
            made.append(Pictures("visible", _RGB, lambda clip, _: cut_out(clip.frames, clip.modal), padded=False))
    return made


def bytes_per_pixel(stages: Sequence[str], cutouts: bool) -> float:
    """Returns what the PNGs of an object take at most for each pixel of a frame."""
    return ("segment" in stages) * _MASK + ("complete" in stages) * _RGB * (3 if cutouts else 1)


def try_writing(folder: Path, clip: Clip, stages: Sequence[str], options: Mapping[str, Any]) -> None:
    """Tries what could fail when the results of a run are written into `folder`, before it is run.

    Raises:
        InputError: frames whose names no result can have.
        OutputError: there is not enough room.
        MissingDependencyError: the video's encoder is missing.
    """
    if options["overlay"] and options["video"] != "gif":
        require_video_encoder()
    try_names(folder, png_names(len(clip.frames), clip.names))
    pixels = clip.modal.size
    beyond = 2.25 if options["pad"] else 0
    per_pixel = sum(made.bytes_per_pixel * (1 + beyond * made.padded) for made in products(stages, options))
    videos = 0 if not options["overlay"] else 2 if options["video"] == "both" else 1
    require_space(folder, round(pixels * per_pixel + videos * OVERLAY_BYTES * len(clip.frames) + SHEET_BYTES))


def write_files(
    folder: Path, clip: Clip, outputs: Outputs, stages: Sequence[str], options: Mapping[str, Any]
) -> list[str]:
    """Writes masks, frames and pictures; returns their names."""
    files: list[str] = []
    for made in products(stages, options):
        files += _write(folder, made, clip, outputs)
    write_masks_json(folder / "masks.json", clip.modal, outputs.in_frame(whole_masks(clip, outputs)), clip.names)
    files.append("masks.json")
    if options["overlay"]:
        files += _write_overlay(folder, clip, outputs, options)
    return list(dict.fromkeys(files))


def _write(folder: Path, made: Pictures, clip: Clip, outputs: Outputs) -> list[str]:
    """Writes the frame's part to FOLDER and, with --pad, everything to FOLDER_padded; returns the names to list."""
    pictures = made.draw(clip, outputs)
    write = write_masks_png if pictures.dtype == np.bool_ else write_frames_png
    parts = {made.folder: outputs.in_frame(pictures) if made.padded else pictures}
    if outputs.padding is not None and made.padded:
        parts[f"{made.folder}_padded"] = pictures
    for name, part in parts.items():
        write(folder / name, part, clip.names)
    return [f"{name.partition('/')[0]}/" for name in parts]


def _write_overlay(folder: Path, clip: Clip, outputs: Outputs, options: Mapping[str, Any]) -> list[str]:
    """Writes the overlay in the formats asked for, and the contact sheet; returns their names."""
    frames, modal = clip.frames, clip.modal
    if outputs.padding is not None:
        frames, modal = outputs.padding.pad(frames, 255), outputs.padding.pad(modal, False)
    pictures = (frames, modal, whole_masks(clip, outputs), _completed(outputs) if outputs.completion else None)
    suffixes = ("gif", "mp4") if options["video"] == "both" else (options["video"],)
    for suffix in suffixes:
        write_overlay(folder / f"overlay.{suffix}", *pictures, fps=options["fps"])
    write_contact_sheet(folder / "sheet.png", *pictures)
    return [*(f"overlay.{suffix}" for suffix in suffixes), "sheet.png"]


def _sample(index: int, _: Clip, outputs: Outputs) -> NDArray[np.bool_]:
    return outputs.masks[index]


def _shares(_: Clip, outputs: Outputs) -> NDArray[np.uint8]:
    """Share of the samples that cover each pixel, 0 to 255."""
    return np.rint(255 * np.mean(outputs.masks, axis=0, dtype=np.float32)).astype(np.uint8)


def _completed(outputs: Outputs) -> NDArray[np.uint8]:
    assert outputs.completion is not None
    return outputs.completion.frames_full


def _whole_object(clip: Clip, outputs: Outputs) -> NDArray[np.uint8]:
    return cut_out(_completed(outputs), whole_masks(clip, outputs))
