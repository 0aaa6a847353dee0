"""Finds one object in the masks of a clip, whatever their values mean: the one reading for files and arrays.

The whole clip is read in one way, the first of these that applies:

- *alpha*: if alpha varies, it is the mask; refused if the colours say otherwise.
- *ids*: a palette (DAVIS, VOC, SAM 2) says that values are ids, 0 is the background.
- *binary*: one level besides 0 is the object, however dark. Clips of nothing but 1 or the highest level show the object
  everywhere.
- *ids*: levels that fill areas of their own (`levels` tells how), and negative or very large whole numbers. Colours are
  ids too (`colours`), black is the background. The only id is the object; several are refused with a list of them.
- *matte*: soft edges, from antialiasing, blur, JPEG or video. The object is above half of the range: 128 of uint8 as in
  the reference, 32768 of uint16, 0.5 of floats in [0, 1]. Refused if no value comes near the end of the range.

What can be read in two ways is refused with both and with `mask_kind`, which decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .colours import Colours
from .levels import Bools, Greys
from .object_ids import ObjectId as ObjectId
from .object_ids import format_id as format_id
from .object_ids import same_id as same_id
from .reading import VOID, Advice, Reading
from .reading import MaskKind as MaskKind
from .reading import ObjectMasks as ObjectMasks

_DIFFERENT = 0.02  # share of pixels in which two readings of an object differ


class MaskPicture(NamedTuple):
    """One picture of masks, decoded, before anything is decided.

    Attributes:
        values: grey levels or ids [H, W] of bool, integers or floats, or colours uint8 [H, W, 3].
        alpha: uint8 or uint16 [H, W], where the file has one.
        ids: whether the file says that values are ids, by a palette that is no picture palette.
        palette: the colours of these ids, uint8 [N, 3].
        lossy: whether the file was compressed with loss.
    """

    values: NDArray[Any]
    alpha: NDArray[Any] | None = None
    ids: bool = False
    palette: NDArray[np.uint8] | None = None
    lossy: bool = False


def read_object(
    pictures: Sequence[MaskPicture],
    source: str,
    object_id: ObjectId | None = None,
    kind: MaskKind = "auto",
    advice: Advice = Advice(),  # noqa: B008  # frozen
) -> ObjectMasks:
    """Reads the masks of one object, by the rules in the module's docstring.

    Args:
        pictures: of the whole clip in order, all of one size.
        source: where they are from, which begins every message.
        object_id: the object, if there are several: a level, or a colour as `#ff0000` or `255,0,0`.
        kind: `auto`, or what the values are: `binary` takes all that is not 0 or black, `matte` what is above half of
            the range, `ids` what equals the id, `alpha` the alpha channel.

    Raises:
        InputError: several objects and no id, no such id, values that can be read in two ways or are no masks.
    """
    if object_id is not None and kind in ("binary", "matte", "alpha"):
        raise InputError(f'{source}: masks read with `mask_kind="{kind}"` have no ids; leave out `object_id`.')
    if kind in ("auto", "alpha"):
        alpha = _read_alpha(pictures, source, object_id, kind, advice)
        if alpha is not None:
            return alpha
    values, declared = values_of(pictures, source)
    reading = Reading(values, source, advice, declared)
    return reading.read(object_id, kind)


def list_objects(pictures: Sequence[MaskPicture], source: str, kind: MaskKind = "auto") -> list[ObjectId] | None:
    """Returns the ids of the objects in pictures; None if they show one object without an id.

    Raises:
        InputError: values that can be read in two ways or are no masks.
    """
    if kind not in ("auto", "ids"):
        return None
    if kind == "auto" and _read_alpha(pictures, source, None, kind, Advice()) is not None:
        return None
    values, declared = values_of(pictures, source)
    reading = Reading(values, source, Advice(), declared)
    if kind == "ids" or declared or (values.levels.objects and values.weigh() == "ids"):
        return [one for one in reading.ids if not (declared and one == VOID)]
    return None


def values_of(pictures: Sequence[MaskPicture], source: str) -> tuple[Greys | Colours, bool]:
    """Returns the values of the clip, and whether the file says that they are ids."""
    coloured = any(picture.values.ndim == 3 for picture in pictures)
    if coloured or not palettes_agree(pictures):
        return Colours([as_rgb(picture) for picture in pictures]), False
    lossy = any(picture.lossy for picture in pictures)
    greys = Greys(_one_dtype([picture.values for picture in pictures], source), source, lossy)
    return greys, any(picture.ids for picture in pictures)


def _one_dtype(frames: list[NDArray[Any]], source: str) -> list[NDArray[Any]]:
    """Gives pictures of 1 bit the range of the others; refuses 8 and 16 bits in one clip, whose ranges differ."""
    kinds = {frame.dtype for frame in frames} - {np.dtype(np.bool_)}
    if len(kinds) > 1 and all(kind.kind == "u" for kind in kinds):
        named = " and ".join(sorted(map(str, kinds)))
        raise InputError(f"{source} holds {named} masks, whose ranges differ; write all frames alike.")
    if len(kinds) != 1 or next(iter(kinds)).kind != "u":
        return frames
    kind = next(iter(kinds))
    top = max(int(frame.max()) for frame in frames)
    return [frame * kind.type(top) if frame.dtype == np.bool_ else frame for frame in frames]


def palettes_agree(pictures: Sequence[MaskPicture]) -> bool:
    """Tells whether each index has one colour in all frames; palettes made frame by frame number colours anew."""
    palettes = [picture.palette for picture in pictures if picture.ids and picture.palette is not None]
    if all(np.array_equal(palette, palettes[0]) for palette in palettes):
        return True
    known: dict[int, tuple[int, ...]] = {}
    for picture in pictures:
        if picture.ids and picture.palette is not None:
            for index in np.unique(picture.values[picture.values < len(picture.palette)]).tolist():
                colour = tuple(picture.palette[index].tolist())
                if known.setdefault(index, colour) != colour:
                    return False
    return True


def as_rgb(picture: MaskPicture) -> NDArray[np.uint8]:
    """Returns a picture in colours, uint8 [H, W, 3]; raises `InputError` for ids without a palette."""
    values = picture.values
    if values.ndim == 3:
        return values
    if picture.palette is not None:
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(picture.palette)] = picture.palette
        return np.asarray(colours[values])
    if values.dtype == np.bool_:
        values = values * np.uint8(255)
    if values.dtype != np.uint8:
        raise InputError(f"The masks are colours in some frames and {values.dtype} in others; expected one kind.")
    return np.repeat(values[..., None], 3, axis=-1)


def _read_alpha(
    pictures: Sequence[MaskPicture], source: str, object_id: ObjectId | None, kind: MaskKind, advice: Advice
) -> ObjectMasks | None:
    """Returns the masks by alpha where it varies; None otherwise, and where an id chooses among colours."""
    shape = pictures[0].values.shape[:2]
    alphas = [np.full(shape, 255, np.uint8) if one.alpha is None else one.alpha for one in pictures]
    varies = min(int(one.min()) for one in alphas) != max(int(one.max()) for one in alphas)
    if not varies:
        if kind == "alpha":
            raise InputError(f"{source} has no alpha that varies; leave out {advice.alpha}.")
        return None
    if any(one.ids for one in pictures) and kind == "auto":
        return None
    greys = Greys(alphas, f"The alpha of {source}")
    masks = Reading(greys, f"The alpha of {source}", advice, False).read(None, "auto" if kind == "auto" else "matte")
    if len(greys.levels.objects) == 1:
        masks = ObjectMasks(greys.filled(), "alpha")
    if kind == "auto":
        _compare_with_colours(pictures, masks.masks, source, object_id, advice)
        if object_id is not None:
            return None
    return ObjectMasks(masks.masks, "alpha", masks.notes)


def _compare_with_colours(
    pictures: Sequence[MaskPicture], masks: Bools, source: str, object_id: ObjectId | None, advice: Advice
) -> None:
    """Raises `InputError` if the colours show another object than alpha, or several in it."""
    values, _ = values_of(pictures, source)
    reading = Reading(values, source, advice, False)

    def refuse(said: str) -> None:
        raise InputError(
            f"{source} can be read in two ways: its alpha is a mask, but {said}; decide with {advice.alpha} or "
            f"{advice.ids}."
        )

    if object_id is not None:
        picked = reading.read(object_id, "ids").masks
        if (picked & ~masks).sum() > _DIFFERENT * picked.sum():
            refuse(f"pixels of object {object_id} lie outside it")
        return
    verdict = values.weigh()
    if verdict == "binary" and values.levels.has_background:
        whole = values.filled()
    elif verdict == "matte" and isinstance(values, Greys) and _mostly_extremes(values, masks):
        whole = values.bright()
    else:
        inside = [
            one._replace(values=np.where(mask[..., None] if one.values.ndim == 3 else mask, one.values, 0))
            for one, mask in zip(pictures, masks, strict=True)
        ]
        within, _ = values_of(inside, source)
        if within.weigh() == "ids" and len(within.levels.objects) > 1:
            refuse(f"its colours are those of {len(within.levels.objects)} objects")
        return
    if (whole ^ masks).sum() > _DIFFERENT * (whole | masks).sum():
        refuse("its colours are another")


def _mostly_extremes(values: Greys, masks: Bools) -> bool:
    """Tells whether hardly a pixel in the object is grey, as in masks and unlike in photographs."""
    inside = np.concatenate([frame[mask] for frame, mask in zip(values.frames, masks, strict=True)])
    top = values.levels.objects[-1]
    return bool(((inside < top / 16) | (inside > top - top / 16)).mean() > 0.9)
