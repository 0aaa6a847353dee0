"""Importing ONNX Runtime, which two distributions provide that overwrite each other's files."""

from __future__ import annotations

from importlib import metadata
from typing import Any

from ...errors import BackendUnavailableError


def import_onnxruntime(extra: str = "cpu") -> Any:
    """Imports ONNX Runtime; `extra` of amodal installs it.

    Raises:
        BackendUnavailableError: it is not installed, or only in part.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise BackendUnavailableError(
            f'backend onnxruntime cannot be imported ({error}); install it with `pip install "amodal[{extra}]"`.'
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        # This is left when one of the two distributions was removed: they share files.
        raise BackendUnavailableError(
            "onnxruntime is installed only in part; onnxruntime and onnxruntime-gpu overwrite each other: uninstall "
            f'both, then `pip install "amodal[{extra}]"`.'
        )
    return onnxruntime


def installed_distributions() -> list[str]:
    """Lists the installed distributions of ONNX Runtime, with versions; several overwrite each other."""
    found = []
    for name in ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml"):
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found
