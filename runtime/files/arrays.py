"""Reads numpy files: one array of a whole clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .pictures import UNREADABLE, shorten

ARRAY_SUFFIXES = (".npz", ".npy")


def load_array(path: Path, names: tuple[str, ...], shape: str = "[T, H, W]") -> NDArray[Any]:
    """Loads the only array of an .npy or .npz, or the first of `names` in an .npz.

    Args:
        shape: what is expected. `[T, H, W]`: a channel or object axis of length 1 ([T, 1, H, W], [T, H, W, 1]) is
            dropped. `[H, W]`: all axes of length 1 before them are. Anything else is returned as it is.

    Raises:
        InputError: another kind of file, a damaged one, pickles, several arrays of other names, or another shape.
    """
    if path.suffix.lower() not in ARRAY_SUFFIXES:
        raise InputError(f"{path} is not a supported kind of file; give a folder of images or an npz file.")
    try:
        loaded = np.load(path, allow_pickle=False)
        array = loaded if isinstance(loaded, np.ndarray) else _member(path, loaded, names)
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(
            f"{path} cannot be read as a numpy file ({shorten(error)}); write it again with numpy.savez."
        ) from error
    found = list(array.shape)
    if shape == "[T, H, W]" and array.ndim == 4 and 1 in (array.shape[1], array.shape[3]):
        array = array[:, 0] if array.shape[1] == 1 else array[..., 0]
    while shape == "[H, W]" and array.ndim > 2 and array.shape[0] == 1:
        array = array[0]
    if (shape in ("[T, H, W]", "[H, W]") and array.ndim != shape.count(",") + 1) or 0 in array.shape:
        raise InputError(f"{path} holds an array of shape {found}; expected {shape}.")
    return array


def array_names(path: Path) -> list[str]:
    """Returns the names of the arrays in an .npz; none for anything else, or a damaged one."""
    if path.suffix.lower() != ".npz":
        return []
    try:
        with np.load(path, allow_pickle=False) as archive:
            return list(archive.files)
    except (*UNREADABLE, AttributeError):
        return []


def _member(path: Path, archive: Any, names: tuple[str, ...]) -> NDArray[Any]:
    with archive:
        keys = list(archive.files)
        key = keys[0] if len(keys) == 1 else next((name for name in names if name in keys), None)
        if key is None:
            raise InputError(
                f"{path} holds the arrays {', '.join(keys) or 'none'}; expected a single one, "
                f"or one named {' or '.join(names)}."
            )
        array = archive[key]
        if not isinstance(array, np.ndarray):  # bytes, of a file that is not numpy's
            raise ValueError(f"{key} in it is no array")
        return array
