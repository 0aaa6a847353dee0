"""Hands the results of `amodal run` for Diffusion-VAS to views, once they are written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amodal.cli.viewing import views_of
from amodal.runtime.files.clip import Clip
from amodal.runtime.pictures.images import resize_masks
from amodal.viewing.view import Moment, Shown

from .long_state import Job
from .results import Outputs, whole_masks


def show_clip(folder: Path, clip: Clip, outputs: Outputs, options: Mapping[str, Any]) -> list[str]:
    """Shows a short clip, in the frame; returns the names of the files.

    What views leave out becomes a warning of the clip. Stamps are those of the video, else of the rate that the model
    was told.
    """
    with views_of(options, folder, options["frames"]) as views:
        if views:
            whole = outputs.in_frame(whole_masks(clip, outputs))
            completed = outputs.in_frame(outputs.completion.frames_full) if outputs.completion else None
            figures = {f"{stage} (s)": output.seconds for stage, output in outputs.stages.items()}
            for t, frame in enumerate(clip.frames):
                drawn = None if completed is None else completed[t]
                depth = None if clip.depth is None else clip.depth[t]
                shown = Shown("object", clip.modal[t], whole[t], drawn)
                views.add(Moment(t, t / (clip.fps or options["fps"]), frame, [shown], depth, figures))
    clip.warnings.extend(views.notes)
    return views.names


def show_blocks(job: Job) -> list[str]:
    """Shows a clip of any length from what was written of it; returns what views leave out."""
    with views_of(job.options, job.run.folder, job.options["frames"]) as views:
        if views:
            for moment in _moments(job):
                views.add(moment)
    return views.notes


def _moments(job: Job) -> Iterator[Moment]:
    facts, source, fps = job.facts, job.source.again(), job.source.fps or job.facts.fps
    for t in range(facts.count):
        here = range(t, t + 1)
        shown = [
            Shown(label, source.modal(object_id, here)[0], _whole(job, index, here), _completed(job, object_id, t))
            for index, (object_id, label) in enumerate(zip(facts.objects, facts.labels, strict=True))
        ]
        depth = np.asarray(source.depth(here)[0], np.float32) if source.has_depth else None
        yield Moment(t, t / fps, source.frames(here)[0], shown, depth)


def _whole(job: Job, index: int, here: range) -> NDArray[np.bool_]:
    """Returns the whole mask of an object in a frame, bool [h, w]."""
    if job.writer.amodal is not None:
        return np.asarray(job.writer.amodal(job.facts.objects[index], here)[0], np.bool_)
    kept = job.writer.notes.masks.read(here.start, here.stop)
    return np.asarray(resize_masks(kept[:, index], job.facts.size)[0], np.bool_)


def _completed(job: Job, object_id: Any, t: int) -> NDArray[np.uint8] | None:
    """Reads the RGB of an object in a frame, uint8 [h, w, 3], from OUT."""
    if "complete" not in job.facts.stages:
        return None
    with Image.open(job.run.folder / job.facts.folders[object_id] / "completed" / job.facts.pngs[t]) as picture:
        return np.asarray(picture.convert("RGB"))
