"""What a run was run with, for its result.json."""

from __future__ import annotations

import platform
from typing import Any

import cv2
import numpy as np
import PIL

from amodal.runtime.bundle.manifest import MANIFEST_NAME
from amodal.runtime.bundle.reading import sha256_of
from amodal.runtime.model import Model


def environment_of(path: str, model: Model, **more: Any) -> dict[str, Any]:
    """Returns the bundle at `path`, the backend and the versions of libraries; `more` is said of the bundle."""
    return {
        "bundle": _bundle(path, model, more),
        "backend": model.backend.describe(),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "pillow": PIL.__version__,
            "opencv": cv2.__version__,
            "platform": platform.platform(),
        },
    }


def _bundle(path: str, model: Model, more: dict[str, Any]) -> dict[str, Any]:
    manifest = model.manifest
    return {
        "path": str(path),
        "manifest_sha256": sha256_of(model.bundle.path / MANIFEST_NAME),
        "precision": sorted({c.precision for c in manifest.components.values()}),
        "size": list(model.config.size),
        "frames": model.config.frames,
        **more,
        "files": {f.path: f.sha256 for c in manifest.components.values() for f in c.files},
    }
