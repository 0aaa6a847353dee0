"""Fits a clip to a bundle: says at once what it lacks, crops around a small object, and warns of what may go wrong."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.cli.console import settings_from
from amodal.runtime.errors import InputError
from amodal.runtime.families.diffusion_vas.config import Config
from amodal.runtime.families.diffusion_vas.domain import find_unlike
from amodal.runtime.files.clip import Clip
from amodal.runtime.files.frames import open_frames
from amodal.runtime.files.listing import join_ranges
from amodal.runtime.files.trimming import Trim
from amodal.runtime.pictures.cropping import FEWEST_PIXELS, Crop, find_shrunk
from amodal.runtime.pictures.padding import Padding

from .results import Outputs


def require_fit(options: Mapping[str, Any], config: Config, stages: list[str]) -> None:
    """Raises InputError if depth is missing.

    For a bundle with a `domain`, which people try on real video first, the one message also says what else is missing
    or unlike, and is raised for too many frames as well.
    """
    bundle = options["bundle"]
    no_depth = "segment" in stages and options["depth"] is None and config.depth is None
    if config.domain is None:
        if no_depth:
            raise InputError(
                f"bundle {bundle} has no depth component; give depth with --depth DIR, or export the bundle again "
                "with --depth CHECKPOINT."
            )
        return
    frames, count = _first_frames(options, config.frames)
    too_many = count > config.frames
    if not (no_depth or too_many):
        return
    lacks = ["no depth is given, and the bundle has no depth component"] if no_depth else []
    if too_many:
        lacks.append(f"{options['frames']} holds {count} frames, more than {config.frames}")
    unlike = find_unlike(config, frames)
    ways = ["--depth DIR"] * no_depth + [f"at most {config.frames} frames"] * too_many
    expect = f", and expect poor masks because the clip is unlike those: {'; '.join(unlike)}" if unlike else ""
    raise InputError(
        f"bundle {bundle} knows only {config.domain.about}, and cannot run this clip: {'; '.join(lacks)}. Either "
        "export the authors' checkpoints, which are for real video (`amodal export --help`), or "
        f"give {' and '.join(ways)}{expect}."
    )


def choose_crop(options: Mapping[str, Any], clip: Clip) -> Crop | None:
    """Returns the window that --crop asks for; None for the whole frame."""
    wanted = options["crop"]
    if wanted == "off":
        return None
    seen = clip.modal if clip.amodal is None else clip.modal | clip.amodal
    return Crop.auto(seen) if wanted == "auto" else Crop.around(seen, wanted)


def cut_clip(clip: Clip, crop: Crop) -> Clip:
    """Returns the window of a clip."""
    return replace(
        clip,
        frames=crop.cut(clip.frames),
        modal=crop.cut(clip.modal),
        depth=None if clip.depth is None else crop.cut_depth(clip.depth),
        amodal=None if clip.amodal is None else crop.cut(clip.amodal),
    )


def find_concerns(clip: Clip, config: Config, crop: Crop | None, padding: Padding | None) -> list[str]:
    """Says what may spoil the results: an object that becomes too small, or a clip that the networks do not know.

    Args:
        clip: with a crop, the window's; not yet padded.

    Raises:
        InputError: nothing of the object is left at the networks' size.
    """
    concerns = []
    size = f"{config.height}x{config.width}"
    if shrunk := find_shrunk(clip.modal if padding is None else padding.pad(clip.modal, False), config.size):
        helps = crop is None and padding is None and Crop.auto(clip.modal) is not None
        advice = '; `crop="auto"` runs on a window around it' if helps else ""
        concerns.append(
            f"Fewer than {FEWEST_PIXELS} visible pixels of the object are left at the networks' size ({size}) in frame "
            f"{join_ranges(shrunk)}{advice}."
        )
    if config.domain is not None and (unlike := find_unlike(config, clip.frames, clip.modal, clip.depth)):
        concerns.append(
            f"This bundle knows only {config.domain.about}, and the clip is unlike them: {'; '.join(unlike)}. Expect "
            "poor results; for real video, export the authors' checkpoints (`amodal export --help`)."
        )
    return concerns


def paste(outputs: Outputs, crop: Crop) -> tuple[Outputs, list[str]]:
    """Returns the outputs of a window in the frame, and a warning if the object may continue outside the window."""
    segmentation, completion, concerns = outputs.segmentation, outputs.completion, []
    if segmentation is not None:
        if reached := crop.cut_off(segmentation.masks_full):
            concerns.append(
                f"The whole object reaches the edge of the cropped window in frame {join_ranges(reached)} and may "
                "continue outside; try `crop` with a larger number."
            )
        first, *others = (replace(one, masks_full=crop.paste(one.masks_full, False)) for one in segmentation.samples)
        segmentation = replace(first, others=tuple(others))
    if completion is not None:  # the networks draw the object on white
        completion = replace(completion, frames_full=crop.paste(completion.frames_full, 255))
    return replace(outputs, segmentation=segmentation, completion=completion, crop=crop), concerns


def _first_frames(options: Mapping[str, Any], most: int) -> tuple[NDArray[np.uint8] | None, int]:
    """Returns up to `most` frames, None where the reader will say what is wrong with them, and how many there are."""
    trim = settings_from(Trim, options)
    frames = open_frames(options["frames"], trim.end)
    chosen = trim.choose(frames.count, frames.fps)
    with suppress(InputError):
        return frames.read(chosen[:most]), len(chosen)
    return None, len(chosen)
