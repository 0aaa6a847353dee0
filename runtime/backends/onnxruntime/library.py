"""Imports ONNX Runtime, which comes in distributions that overwrite each other's files, and reports on its user."""

from __future__ import annotations

import os
import re
from importlib import metadata
from typing import Any

from ...errors import BackendUnavailableError
from ..backend import import_library

# Before it, a replayed CUDA graph read recycled memory (onnxruntime #32121) and waited after each replay (#28686), and
# operators of opset 23 had no kernels.
OLDEST_FOR_CUDA = "1.31.1"


def import_onnxruntime(extra: str = "cpu") -> Any:
    """Imports ONNX Runtime, which `extra` of amodal installs, with its telemetry off; see `import_library`.

    From 1.29 on, ONNX Runtime stores a device id and a database of events under `~/.cache/Microsoft` as soon as it is
    imported, and sends them seconds later. Only the environment variable prevents that, and only before the import; the
    switch of its API stops the events if a program imported it earlier. `ORT_DISABLE_TELEMETRY=0` leaves it on.
    """
    wanted = os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    onnxruntime = import_library("onnxruntime", extra, "backend onnxruntime")
    if not hasattr(onnxruntime, "InferenceSession"):
        # Left behind when one of the two distributions, which share files, is removed.
        raise BackendUnavailableError(
            "onnxruntime is installed only in part; onnxruntime and onnxruntime-gpu overwrite each other: uninstall "
            f'both, then `pip install "amodal[{extra}]"`.'
        )
    if wanted != "0":
        onnxruntime.disable_telemetry_events()
    return onnxruntime


def installed_distributions() -> list[str]:
    """Lists the installed distributions of ONNX Runtime with their versions; several overwrite each other."""
    names = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
    return [f"{name} {version}" for name in names if (version := installed_version(name))]


def installed_version(name: str) -> str | None:
    """Returns the version of an installed distribution; None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def release(version: str) -> tuple[int, ...]:
    """Returns the numbers of a version, to compare it with others: `1.31.1+cu13` -> (1, 31, 1)."""
    found = re.match(r"(\d+)\.(\d+)(?:\.(\d+))?", version)
    return tuple(int(n or 0) for n in found.groups()) if found else ()
