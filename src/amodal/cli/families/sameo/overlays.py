"""Pictures for people: each picture with its masks drawn over it, a video of a clip's, and a sheet of a few."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amodal.runtime.errors import MissingDependencyError
from amodal.runtime.files.object_overlay import colour_of, draw_objects
from amodal.runtime.files.overlay import LONGEST, LONGEST_OF_MP4, display_size, draw_sheet, fit, save_gif, with_legend
from amodal.runtime.files.video_writing import VideoWriter, require_video_encoder

from .sources import Picture, Source

_MOST = 40  # objects that are drawn in a picture: those of the highest rank
_GIF_FRAMES, _SHEET_FRAMES, _THUMB, _FPS = 100, 5, 240, 8.0
_LONGEST_OF_PNG = 1280


class _Drawn(NamedTuple):
    """An object at the size that is shown: visible and whole mask bool [h, w]; `colour` is the number of its colour."""

    rank: float
    label: str
    modal: NDArray[np.bool_]
    whole: NDArray[np.bool_]
    colour: int


class Overlays:
    """Draws the objects of a picture as they come, and writes it when it is complete.

    Args:
        kind: `png` for a picture each, in overlay/; `mp4` or `gif` for a video.
    """

    def __init__(self, folder: Path, source: Source, kind: str) -> None:
        self._folder, self._source, self._kind = folder, source, kind
        self._objects: list[_Drawn] = []
        self._gif: list[Image.Image] = []
        self._sheet: list[tuple[str, NDArray[np.uint8]]] = []
        self._on_sheet = {round(i) for i in np.linspace(0, source.count - 1, min(_SHEET_FRAMES, source.count))}
        self._video: VideoWriter | None = None
        self._undo = ExitStack()
        self._size = {"gif": LONGEST, "png": _LONGEST_OF_PNG}.get(kind, LONGEST_OF_MP4)

    def add(
        self,
        picture: Picture,
        label: str,
        rank: float,
        modal: NDArray[np.bool_] | None,
        whole: NDArray[np.bool_],
        colour: int | None = None,
    ) -> None:
        """Adds an object with masks bool [h, w] of the picture's size; `modal` None if it is not known what is seen."""
        size = display_size((whole.shape[0], whole.shape[1]), self._size)
        shown = fit(whole, size)
        seen = shown if modal is None else fit(modal, size)
        number = len(self._objects) if colour is None else colour
        self._objects.append(_Drawn(rank, label, seen, shown, number))
        if len(self._objects) > 2 * _MOST:
            self._objects = self._best()

    def end(self, picture: Picture) -> None:
        """Draws a picture."""
        drawn = self._draw(picture)
        if self._kind == "png":
            (self._folder / "overlay").mkdir(exist_ok=True)
            drawn.save(self._folder / "overlay" / picture.name)
        elif self._kind == "mp4":
            if self._video is None:
                video = VideoWriter(self._folder / "overlay.mp4", self._source.fps or _FPS)
                self._video = self._undo.enter_context(video)
            self._video.add(np.asarray(drawn))
        elif picture.place % self._gif_step == 0:
            self._gif.append(drawn)
        if picture.place in self._on_sheet:
            self._sheet.append((picture.name, np.asarray(drawn.convert("RGB"))))

    def close(self) -> None:
        """Closes the files that are written, whether they were finished or not."""
        self._undo.close()

    def finish(self) -> list[str]:
        """Writes what is left; returns the names of what was written."""
        self._undo.close()
        if self._gif:
            save_gif(self._folder / "overlay.gif", self._gif, (self._source.fps or _FPS) / self._gif_step)
        self._write_sheet()
        return ["overlay/" if self._kind == "png" else f"overlay.{self._kind}", "sheet.png"]

    @property
    def _gif_step(self) -> int:
        return -(-self._source.count // _GIF_FRAMES)

    def _best(self) -> list[_Drawn]:
        return sorted(self._objects, key=lambda one: -one.rank)[:_MOST]

    def _draw(self, picture: Picture) -> Image.Image:
        objects, self._objects = self._best(), []
        height, width = picture.frame.shape[:2]
        frame = fit(picture.frame, display_size((height, width), self._size))
        used = {one.colour: one for one in objects}
        empty = np.zeros(frame.shape[:2], bool)
        colours = range(max(used, default=-1) + 1)
        modal = [used[i].modal if i in used else empty for i in colours]
        whole = [used[i].whole if i in used else empty for i in colours]
        canvas = draw_objects(frame, modal, whole, [one.colour for one in objects], [])
        legend = [(colour_of(one.colour), one.label) for one in objects]
        return with_legend(canvas, f"{picture.place + 1}/{self._source.count}", legend)

    def _write_sheet(self) -> None:
        gap, head, cells, labels, x, tall = 6, 24, [], [], 6, 0
        for name, drawn in self._sheet:
            height, width = drawn.shape[:2]
            size = (max(1, width * _THUMB // max(width, height)), max(1, height * _THUMB // max(width, height)))
            cells.append(((x, head), fit(drawn, size)))
            labels.append(((x, head // 2), Path(name).stem[-30:], "lm"))
            x, tall = x + size[0] + gap, max(tall, size[1])
        draw_sheet((x, head + tall + gap), cells, labels).save(self._folder / "sheet.png")


def open_overlays(folder: Path, source: Source, options: Mapping[str, Any]) -> Overlays:
    """Returns what draws the pictures of a run.

    Raises:
        MissingDependencyError: an mp4 was asked for, and its encoder is missing.
    """
    kind = "png"
    if options["video"] == "mp4":
        require_video_encoder()
    if source.is_clip:
        kind = options["video"] or ("mp4" if _can_encode() else "gif")
    return Overlays(folder, source, kind)


def _can_encode() -> bool:
    try:
        require_video_encoder()
    except MissingDependencyError:
        return False
    return True
