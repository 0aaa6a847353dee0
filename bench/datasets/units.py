"""The folder of an evaluation: one file per clip and seed, each whole or absent, so that any part can be lost.

`eval.json` says what the folder is of: data set, annotations, predictions, settings and all clips. `units/` has a file
per clip and seed, with the hash of all that decides its content as `key`. Several machines may fill one folder.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amodal.runtime.errors import InputError, OutputError

FORMAT = "amodal-eval"
HEAD, UNITS = "eval.json", "units"
MODAL = "modal"
_DECISIVE = ("dataset", "annotations", "predictions", "settings", "seeds")
_SAID = {
    "dataset": "another data set",
    "annotations": "other annotations",
    "predictions": "another bundle or other results",
    "settings": "other settings",
    "seeds": "other seeds or another number of samples",
}


@dataclass(frozen=True)
class Store:
    """An evaluation on disk.

    Attributes:
        folder: where it is.
        head: what `eval.json` holds.
    """

    folder: Path
    head: dict[str, Any]

    @property
    def clips(self) -> list[str]:
        """The ids of all clips of the data set, in its order."""
        return list(self.head["clips"])

    @property
    def seeds(self) -> list[str]:
        """What has a file per clip: `modal`, and each seed."""
        return [MODAL, *map(str, self.head["seeds"])]

    def key(self, clip: str, seed: str) -> str:
        """The hash of all that decides what a unit holds, in hex."""
        decisive = [self.head[name] for name in _DECISIVE] + [clip, seed]
        return hashlib.sha256(json.dumps(decisive, sort_keys=True).encode()).hexdigest()

    def path(self, clip: str, seed: str) -> Path:
        """The file of a unit."""
        readable = re.sub(r"[^A-Za-z0-9._-]+", "_", clip)[:80]
        return self.folder / UNITS / f"{readable}-{hashlib.sha256(clip.encode()).hexdigest()[:10]}.{seed}.json"

    def has(self, clip: str, seed: str) -> bool:
        """Whether a unit is there, whole and of these settings; a damaged file counts as absent."""
        return self.read(clip, seed) is not None

    def read(self, clip: str, seed: str) -> dict[str, Any] | None:
        """The unit's content; None if it is absent, damaged or of something else."""
        try:
            unit = json.loads(self.path(clip, seed).read_bytes())
        except (OSError, ValueError):
            return None
        return unit if isinstance(unit, dict) and unit.get("key") == self.key(clip, seed) else None

    def write(self, clip: str, seed: str, content: dict[str, Any]) -> None:
        """Writes a unit; the same content gives the same bytes."""
        whole = {"key": self.key(clip, seed), "clip": clip, "seed": seed, **content}
        write_whole(self.path(clip, seed), json.dumps(whole, separators=(",", ":"), sort_keys=True, allow_nan=False))

    def gaps(self) -> Iterator[tuple[str, str]]:
        """The clips and seeds that have no unit."""
        for clip in self.clips:
            for seed in self.seeds:
                if not self.has(clip, seed):
                    yield clip, seed


def open_store(folder: Path, head: dict[str, Any]) -> Store:
    """Opens the folder of an evaluation, or begins it.

    Raises:
        InputError: the folder holds something else, or an evaluation of something else, which is named.
    """
    known = read_head(folder)
    if known is not None:
        _require_same(known, head, folder)
    elif folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no {HEAD}; give another folder for `out`.", field="out")
    elif folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, expected a folder to write to; give another for `out`.", field="out")
    else:
        write_whole(folder / HEAD, json.dumps({"format": FORMAT, **head}, sort_keys=True, indent=1) + "\n")
    return Store(folder, head)


def read_head(folder: Path) -> dict[str, Any] | None:
    """What `eval.json` of a folder holds; None if there is none.

    Raises:
        InputError: it is damaged, or no evaluation's.
    """
    path = folder / HEAD
    if not path.is_file():
        return None
    try:
        head = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as json ({error}); expected a folder of `amodal eval`.") from error
    if not isinstance(head, dict) or head.pop("format", None) != FORMAT or {*_DECISIVE, "clips", "about"} - set(head):
        raise InputError(f"{path} is no evaluation's; expected a folder of `amodal eval --dataset`.")
    return head


def _require_same(known: dict[str, Any], head: dict[str, Any], folder: Path) -> None:
    for name in _DECISIVE:
        if known[name] != head[name]:
            raise _other(folder, _SAID[name])
    if known["clips"] != head["clips"]:
        raise _other(folder, "other clips")


def _other(folder: Path, what: str) -> InputError:
    return InputError(f"{folder} holds an evaluation of {what}; give another folder for `out`.", field="out")


def require_mergeable(first: Path, known: dict[str, Any], folder: Path, head: dict[str, Any]) -> None:
    """Raises `InputError` unless two folders are parts of one evaluation."""
    for name in (*_DECISIVE, "clips"):
        if known[name] != head[name]:
            raise InputError(
                f"{folder} and {first} are no parts of one evaluation: {_SAID.get(name, 'other clips')}; merge folders "
                "that were made with the same data set, predictions and settings."
            )


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is there whole or not at all, whenever the process is killed; what was left before is removed.

    Raises:
        OutputError: the file system refuses.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
        for left in path.parent.glob(f".{path.name}.*.tmp"):
            left.unlink(missing_ok=True)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise OutputError(f"{path} could not be written ({error.strerror}); give another folder for `out`.") from error
