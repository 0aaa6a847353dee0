"""Reads depth from OpenEXR files: with OpenCV where it was built with EXR, otherwise with the OpenEXR package.

OpenCV's own wheels have no EXR since release 5; those of release 4 have it behind an environment variable.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, MissingDependencyError, first_line

_DEPTH = ("z", "depth", "disparity", "y", "v")
"""Names of the channel with depth, after the layer's: Blender writes `ViewLayer.Depth.Z` or `.V`."""


def read_exr(path: Path) -> tuple[str, NDArray[Any]]:
    """Reads the channel with depth; returns its name and floats [h, w].

    Raises:
        InputError: a damaged file, or several channels of which none is called depth.
        MissingDependencyError: neither OpenEXR nor an OpenCV with EXR is installed.
    """
    channels = _with_package(path)
    if channels is None:
        channels = _with_opencv(path)
    named = [name for end in _DEPTH for name in channels if name.lower().rpartition(".")[2] == end]
    pictures = list(channels.values())
    if named:
        return named[0], channels[named[0]]
    colours = [channels[name] for name in channels if name.rpartition(".")[2] in ("R", "G", "B")] or pictures
    if all(np.array_equal(colours[0], picture, equal_nan=True) for picture in colours[1:]):
        return "grey", colours[0]
    raise InputError(
        f"{path} holds the channels {', '.join(channels)}, none of them depth; expected one named Z or depth, or grey."
    )


def _with_package(path: Path) -> dict[str, NDArray[Any]] | None:
    """Returns the channels, or None without the OpenEXR package."""
    try:
        import OpenEXR
    except ImportError:
        return None
    try:
        with OpenEXR.File(str(path), separate_channels=True) as file:
            return {name: channel.pixels for name, channel in file.channels().items()}
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{path} cannot be read as EXR ({first_line(error)}); write it again.") from error


def _with_opencv(path: Path) -> dict[str, NDArray[Any]]:
    os.environ.setdefault("OPENCV_IO_ENABLE_OPENEXR", "1")  # read when the first EXR is opened
    import cv2

    if "OpenEXR:                     NO" in cv2.getBuildInformation():
        raise MissingDependencyError(
            f'{path} is EXR, which this OpenCV cannot read; run `pip install "amodal[exr]"`, or write depth as npy.',
            field="depth",
        )
    picture = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if picture is None:
        raise InputError(f"{path} cannot be read as EXR; write it again.")
    channels = picture if picture.ndim == 3 else picture[..., None]
    return {name: channels[..., at] for at, name in enumerate("BGRA"[: channels.shape[-1]])}
