"""Loads .pt files with tensors alone, also from inside a .zip."""

from __future__ import annotations

import io
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch

from amodal.runtime.errors import CheckpointError

from ...graph.weights import one_line, require_download

_ENDINGS = (".pt", ".pth")


def load_tensors(path: Path) -> dict[str, Any]:
    """Loads the dict of a .pt or .pth, or of the one that a .zip contains; code in it is not run.

    Raises:
        CheckpointError: there is no such file, it cannot be read, or it holds more than tensors.
    """
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint at {path}; expected a .pt file, or a .zip that contains one.")
    try:
        content = torch.load(_opened(path), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        require_download(path)
        raise CheckpointError(
            f"{path} is a pickle with more in it than tensors, or none; expected a state dict as torch saves it."
        ) from None
    except (RuntimeError, EOFError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        require_download(path)
        raise CheckpointError(f"{path} cannot be read ({one_line(error)}); download it again.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no dict of tensors; expected the state of a network.")
    return content


def _opened(path: Path) -> Path | io.BytesIO:
    """Returns the file itself, or the content of the checkpoint in a .zip; torch's own files are zip archives too."""
    if not zipfile.is_zipfile(path):
        return path
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            if any(name.endswith("data.pkl") for name in names):
                return path
            found = [n for n in names if n.endswith(_ENDINGS) and not n.startswith("__MACOSX")]
            if len(found) != 1:
                raise CheckpointError(f"{path} contains {len(found)} .pt files; expected one checkpoint.")
            return io.BytesIO(archive.read(found[0]))
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
        raise CheckpointError(f"{path} cannot be read ({one_line(error)}); download it again.") from error
