"""The truth of a clip and its prediction, with checks that they belong together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.errors import InputError
from amodal.runtime.files.pictures import describe_size
from amodal.runtime.pictures.images import resize_masks

Bools = NDArray[np.bool_]
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float64]
Size = tuple[int, int]
_MASKS = (np.bool_, 3, "bool [T, H, W], none of them 0")
_RGB = (np.uint8, 4, "uint8 [T, H, W, 3]")


@dataclass(frozen=True)
class ClipTruth:
    """The truth of one object in a clip of T frames.

    Attributes:
        name: of the clip, for reports and errors.
        modal: bool [T, H, W], visible pixels.
        amodal: bool [T, H, W], the part of the whole object that lies in the frame.
        whole_rgb: uint8 [T, H, W, 3], the whole object; needed for PSNR only.
        frames: uint8 [T, H, W, 3], used for the mean colour; without them, `whole_rgb` is.
        boxes: [T, 4] x, y, width and height of the whole object in pixels, which may extend beyond the frame; width 0
            where it is absent. None: the boxes of `amodal`.

    Raises:
        InputError: shapes or dtypes are wrong or do not match.
    """

    name: str
    modal: Bools
    amodal: Bools
    whole_rgb: Bytes | None = None
    frames: Bytes | None = None
    boxes: NDArray[Any] | None = None

    def __post_init__(self) -> None:
        _require(self.amodal, _MASKS, f"the truth of {self.name} has masks of")
        _require(self.modal, _MASKS, f"the visible masks of {self.name} are of")
        shape = self.amodal.shape
        if self.modal.shape != shape:
            raise _differs(self.name, "visible masks", self.modal.shape, "whole-object masks of the truth", shape)
        for what, pictures in (("whole-object RGB", self.whole_rgb), ("frames", self.frames)):
            if pictures is not None:
                _require(pictures, _RGB, f"the {what} of {self.name} is of")
                if pictures.shape[:3] != shape:
                    raise _differs(self.name, what, pictures.shape[:3], "whole-object masks of the truth", shape)
        if self.boxes is not None:
            _require_boxes(self.boxes, shape[0], f"the truth of {self.name}")

    @property
    def size(self) -> Size:
        """(H, W) of the frames."""
        return self.amodal.shape[1], self.amodal.shape[2]

    @property
    def hidden(self) -> Bools:
        """bool [T, H, W]: the object's hidden pixels."""
        return self.amodal & ~self.modal

    @property
    def pads(self) -> Size:
        """(rows, columns) that the padded-frame protocol adds at every side: a quarter of the frame, rounded down."""
        return self.size[0] // 4, self.size[1] // 4

    @property
    def padded_size(self) -> Size:
        """(height, width) of the padded frame."""
        return self.size[0] + 2 * self.pads[0], self.size[1] + 2 * self.pads[1]


@dataclass(frozen=True)
class ClipPrediction:
    """The prediction for a clip.

    Attributes:
        samples: K >= 1 times bool [T, h, w], Top-1 first. (h, w) is the frames' size, or that of the padded frame (a
            quarter more on every side); any other size only in `official` mode, which resizes, and in
            `both` where `of_network`.
        rgb: uint8 [T, h, w, 3], the whole object's RGB of the Top-1 sample, at the frames' or the padded size.
        boxes: [T, 4] x, y, width and height per sample, in the frame's pixels, if boxes were predicted themselves.
            None: the boxes of the masks.
        of_network: whether masks may have the network's size, as in the authors' results files; then the strict
            measures resize them too (nearest).

    Raises:
        InputError: there is no sample, or shapes or dtypes are wrong or do not match.
    """

    samples: Sequence[Bools]
    rgb: Bytes | None = None
    boxes: Sequence[NDArray[Any]] | None = None
    of_network: bool = False

    def __post_init__(self) -> None:
        if not self.samples:
            raise InputError("a prediction has no sample; give at least one mask per frame.")
        for masks in self.samples:
            _require(masks, _MASKS, "a prediction has masks of")
            if masks.shape != self.samples[0].shape:
                raise _differs("a prediction", "masks of one sample", masks.shape, "first", self.samples[0].shape)
        if self.rgb is not None:
            _require(self.rgb, _RGB, "a prediction's RGB is of")
        if self.boxes is not None:
            if len(self.boxes) != len(self.samples):
                raise InputError(f"a prediction has {len(self.boxes)} sets of boxes for {len(self.samples)} samples.")
            for boxes in self.boxes:
                _require_boxes(boxes, len(self.samples[0]), "a prediction")


def check_pair(truth: ClipTruth, prediction: ClipPrediction, any_size: bool) -> None:
    """Checks that a prediction has the frames and size of a truth, or masks of `any_size`; otherwise `InputError`."""
    for what, pictures in (("masks", prediction.samples[0]), ("RGB frames", prediction.rgb)):
        if pictures is None:
            continue
        if len(pictures) != len(truth.amodal):
            raise InputError(
                f"{truth.name}: {len(pictures)} {what} were predicted for {len(truth.amodal)} frames; "
                "give one per frame."
            )
        resized = any_size and what == "masks"
        if pictures.shape[1:3] not in (truth.size, truth.padded_size) and not resized:
            fix = ', or measure with `mode="official"`, which resizes' if what == "masks" else ""
            raise InputError(
                f"{truth.name}: the predicted {what} are {describe_size(pictures.shape[1:3])}, but the truth is "
                f"{describe_size(truth.size)} ({describe_size(truth.padded_size)} when padded); give them at one of "
                f"these sizes{fix}."
            )


def in_frame(pictures: NDArray[Any], truth: ClipTruth) -> NDArray[Any]:
    """Pictures [T, h, w, ...] without padding, if their size is that of the padded frame."""
    if pictures.shape[1:3] != truth.padded_size:
        return pictures
    (rows, columns), (height, width) = truth.pads, truth.size
    return pictures[:, rows : rows + height, columns : columns + width]


def at_frame_size(masks: Bools, truth: ClipTruth) -> Bools:
    """Masks [T, H, W] at the frames' size: without padding, and any other size resized (nearest)."""
    return resize_masks(in_frame(masks, truth), truth.size)


def _require(value: Any, kind: tuple[Any, int, str], what: str) -> None:
    dtype, axes, expected = kind
    good = isinstance(value, np.ndarray) and value.dtype == dtype and value.ndim == axes and 0 not in value.shape
    if not good or (kind is _RGB and value.shape[-1] != 3):
        raise InputError(f"{what} {_describe(value)}; expected {expected}.")


def _require_boxes(boxes: Any, count: int, what: str) -> None:
    values = np.asarray(boxes)
    if values.dtype.kind not in "fiu" or values.shape != (count, 4) or not np.isfinite(values).all():
        raise InputError(f"{what} has boxes of {_describe(values)}; expected finite numbers [{count}, 4].")


def _describe(value: Any) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return f"type {type(value).__name__}" if shape is None else f"shape {list(shape)} and dtype {dtype}"


def _differs(name: str, what: str, shape: tuple[int, ...], other: str, wanted: tuple[int, ...]) -> InputError:
    if shape[0] != wanted[0]:
        return InputError(f"{name}: there are {shape[0]} {what}, but {wanted[0]} {other}; expected one per frame.")
    return InputError(
        f"{name}: the {what} are {describe_size(shape[1:])}, but the {other} {describe_size(wanted[1:])}; "
        "expected one size."
    )
