"""What `amodal run` leaves in OUT."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL
from numpy.typing import NDArray

from amodal import __version__
from amodal.runtime.bundle.manifest import MANIFEST_NAME
from amodal.runtime.bundle.reading import sha256_of
from amodal.runtime.files.overlay import write_contact_sheet, write_overlay
from amodal.runtime.files.results import write_frames_png, write_json, write_masks_json, write_masks_png
from amodal.runtime.model import Model
from amodal.runtime.pictures.images import resize_masks

from .run_data import Clip, Found, RunOptions

MARKER = "result.json"


def write_files(folder: Path, clip: Clip, found: Found, options: RunOptions) -> list[str]:
    """Writes masks, frames and pictures; returns their names."""
    files: list[str] = []
    amodal, completed = _whole_masks(clip, found), found.whole.frames_full if found.whole else None
    if found.masks:
        files += _write(write_masks_png, folder / "amodal_masks", found.masks[0], clip, found)
    if len(found.masks) > 1:
        for seed, masks in zip(options.seeds, found.masks, strict=True):
            _write(write_masks_png, folder / "samples" / str(seed) / "amodal_masks", masks, clip, found)
        shares = np.rint(255 * np.mean(found.masks, axis=0, dtype=np.float32)).astype(np.uint8)
        files += ["samples/", *_write(write_frames_png, folder / "probability", shares, clip, found)]
    if completed is not None:
        files += _write(write_frames_png, folder / "completed", completed, clip, found)
    write_masks_json(folder / "masks.json", clip.modal, found.in_frame(amodal), clip.names)
    files.append("masks.json")
    if options.overlay:
        frames, modal = clip.frames, clip.modal
        if found.padding is not None:
            frames, modal = found.padding.pad(frames, 255), found.padding.pad(modal, False)
        write_overlay(folder / "overlay.gif", frames, modal, amodal, completed, fps=options.settings.fps)
        write_contact_sheet(folder / "sheet.png", frames, modal, amodal, completed)
        files += ["overlay.gif", "sheet.png"]
    return files


def _write(write: Callable[..., Any], place: Path, pictures: NDArray[Any], clip: Clip, found: Found) -> list[str]:
    """Writes what lies in the frame to PLACE and, with --pad, everything to PLACE_padded; returns their names."""
    write(place, found.in_frame(pictures), clip.names)
    if found.padding is None:
        return [f"{place.name}/"]
    write(place.with_name(f"{place.name}_padded"), pictures, clip.names)
    return [f"{place.name}/", f"{place.name}_padded/"]


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
        "settings": {"stages": list(found.outputs), **_settings(options, model), **_propagation(found)},
        "seconds": {
            "total": time.perf_counter() - start,
            **{stage: {"total": output.seconds, **output.timings} for stage, output in found.outputs.items()},
        },
        "hidden_share": [
            _hidden(a, m) for a, m in zip(found.in_frame(_whole_masks(clip, found)), clip.modal, strict=True)
        ],
        **_known(clip, found),
        **_beyond(clip, found),
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
    settings = asdict(options.settings)
    churn = settings.pop("churn")
    churn["s_tmax"] = None if math.isinf(churn["s_tmax"]) else churn["s_tmax"]
    settings["context"] = settings["context"] or model.config.context_layout
    settings["decode_chunk"] = settings["decode_chunk"] or model.config.decode_chunk
    return {
        "seed": options.seed,
        "seeds": options.seeds,
        "pad": options.pad,
        **settings,
        "churn": churn,
        "memory": model.memory,
        **({"memory_plan": model.plan.as_json()} if model.plan else {}),
    }


def _bundle(path: str, model: Model) -> dict[str, Any]:
    manifest = model.manifest
    return {
        "path": str(path),
        "manifest_sha256": sha256_of(model.bundle.path / MANIFEST_NAME),
        "precision": sorted({c.precision for c in manifest.components.values()}),
        "size": list(model.config.size),
        "frames": model.config.frames,
        "context_layout": model.config.context_layout,
        "files": {f.path: f.sha256 for c in manifest.components.values() for f in c.files},
    }


def _beyond(clip: Clip, found: Found) -> dict[str, Any]:
    """With --pad: the padding, and x, y, width and height of the whole object in the frame's pixels and beyond them."""
    if found.padding is None:
        return {}
    boxes = found.padding.boxes(found.masks[0], clip.modal).astype(int)
    return {"padding": {"rows": found.padding.rows, "columns": found.padding.columns}, "boxes": boxes.tolist()}


def _propagation(found: Found) -> dict[str, bool]:
    """Whether `complete` propagated, if it ran."""
    return {} if found.whole is None else {"propagate": found.whole.known is not None}


def _known(clip: Clip, found: Found) -> dict[str, Any]:
    """With propagation: share of the object's pixels, at the bundle's size, that was not drawn; None without any."""
    if found.whole is None or found.whole.known is None:
        return {}
    known, masks = found.whole.known, found.seen.masks if found.seen else clip.amodal
    assert masks is not None
    whole = known | resize_masks(masks, known.shape[1:])
    return {"known_share": [float(k.sum() / w.sum()) if w.any() else None for k, w in zip(known, whole, strict=True)]}


def _whole_masks(clip: Clip, found: Found) -> NDArray[np.bool_]:
    """Of the first seed; of the padded frame, with --pad."""
    masks = found.masks[0] if found.masks else clip.amodal
    assert masks is not None
    return masks


def _hidden(amodal: NDArray[np.bool_], modal: NDArray[np.bool_]) -> float:
    """Share of the whole object that is not visible."""
    whole = int((amodal | modal).sum())
    return float((amodal & ~modal).sum() / whole) if whole else 0.0
