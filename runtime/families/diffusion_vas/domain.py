"""Whether a clip is like those that a bundle's networks were trained on.

A bundle that knows one narrow kind of clip, as the default bundle knows drawn scenes, has the `domain` of its training
clips in its manifest. A clip is unlike them where a measure is outside their range by more than `MARGIN`, or where the
frame has other proportions. All measures are of pictures at the bundle's size, as the networks see them:

    grain    detail of the frames: mean difference from their 3x3 median, in grey levels of 255
    relief   share of the pixels at which depth bends, by more than a hundredth of its range
    nearer   share of the pixels that are nearer than the object, by more than a twentieth of depth's range
    motion   share of the visible object that changes from one frame to the next
    area     largest share of a frame that shows the object
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ...pictures.images import Size, prepare_depth, prepare_modal, prepare_rgb, to_bytes
from .config import Config

MARGIN = 1.25
"""Other clips of the same kind exceed the range of the training clips by less than this factor."""
STRETCH = 1.5
"""Factor by which one side of a frame may be stretched relative to the other on its way to the bundle's size. Scenes
drawn in other proportions lost 4 points of mIoU_occ at 1.5, and 6 at 2."""
_BEND, _BEFORE = 0.01, 0.05  # of depth's range


class _Words(NamedTuple):
    """What a clip is below and above the range of a measure, and the measure with its value in its unit."""

    below: str
    above: str
    value: str
    unit: float = 1.0


_WORDS = {
    "grain": _Words("its frames are nearly blank", "its frames have the detail of photographs", "grain {}"),
    "relief": _Words("its depth is flat", "its depth is rough", "bends in {} % of the picture", 100),
    "nearer": _Words(
        "hardly anything is nearer than the object",
        "nearly everything is nearer than the object",
        "{} % of the picture",
        100,
    ),
    "motion": _Words("the object hardly moves", "the object leaps", "{} % of it changes from frame to frame", 100),
    "area": _Words("the object is small", "the object is large", "at most {} % of a frame", 100),
}


def measure_frames(frames: NDArray[np.uint8], size: Size) -> dict[str, float]:
    """Measures frames uint8 [T, h, w, 3] at `size` (H, W): `grain`."""
    pictures = to_bytes(prepare_rgb(frames, size))
    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in pictures]
    return {"grain": float(np.mean([cv2.absdiff(grey, cv2.medianBlur(grey, 3)).mean() for grey in greys]))}


def measure_masks(modal: NDArray[np.bool_], size: Size) -> dict[str, float]:
    """Measures visible masks bool [T, h, w]: `motion`, if there are two frames with the object, and `area`."""
    seen = prepare_modal(modal, size) > 0
    either, changed = seen[1:] | seen[:-1], seen[1:] ^ seen[:-1]
    motion = {"motion": float(changed.sum() / either.sum())} if either.any() else {}
    return {**motion, "area": float(seen.mean(axis=(1, 2)).max())}


def measure_depth(depth: NDArray[Any], modal: NDArray[np.bool_], size: Size) -> dict[str, float]:
    """Measures depth [T, h, w], nearer is larger: `relief` and, if the object is seen, `nearer`."""
    near = (prepare_depth(depth, size) + 1) / 2
    inner = near[:, 1:-1, 1:-1]
    around = near[:, :-2, 1:-1] + near[:, 2:, 1:-1] + near[:, 1:-1, :-2] + near[:, 1:-1, 2:]
    relief = {"relief": float((np.abs(4 * inner - around) > _BEND).mean())}
    seen = prepare_modal(modal, size) > 0
    if not seen.any():
        return relief
    return {**relief, "nearer": float((near > np.median(near[seen]) + _BEFORE).mean())}


def find_unlike(
    config: Config,
    frames: NDArray[np.uint8] | None = None,
    modal: NDArray[np.bool_] | None = None,
    depth: NDArray[Any] | None = None,
) -> list[str]:
    """Says in what a clip is unlike those that the networks were trained on.

    Args:
        config: of the bundle; if it has no `domain`, nothing is unlike.
        frames: uint8 [T, h, w, 3].
        modal: bool [T, h, w], visible pixels.
        depth: numbers [T, h, w], nearer is larger; measured together with `modal`.

    Returns:
        clauses such as "its frames have the detail of photographs (grain 5.6, training 0.05 to 1.4)"; empty if
        everything given is like the training clips.
    """
    if config.domain is None:
        return []
    found: dict[str, float] = {}
    if frames is not None:
        found |= measure_frames(frames, config.size)
    if modal is not None:
        found |= measure_masks(modal, config.size)
        if depth is not None:
            found |= measure_depth(depth, modal, config.size)
    clauses = []
    for name, value in found.items():
        words, (low, high) = _WORDS[name], getattr(config.domain, name)
        if not low / MARGIN <= value <= high * MARGIN:
            what = words.below if value < low else words.above
            shown, least, most = (_number(number * words.unit) for number in (value, low, high))
            clauses.append(f"{what} ({words.value.format(shown)}, training {least} to {most})")
    given = next((pictures for pictures in (frames, modal) if pictures is not None), None)
    return [*_stretch(given.shape[1:3], config), *clauses] if given is not None else clauses


def _stretch(size: tuple[int, ...], config: Config) -> list[str]:
    stretch = (config.height / size[0]) / (config.width / size[1])
    if 1 / STRETCH <= stretch <= STRETCH:
        return []
    how = f"{stretch:.1f} times in height" if stretch > 1 else f"{1 / stretch:.1f} times in width"
    return [f"its frames of {size[0]}x{size[1]} are stretched {how} to {config.height}x{config.width}"]


def _number(value: float) -> str:
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"
