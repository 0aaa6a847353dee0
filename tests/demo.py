"""The authors' demo on the reference pipeline: its inputs from files, and both stages from one generator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from amodal.bench.reference.pipeline import ReferencePipeline, amodal_masks, modal_rgb, three_channels

Frames = Sequence[str | Path] | NDArray[np.uint8]


def prepare_frames(frames: Frames, size: tuple[int, int] = (256, 512)) -> NDArray[np.float32]:
    """RGB frames (paths, or uint8 [T,h,w,3]) as float32 [T,3,H,W] in [-1, 1], resized bilinearly by PIL."""
    pictures = [f if isinstance(f, np.ndarray) else np.asarray(Image.open(f).convert("RGB")) for f in frames]
    resized = np.stack([_resize(picture, size) for picture in pictures])
    return resized.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(127.5) - np.float32(1)


def prepare_masks(masks: Frames, size: tuple[int, int] = (256, 512)) -> NDArray[np.float32]:
    """Masks (paths, or uint8 [T,h,w]) as float32 [T,H,W] in [-1, 1].

    Binarised at > 128 before the bilinear resize, so that edges are grey.
    """
    pictures = [m if isinstance(m, np.ndarray) else np.asarray(Image.open(m).convert("L")) for m in masks]
    resized = np.stack([_resize(np.where(p > 128, 255, 0).astype(np.uint8), size) for p in pictures])
    return resized.astype(np.float32) / np.float32(127.5) - np.float32(1)


def run_both_stages(
    segment: ReferencePipeline,
    complete: ReferencePipeline,
    modal: NDArray[np.float32],
    depth: NDArray[np.float32],
    rgb: NDArray[np.float32],
    seed: int = 23,
    *,
    amodal: NDArray[Any] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Both stages from one generator, as the authors' demo runs them.

    Args:
        segment: stage 1.
        complete: stage 2.
        modal: modal masks [T,H,W] in [-1, 1], see `prepare_masks`.
        depth: [T,H,W] in [-1, 1].
        rgb: [T,3,H,W] in [-1, 1], see `prepare_frames`.
        seed: of the CPU generator, 23 in the demo.
        amodal: masks [T,H,W], non-zero inside, to hand to stage 2 instead of stage 1's own.
        **options: of `ReferencePipeline.__call__`, for both stages.

    Returns:
        `segment` and `complete` (Result each), `amodal` (bool [T,H,W], stage 1's own) and
        `modal_rgb` (float32 [T,3,H,W]).
    """
    generator = torch.Generator("cpu").manual_seed(seed)
    first = segment(three_channels(modal), three_channels(depth), generator=generator, **options)
    masks = amodal_masks(first.frames_u8, modal)
    visible = modal_rgb(rgb, modal)
    given = masks if amodal is None else np.asarray(amodal) > 0
    signed = np.where(given, np.float32(1), np.float32(-1))
    second = complete(visible, three_channels(signed), generator=generator, **options)
    return {"segment": first, "complete": second, "amodal": masks, "modal_rgb": visible}


def _resize(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    height, width = size
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR))
