"""Encodes and decodes COCO run-length masks: `{"size": [height, width], "counts": text or numbers}`."""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_SIDE = 1 << 15  # otherwise a few bytes of RLE could ask for terabytes of mask
_FIRST_CHARACTER = 48
_MOST_DIGITS = 7  # of 5 bits each: more than any mask of MAX_SIDE needs, and far from overflow


def encode_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """Encodes a bool mask [H, W] as COCO's compressed RLE: `size` [height, width] and `counts`, a string."""
    from pycocotools import mask as coco

    rle = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": [int(n) for n in rle["size"]], "counts": rle["counts"].decode("ascii")}


def decode_rle(rle: Mapping[str, Any]) -> NDArray[np.bool_]:
    """Decodes an RLE, compressed or not, to a bool mask [H, W].

    Raises:
        ValueError: the size is not a pair of positive whole numbers, or the runs do not fill it exactly.
    """
    height, width = read_size(rle)
    return fill_runs(_runs(rle), height * width).reshape(width, height).T


def rle_area(rle: Mapping[str, Any]) -> int:
    """Returns the number of pixels of an RLE's mask, without decoding it; raises what `decode_rle` raises."""
    height, width = read_size(rle)
    runs = _runs(rle)
    _require_filled(runs, height * width)
    return int(runs[1::2].sum())


def read_size(rle: Mapping[str, Any]) -> tuple[int, int]:
    """Returns the (height, width) of an RLE; raises `ValueError` unless both are whole numbers of 1 to `MAX_SIDE`."""
    size = rle.get("size")
    if not (
        isinstance(size, list | tuple) and len(size) == 2 and all(type(n) is int and 0 < n <= MAX_SIDE for n in size)
    ):
        raise ValueError(f"size is {size}, not [height, width]")
    return size[0], size[1]


def fill_runs(runs: NDArray[np.int64], pixels: int) -> NDArray[np.bool_]:
    """Returns bool [pixels] of alternating runs, False first; raises `ValueError` unless they fill it exactly."""
    # pycocotools.decode returns uninitialised memory where the runs end before the mask does (seen with 2.0.11).
    _require_filled(runs, pixels)
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def as_runs(counts: Sequence[Any] | NDArray[Any]) -> NDArray[np.int64]:
    """Returns counts as int64 runs; raises `ValueError` unless they are whole numbers of at least 0."""
    try:
        runs = np.asarray(counts)
    except (ValueError, OverflowError):
        runs = np.empty(0, object)
    if runs.ndim != 1 or (len(runs) and runs.dtype.kind != "i") or (runs < 0).any():
        raise ValueError("counts are neither a string nor a list of whole numbers")
    return runs.astype(np.int64)


def _require_filled(runs: NDArray[np.int64], pixels: int) -> None:
    covered = int(runs.sum())
    if covered != pixels or (len(runs) and runs.max() > pixels):
        raise ValueError(f"the runs cover {covered} pixels of {pixels}")


def _runs(rle: Mapping[str, Any]) -> NDArray[np.int64]:
    counts = rle.get("counts")
    if isinstance(counts, str):
        return _unpack(_without_prefix(counts))
    if not isinstance(counts, list | np.ndarray):
        raise ValueError("counts are neither a string nor a list of whole numbers")
    return as_runs(counts)


def _without_prefix(counts: str) -> str:
    """Returns the text of counts that were written with `str(rle["counts"])`, as `b'...'`; others as they are."""
    if counts[:2] not in ("b'", 'b"') or counts[-1:] != counts[1]:
        return counts  # neither quote is a character of compressed counts
    try:
        return str(ast.literal_eval(counts).decode("ascii"))
    except (ValueError, SyntaxError, AttributeError) as error:
        raise ValueError("counts look like the text of Python's bytes, but are damaged") from error


def _unpack(text: str) -> NDArray[np.int64]:
    """Unpacks compressed counts: 5 bits per character, low bits first; from the fourth run on, differences.

    The scheme is `rleFrString` in `common/maskApi.c` of cocodataset/cocoapi.
    """
    codes = np.frombuffer(text.encode("utf-32-le"), "<u4").astype(np.int64) - _FIRST_CHARACTER
    strange = np.flatnonzero((codes < 0) | (codes >= 64))
    if len(strange):
        raise ValueError(f"counts hold the character {text[strange[0]]!r}")
    if not len(codes):
        return codes
    ends = np.flatnonzero(codes & 32 == 0)
    if not len(ends) or ends[-1] != len(codes) - 1:
        raise ValueError("counts are truncated")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends + 1 - starts
    if lengths.max() > _MOST_DIGITS:
        raise ValueError("counts hold a number larger than any mask")
    digit = np.arange(len(codes)) - np.repeat(starts, lengths)
    values = np.add.reduceat((codes & 31) << (5 * digit), starts)
    values -= np.where(codes[ends] & 16, np.left_shift(1, 5 * lengths), 0)
    runs = values.copy()
    runs[1::2] = np.cumsum(values[1::2])
    runs[2::2] = np.cumsum(values[2::2])
    if (runs < 0).any():
        raise ValueError("counts are negative")
    return runs
