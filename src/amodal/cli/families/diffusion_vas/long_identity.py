"""What a run is, so that only the same run goes on where one was stopped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from amodal import __version__
from amodal.runtime.bundle.manifest import MANIFEST_NAME
from amodal.runtime.bundle.reading import find_bundle, sha256_of

_OPTIONS = (
    *("stage", "object_id", "objects", "mask_kind", "missing_masks", "pair", "start", "stop", "stride", "depth_kind"),
    *("depth_channels", "seed", "steps", "guidance", "fps", "churn", "churn_sigmas", "churn_noise", "context"),
    *("decode_chunk", "cfg_rows", "propagate", "windows", "block_frames", "gate", "gate_tolerance", "overlay", "video"),
    *("cutouts", "backend", "device"),
)
"""All that the files depend on. What only decides memory, time or what is printed may change."""


def identity_of(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a run is, as plain values: options by their names, inputs by what they hold."""
    manifest = find_bundle(options["bundle"]) / MANIFEST_NAME
    files = {
        f"what `{name}` holds": _fingerprint(Path(options[name]))
        for name in ("frames", "masks", "depth", "amodal")
        if options[name] is not None
    }
    return {
        "amodal's version": __version__,
        "the bundle": sha256_of(manifest) if manifest.is_file() else None,
        **files,
        **{name: _plain(options[name]) for name in _OPTIONS},
    }


def _plain(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    return value if isinstance(value, int | float | str | None) else str(value)


def _fingerprint(path: Path) -> str:
    """Returns a hash of names, sizes and times of a file, or of those in a folder."""
    digest = hashlib.sha256()
    for name, file in sorted(_files(path)):
        state = file.stat()
        digest.update(f"{name}\0{state.st_size}\0{state.st_mtime_ns}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def _files(path: Path) -> Iterator[tuple[str, Path]]:
    if path.is_file():
        yield "", path
    for root, _, names in os.walk(path):
        for name in names:
            file = Path(root) / name
            if file.is_file():
                yield str(file.relative_to(path)), file
