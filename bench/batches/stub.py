"""A runner without a model: what remains is the cost of the batch itself."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from amodal.runtime.files.atomic import staged_folder
from amodal.runtime.files.results import write_json


class StubRunner:
    """Writes a folder of two small files for each unit, which depend on its task alone.

    Args:
        seconds: to wait for each unit, where a model would run.
    """

    marker = "result.json"

    def __init__(self, seconds: float = 0.0) -> None:
        self._seconds = seconds

    def run(self, task: Mapping[str, Any], folder: Path) -> None:
        """See `amodal.bench.batches.work.Runner`."""
        with staged_folder(folder, overwrite=True, marker=self.marker) as staging:
            time.sleep(self._seconds)
            content = hashlib.sha256(repr(sorted(task.items())).encode()).digest() * 64
            (staging / "masks.bin").write_bytes(content)
            write_json(staging / self.marker, {"schema_version": 1, "files": ["masks.bin"], "task": dict(task)})
