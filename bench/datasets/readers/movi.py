"""MOVi-B and MOVi-D as EoRaS rendered them, and C2F-Seg's MOViD-Amodal, which has the same files and another list.

Kubric's own release of MOVi has no masks of whole objects, and is not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.errors import InputError
from amodal.runtime.pictures.padding import mask_boxes

from ..clip import Bools, Clip, Missing
from ..reading import need, pictures, planes

_ARRAY, _TEXT = "test/instance_list.npy", "test_instance.txt"


@dataclass(frozen=True)
class Movi:
    """The test split below `root`. A clip's id is `SCENE-OBJECT`; its keys are the frames' numbers.

    Facts: `visible_frames`, the frames in which the object is visible, as the metadata say.
    """

    root: Path
    letter: str = "B"

    def clips(self) -> Iterator[Clip]:
        """See `Dataset`."""
        split = self._list().parent if self._list().suffix == ".npy" else self._list().parent / "test"
        for scene, thing in self._instances():
            yield self._clip(split / scene, scene, thing)

    def _clip(self, folder: Path, scene: str, thing: int) -> Clip:
        path = folder / "metadata.json"
        try:
            facts = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise InputError(f"{path} cannot be read as json ({error}).", field="root") from error
        need(facts, ("metadata", "instances"), str(path))
        if thing >= len(facts["instances"]):
            raise InputError(f"{path} has no object {thing}, which the list of instances names.", field="root")
        head = facts["metadata"]
        count = head["num_frames"]

        def files(name: str) -> list[Path]:
            return [folder / name.format(t) for t in range(count)]

        frames = files("rgba_full_{:05d}.png")
        whole = partial(_equal, files(f"segmentation_{thing}_{{:05d}}.png"), thing + 1)
        return Clip(
            id=f"{scene}-{thing}",
            keys=tuple(str(t) for t in range(count)),
            size=(head["height"], head["width"]),
            sources={
                "rgb": partial(pictures, frames),
                "modal": partial(_equal, files("segmentation_full_{:05d}.png"), thing + 1),
                "amodal": whole,
                "depth": partial(planes, files("depth_full_{:05d}.tiff")),
                "boxes": lambda: mask_boxes(whole()),
            },
            facts={"visible_frames": list(facts["instances"][thing]["bbox_frames"])},
            images=tuple(frames),
        )

    def _instances(self) -> list[tuple[str, int]]:
        path = self._list()
        if path.suffix == ".npy":
            words = [str(word).rsplit("-", 1) for word in np.load(path, allow_pickle=False)]
        else:
            words = [line.rsplit("_", 2)[:2] for line in path.read_text().split()]
        if not words or any(len(word) != 2 or not word[1].isdigit() for word in words):
            raise InputError(f"{path} is no list of instances; expected SCENE-OBJECT.", field="root")
        return [(scene, int(thing)) for scene, thing in words]

    def _list(self) -> Path:
        for place in (_ARRAY, f"*/{_ARRAY}", f"*/*/{_ARRAY}", _TEXT, f"*/{_TEXT}", f"*/*/{_TEXT}"):
            for path in sorted(self.root.glob(place)):
                return path
        reason = f"holds no {_ARRAY} or {_TEXT}" if self.root.exists() else "does not exist"
        raise InputError(
            f"{self.root} {reason}; `root` expects EoRaS's MOVi-{self.letter} or C2F-Seg's MOViD-Amodal.", field="root"
        )

    def check(self) -> list[Missing]:
        """See `Dataset`."""
        try:
            self._list()
        except InputError:
            where = f"data.dgl.ai/dataset/EoRas/MOVi-{self.letter}.tar.gz"
            return [Missing(f"{_ARRAY} (EoRaS) or {_TEXT} (C2F-Seg)", where, "as Kubric's MOVi, Apache-2.0")]
        return []

    def annotations(self) -> list[Path]:
        """See `Dataset`: the list of instances; the pictures of the truth are too many to hash."""
        return [self._list()]

    def about(self) -> dict[str, Any]:
        """See `Dataset`."""
        return {}


def _equal(files: list[Path], value: int) -> Bools:
    numbers: NDArray[Any] = planes(files)
    return np.asarray(numbers == value, np.bool_)
