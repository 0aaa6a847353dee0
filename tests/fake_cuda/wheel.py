"""The wheel of ONNX Runtime for CUDA, unpacked beside the environment: its files and those of `onnxruntime` would
overwrite each other."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock
from platformdirs import user_cache_path

from amodal.runtime.backends.onnxruntime.library import OLDEST_FOR_CUDA


def unpacked_wheel() -> Path:
    """Returns a folder with the package `onnxruntime` of the wheel, which pip fetches once.

    Raises:
        OSError: pip cannot fetch it.
    """
    python = f"python{sys.version_info.major}.{sys.version_info.minor}"
    folder = user_cache_path("amodal-tests") / f"onnxruntime-gpu-{OLDEST_FOR_CUDA}-{python}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.is_dir():
            part = folder.with_suffix(".part")
            shutil.rmtree(part, ignore_errors=True)
            _install(f"onnxruntime-gpu>={OLDEST_FOR_CUDA}", part)
            part.rename(folder)
    return folder


def _install(requirement: str, folder: Path) -> None:
    options = ["--quiet", "--no-deps", "--no-compile", "--retries", "1", "--timeout", "20"]
    pip = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder), requirement]
    done = subprocess.run(pip, capture_output=True, text=True)
    if done.returncode:
        raise OSError(
            f"pip cannot fetch {requirement}: {(done.stderr.strip().splitlines() or ['no reason given'])[-1]}"
        )
