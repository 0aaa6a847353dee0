"""What `amodal run` leaves in OUT."""

from __future__ import annotations

import math
import platform
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import PIL
from numpy.typing import NDArray

from amodal import __version__
from amodal.runtime.bundle import sha256_of
from amodal.runtime.manifest import MANIFEST_NAME
from amodal.runtime.masks import probability_map
from amodal.runtime.model import Model
from amodal.runtime.overlay import write_contact_sheet, write_overlay
from amodal.runtime.results import write_frames_png, write_grey_png, write_json, write_masks_json, write_masks_png

if TYPE_CHECKING:
    from .job import Clip, Found, RunOptions

MARKER = "result.json"


def write_files(folder: Path, clip: Clip, found: Found, options: RunOptions) -> list[str]:
    """Writes masks, frames and pictures; returns their names."""
    amodal = _whole_masks(clip, found)
    completed = found.completed
    files = ["masks.json"]
    if found.samples:
        write_masks_png(folder / "amodal_masks", amodal, clip.names)
        files.append("amodal_masks/")
    if found.padded:
        write_masks_png(folder / "amodal_masks_padded", found.padded[0], clip.names)
        files.append("amodal_masks_padded/")
    if len(found.samples) > 1:
        for index, masks in enumerate(found.samples):
            place = folder / "samples" / str(options.seed + index)
            write_masks_png(place / "amodal_masks", masks, clip.names)
            if found.padded:
                write_masks_png(place / "amodal_masks_padded", found.padded[index], clip.names)
        shares = np.rint(255 * probability_map(found.samples)).astype(np.uint8)
        write_grey_png(folder / "probability", shares, clip.names)
        files += ["samples/", "probability/"]
    if completed is not None:
        write_frames_png(folder / "completed", completed, clip.names)
        files.append("completed/")
    write_masks_json(folder / "masks.json", clip.modal, amodal, clip.names)
    overlay_fps = options.fps if options.overlay else None
    if overlay_fps is not None:
        write_overlay(folder / "overlay.gif", clip.frames, clip.modal, amodal, completed, fps=overlay_fps)
        write_contact_sheet(folder / "sheet.png", clip.frames, clip.modal, amodal, completed)
        files += ["overlay.gif", "sheet.png"]
    return files


def describe(
    folder: Path,
    files: list[str],
    options: RunOptions,
    model: Model,
    clip: Clip,
    found: Found,
    start: float,
) -> dict[str, Any]:
    """Writes result.json, and returns its content; `start` is when the run began."""
    result = {
        "schema_version": 1,
        "amodal_version": __version__,
        "files": [*files, MARKER],
        "inputs": {
            "frames": options.frames,
            "masks": options.masks,
            "depth": options.depth,
            "amodal": options.amodal,
            "object": options.object_id,
            "count": len(clip.frames),
            "height": clip.frames.shape[1],
            "width": clip.frames.shape[2],
        },
        "settings": {"stages": list(found.outputs), **_settings(options, model)},
        "seconds": {
            "total": time.perf_counter() - start,
            **{stage: {"total": output.seconds, **output.timings} for stage, output in found.outputs.items()},
        },
        "hidden_share": [_hidden(a, m) for a, m in zip(_whole_masks(clip, found), clip.modal, strict=True)],
        **_boxes(clip, found),
        "bundle": _bundle(options.bundle, model),
        "backend": model.backend.describe(),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "opencv": cv2.__version__,
            "platform": platform.platform(),
        },
        "warnings": clip.warnings,
    }
    write_json(folder / MARKER, result)
    return result


def _settings(options: RunOptions, model: Model) -> dict[str, Any]:
    settings = options.sampling
    churn = asdict(settings.pop("churn"))
    churn["s_tmax"] = None if math.isinf(churn["s_tmax"]) else churn["s_tmax"]
    settings["context"] = settings["context"] or model.manifest.context_layout
    settings["decode_chunk"] = settings["decode_chunk"] or model.manifest.decode_chunk
    return {
        "seed": options.seed,
        "samples": options.samples,
        "pad": options.pad,
        **settings,
        "churn": churn,
        "memory": options.memory,
    }


def _bundle(path: Path, model: Model) -> dict[str, Any]:
    manifest = model.manifest
    return {
        "path": str(path),
        "manifest_sha256": sha256_of(model.bundle.path / MANIFEST_NAME),
        "precision": sorted({c.precision for c in manifest.components.values()}),
        "size": list(manifest.size),
        "frames": manifest.frames,
        "context_layout": manifest.context_layout,
        "files": {f.path: f.sha256 for c in manifest.components.values() for f in c.files},
    }


def _boxes(clip: Clip, found: Found) -> dict[str, Any]:
    """With --pad: x, y, width and height of the whole object per frame, in the frame's pixels and beyond them."""
    if found.padding is None or not found.padded:
        return {}
    return {"boxes": found.padding.boxes(found.padded[0], clip.modal).tolist()}


def _whole_masks(clip: Clip, found: Found) -> NDArray[np.bool_]:
    masks = found.samples[0] if found.samples else clip.amodal
    assert masks is not None
    return masks


def _hidden(amodal: NDArray[np.bool_], modal: NDArray[np.bool_]) -> float:
    """Share of the whole object that is not visible."""
    whole = int((amodal | modal).sum())
    return float((amodal & ~modal).sum() / whole) if whole else 0.0
