"""amodal's kernels for ONNX Runtime on a CPU, compiled in a checkout or installed as `amodal-kernels`.

Winograd convolution, feed-forward blocks in one pass, attention without transposes, group normalisation with SiLU. The
graphs that use them lie beside the plain ones (`amodal.export.fusing`). An editable install compiles the library here,
if there is a compiler; a wheel is pure Python, and takes it from the distribution `amodal-kernels` of the same version.
Without the library, with `AMODAL_KERNELS=off`, or on a CPU without AVX2, the plain graphs run.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ....errors import InputError

DOMAIN = "amodal"
"""The operators' domain in graphs."""

FUSED = ".fused.onnx"
"""Suffix of the graphs that use the kernels."""

SETTING = "AMODAL_KERNELS"
"""Environment variable: `off`, or the widest instructions to use: `avx512`, `avx2` or `plain`."""

_IN_PLACE = "amodal.runtime.backends.onnxruntime.kernels._kernels"
_DISTRIBUTION, _INSTALLED = "amodal-kernels", "amodal_kernels"
_CHOICES = ("", "off", "avx512", "avx2", "plain")
_FAST = ("avx512", "avx2")


class Kernels(NamedTuple):
    """The kernels' library, or why it is not used.

    Attributes:
        library: for ONNX Runtime's `register_custom_ops_library`; None where kernels are not used.
        note: the instruction set in use, or the reason.
    """

    library: Path | None
    note: str

    def __str__(self) -> str:
        return self.note if self.library is not None else f"not used here ({self.note})"


def fused_file(graph: Path) -> Path:
    """Returns the path of a graph's fused twin."""
    return graph.with_name(graph.name.removesuffix(".onnx") + FUSED)


def find_kernels() -> Kernels:
    """Finds the kernels for this process, as limited by the environment variable `AMODAL_KERNELS`."""
    setting = os.environ.get(SETTING, "")
    if setting not in _CHOICES:
        known = ", ".join(filter(None, _CHOICES))
        raise InputError(f"{SETTING}={setting} is unknown; expected one of {known}, or unset it.")
    return _found(setting)


@cache
def _found(setting: str) -> Kernels:
    if setting == "off":
        return Kernels(None, f"{SETTING}=off")
    spec = find_spec(_IN_PLACE)
    if spec is None and (spec := find_spec(_INSTALLED)) is not None and (other := _other_version()) is not None:
        return Kernels(None, other)
    if spec is None or spec.origin is None:
        return Kernels(None, f"not installed: see `{_DISTRIBUTION}` in the README")
    try:
        library = ctypes.CDLL(spec.origin)
    except OSError as error:
        return Kernels(None, f"{spec.origin} cannot be loaded ({error})")
    library.amodal_kernels_instructions.argtypes = [ctypes.c_char_p]
    library.amodal_kernels_instructions.restype = ctypes.c_char_p
    instructions = library.amodal_kernels_instructions(setting.encode()).decode()
    if instructions not in _FAST and setting != "plain":
        return Kernels(None, "no faster than ONNX Runtime's own on a CPU without AVX2")
    return Kernels(Path(spec.origin), instructions)


def _other_version() -> str | None:
    """Why the installed kernels do not fit this amodal: its graphs may use operators that another version lacks."""
    try:
        kernels, here = version(_DISTRIBUTION), version("amodal")
    except PackageNotFoundError as error:
        return f"the version of {error.name} is unknown; install it with pip"
    return None if kernels == here else f"{_DISTRIBUTION} {kernels} is not of amodal {here}; install the same version"
