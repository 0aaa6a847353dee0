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
from amodal.runtime.files.clip_source import FileSource
from amodal.runtime.files.frames import open_frames
from amodal.runtime.files.listing import join_ranges
from amodal.runtime.files.trimming import Trim
from amodal.runtime.pictures.cropping import FEWEST_PIXELS, Crop, find_shrunk
from amodal.runtime.pictures.padding import Padding

from .results import Outputs


def require_fit(options: Mapping[str, Any], config: Config, stages: list[str]) -> None:
    """Raises InputError if depth is missing.

    For a bundle with a `domain`, which people try on real video first, the message also says what else is unlike.
    """
    bundle = options["bundle"]
    if "segment" not in stages or options["depth"] is not None or config.depth is not None:
        return
    if config.domain is None:
        raise InputError(
            f"bundle {bundle} has no depth component; give depth with --depth DIR, or export the bundle again with "
            "--depth CHECKPOINT."
        )
    unlike = find_unlike(config, _first_frames(options, config.frames))
    expect = f", and expect poor masks because the clip is unlike those: {'; '.join(unlike)}" if unlike else ""
    raise InputError(
        f"bundle {bundle} knows only {config.domain.about}, and cannot run this clip: no depth is given, and the "
        "bundle has no depth component. Either export the authors' checkpoints, which are for real video "
        f"(`amodal export --help`), or give --depth DIR{expect}."
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
    concerns += _find_unlike(config, clip.frames, clip.modal, clip.depth)
    return concerns


def find_unlike_clip(config: Config, source: FileSource) -> list[str]:
    """Says whether the networks do not know a clip, by its first frames; see `find_concerns`."""
    if config.domain is None:
        return []
    numbers = range(min(config.frames, source.count))
    seen = [source.modal(o, numbers) for o in source.objects]
    shown = next((modal for modal in seen if modal.any()), seen[0])
    return _find_unlike(config, source.frames(numbers), shown, source.depth(numbers) if source.has_depth else None)


def _find_unlike(config: Config, frames: Any, modal: Any, depth: Any) -> list[str]:
    if config.domain is None or not (unlike := find_unlike(config, frames, modal, depth)):
        return []
    return [
        f"This bundle knows only {config.domain.about}, and the clip is unlike them: {'; '.join(unlike)}. Expect "
        "poor results; for real video, export the authors' checkpoints (`amodal export --help`)."
    ]


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


def _first_frames(options: Mapping[str, Any], most: int) -> NDArray[np.uint8] | None:
    """Returns up to `most` frames, None where the reader will say what is wrong with them."""
    trim = settings_from(Trim, options)
    frames = open_frames(options["frames"], trim.end)
    chosen = trim.choose(frames.count, frames.fps)
    with suppress(InputError):
        return frames.read(chosen[:most])
    return None
