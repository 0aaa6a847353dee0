"""What `amodal run` writes for SAMEO beside pictures for people and result.json, as the run goes."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.files.detection_rows import ResultRows
from amodal.runtime.files.objects import folder_names
from amodal.runtime.files.results import cut_out, write_frames_png, write_masks_png
from amodal.runtime.files.track_writing import FrameLines, described_frame, write_one_object, write_tracks
from amodal.runtime.pictures.occlusion import find_order

from .overlays import Overlays
from .sources import Boxes, Masks, Picture

RESULTS = "coco_results.json"


class Predicted(NamedTuple):
    """Some of a picture's objects: their places int64 [n] in it, masks bool [n, h, w], and the IoU they expect [n]."""

    places: NDArray[np.int64]
    masks: NDArray[np.bool_]
    ious: NDArray[np.float32]


class BoxProducts:
    """Rows of COCO results, a detection each, and cut-outs. Close it."""

    def __init__(self, folder: Path, source: Boxes, cutouts: bool, overlays: Overlays | None) -> None:
        self._folder, self._source, self._cutouts, self._overlays = folder, source, cutouts, overlays
        self._rows = ResultRows(folder / RESULTS)

    def close(self) -> None:
        """Closes the files that are written."""
        self._rows.close()

    def add(self, picture: Picture, predicted: Predicted) -> None:
        """Writes objects of a picture."""
        found = self._source.detections
        for place, mask, iou in zip(*predicted, strict=True):
            index, own = int(picture.objects[place]), float(iou)
            score, more = float(found.scores[index]) * own, {"predicted_iou": own, "detection": found.places[index]}
            self._rows.add(found.images[index], found.categories[index], mask, score, **more)
            if self._cutouts:
                name = f"{Path(picture.name).stem}-{found.places[index]}.png"
                write_frames_png(self._folder / "rgba", cut_out(picture.frame[None], mask[None]), [name])
            if self._overlays is not None:
                self._overlays.add(picture, f"{self._source.label(index)} {score:.2f}", score, None, mask)

    def end(self, picture: Picture) -> None:
        """Ends a picture."""
        if self._overlays is not None:
            self._overlays.end(picture)

    def finish(self) -> list[str]:
        """Ends the files; returns the names of what was written."""
        self._rows.end()
        return [RESULTS, *["rgba/"] * self._cutouts]


class MaskProducts:
    """Masks of the objects of a clip as PNGs, masks.json, and cut-outs. Close it."""

    def __init__(self, folder: Path, source: Masks, cutouts: bool, overlays: Overlays | None) -> None:
        self._folder, self._source, self._cutouts, self._overlays = folder, source, cutouts, overlays
        several = len(source.objects) > 1
        names = folder_names(source.objects)
        self._folders = [folder / "objects" / name for name in names] if several else [folder]
        self._lines = FrameLines(folder / ".frames.jsonl")
        self._whole: dict[int, NDArray[np.bool_]] = {}

    def close(self) -> None:
        """Removes what was only needed meanwhile."""
        self._lines.path.unlink(missing_ok=True)

    def add(self, picture: Picture, predicted: Predicted) -> None:
        """Takes objects of a picture."""
        self._whole |= {int(place): mask for place, mask in zip(predicted.places, predicted.masks, strict=True)}

    def end(self, picture: Picture) -> None:
        """Writes a picture's objects, with an empty mask for those that are not seen in it."""
        modal, objects = picture.modal, self._source.objects
        assert modal is not None
        whole = np.stack([self._whole.get(index, np.zeros_like(modal[0])) for index in range(len(objects))])
        self._whole = {}
        order, occluders = find_order(modal, whole)
        self._lines.append([described_frame(objects, modal, whole, order, occluders)])
        names = [picture.name]
        for folder, seen, mask in zip(self._folders, modal, whole, strict=True):
            write_masks_png(folder / "amodal_masks", mask[None], names)
            if self._cutouts:
                write_frames_png(folder / "rgba", cut_out(picture.frame[None], mask[None]), names)
                write_frames_png(folder / "visible", cut_out(picture.frame[None], seen[None]), names)
        if self._overlays is not None:
            for rank, index in enumerate(order):
                self._overlays.add(picture, self._source.label(index), -rank, modal[index], whole[index], index)
            self._overlays.end(picture)

    def finish(self) -> list[str]:
        """Writes masks.json; returns the names of what was written."""
        clip, path = self._source.clip, self._folder / "masks.json"
        if len(self._folders) == 1:
            write_one_object(path, self._lines, clip.names)
            return ["amodal_masks/", *["rgba/", "visible/"] * self._cutouts, "masks.json"]
        write_tracks(path, self._lines, clip.names or self._source.names, clip.size, clip.fps)
        return ["objects/", "masks.json"]


def open_products(
    folder: Path, source: Boxes | Masks, cutouts: bool, overlays: Overlays | None
) -> BoxProducts | MaskProducts:
    """Returns what writes the masks of a run's objects."""
    if isinstance(source, Boxes):
        return BoxProducts(folder, source, cutouts, overlays)
    return MaskProducts(folder, source, cutouts, overlays)
