"""The settings and outputs of `amodal run`, and its result.json."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal import __version__
from amodal.cli.console import settings_from
from amodal.cli.environment import environment_of
from amodal.runtime.families.diffusion_vas.results import Completion, Segmentation
from amodal.runtime.families.diffusion_vas.settings import Settings
from amodal.runtime.files.clip import Clip
from amodal.runtime.files.results import write_json
from amodal.runtime.model import Model
from amodal.runtime.pictures.cropping import Crop
from amodal.runtime.pictures.images import resize_masks
from amodal.runtime.pictures.padding import Padding
from amodal.runtime.sampling.schedule import Churn

MARKER = "result.json"


@dataclass(frozen=True)
class Outputs:
    """The stages' results; `padding` is the room around the frame, with --pad, and `crop` the window, with --crop.

    `masks_full` and `frames_full` are of the frame, everything else of the window.
    """

    segmentation: Segmentation | None
    completion: Completion | None
    padding: Padding | None
    crop: Crop | None = None

    @property
    def stages(self) -> dict[str, Segmentation | Completion]:
        """Results by stage, of those that ran."""
        named = {"segment": self.segmentation, "complete": self.completion}
        return {stage: output for stage, output in named.items() if output is not None}

    @property
    def masks(self) -> list[NDArray[np.bool_]]:
        """Whole-object masks bool [T, H, W] per seed, with the padding; empty without `segment`."""
        return [sample.masks_full for sample in self.segmentation.samples] if self.segmentation else []

    def in_frame(self, pictures: NDArray[Any]) -> NDArray[Any]:
        """Crops the padding off."""
        return pictures if self.padding is None else self.padding.crop(pictures)


def settings_of(options: Mapping[str, Any]) -> Settings:
    """Returns the sampler's settings; raises InputError if a value is out of range."""
    least, most = options["churn_sigmas"]
    return settings_from(Settings, options, churn=Churn(options["churn"], least, most, options["churn_noise"]))


def write_result(
    folder: Path, files: list[str], options: Mapping[str, Any], model: Model, clip: Clip, outputs: Outputs, start: float
) -> dict[str, Any]:
    """Writes result.json and returns its content; `start` is when the run began."""
    amodal = outputs.in_frame(whole_masks(clip, outputs))
    result = {
        "schema_version": 1,
        "amodal_version": __version__,
        "files": [*files, MARKER],
        "inputs": {
            **inputs_json(options),
            "count": len(clip.frames),
            "height": clip.frames.shape[1],
            "width": clip.frames.shape[2],
        },
        "settings": {
            "stages": list(outputs.stages),
            **settings_json(options, model),
            **({"propagate": outputs.completion.known is not None} if outputs.completion else {}),
        },
        "seconds": {
            "total": time.perf_counter() - start,
            **{stage: {"total": output.seconds, **output.timings} for stage, output in outputs.stages.items()},
        },
        "hidden_share": [_hidden(a, m) for a, m in zip(amodal, clip.modal, strict=True)],
        **_known(clip, outputs),
        **_beyond(clip, outputs),
        **({"crop": asdict(outputs.crop)} if outputs.crop else {}),
        **environment_json(options, model),
        "warnings": clip.warnings,
    }
    write_json(folder / MARKER, result)
    return result


def inputs_json(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns where a run's inputs lie and how they are read, for result.json."""
    return {
        **{name: options[name] for name in ("frames", "masks", "depth", "amodal")},
        "object": options["object_id"],
        **{name: options[name] for name in ("mask_kind", "missing_masks", "pair", "depth_kind")},
        **{name: None if options[name] is None else str(options[name]) for name in ("start", "stop", "stride")},
    }


def environment_json(options: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """Returns what a run was run with, for result.json."""
    return environment_of(options["bundle"], model, context_layout=model.config.context_layout)


def seeds_of(options: Mapping[str, Any]) -> list[int]:
    """Returns the seed of each sample."""
    return [options["seed"] + index for index in range(options["samples"])]


def settings_json(options: Mapping[str, Any], model: Model) -> dict[str, Any]:
    """Returns the settings of a run for result.json."""
    settings = asdict(settings_of(options))
    churn = settings.pop("churn")
    churn["s_tmax"] = None if math.isinf(churn["s_tmax"]) else churn["s_tmax"]
    settings["context"] = settings["context"] or model.config.context_layout
    settings["decode_chunk"] = settings["decode_chunk"] or model.config.decode_chunk
    channels = settings.pop("depth_channels")
    if options["depth"] is None and model.config.depth is not None:
        settings["depth_channels"] = channels or model.config.depth.channels
    return {
        **({"preset": options["preset"]} if options["preset"] else {}),
        "seed": options["seed"],
        "seeds": seeds_of(options),
        "pad": options["pad"],
        "crop": options["crop"],
        **settings,
        "churn": churn,
        "memory": model.memory,
        **({"memory_plan": model.plan.as_json()} if model.plan else {}),
    }


def _beyond(clip: Clip, outputs: Outputs) -> dict[str, Any]:
    """With --pad: the padding, and the whole object's x, y, width and height in the frame's pixels, also outside it."""
    padding = outputs.padding
    if padding is None:
        return {}
    boxes = padding.boxes(outputs.masks[0], clip.modal).astype(int)
    return {"padding": {"rows": padding.rows, "columns": padding.columns}, "boxes": boxes.tolist()}


def _known(clip: Clip, outputs: Outputs) -> dict[str, Any]:
    """With propagation: per frame, the share of the object's pixels at the bundle's size that was not drawn."""
    if outputs.completion is None or outputs.completion.known is None:
        return {}
    known = outputs.completion.known
    masks = outputs.segmentation.masks if outputs.segmentation else clip.amodal
    assert masks is not None
    if outputs.crop and not outputs.segmentation:
        masks = outputs.crop.cut(masks)
    whole = known | resize_masks(masks, known.shape[1:])
    return {"known_share": [float(k.sum() / w.sum()) if w.any() else None for k, w in zip(known, whole, strict=True)]}


def whole_masks(clip: Clip, outputs: Outputs) -> NDArray[np.bool_]:
    """Whole-object masks of the first seed; with --pad, of the padded frame."""
    masks = outputs.masks[0] if outputs.masks else clip.amodal
    assert masks is not None
    return masks


def _hidden(amodal: NDArray[np.bool_], modal: NDArray[np.bool_]) -> float:
    """Share of the whole object that is not visible."""
    whole = int((amodal | modal).sum())
    return float((amodal & ~modal).sum() / whole) if whole else 0.0
