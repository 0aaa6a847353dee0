"""Records what a bundle's graphs take on a GPU, without one; see `amodal.runtime.memory.recorded`:

PYTHONPATH=src:. python -m tests.fake_cuda.record BUNDLE
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from amodal.runtime.families import Bundle
from amodal.runtime.memory.recorded import MemoryRecord, write_memory

from .prepare import prepare


def main(bundle: str) -> None:
    """Measures, writes the record into the bundle, and prints its path."""
    opened = Bundle(bundle)
    with tempfile.TemporaryDirectory() as folder:
        measure = prepare(Path(folder))
        (found,) = measure([{"graph": str(opened.path), "record": True, "calls": 0, "device_bytes": 80 * 2**30}])
    if found.error:
        raise SystemExit(found.error)
    print(write_memory(opened, MemoryRecord.model_validate(found.recorded)))


if __name__ == "__main__":
    main(*sys.argv[1:])
