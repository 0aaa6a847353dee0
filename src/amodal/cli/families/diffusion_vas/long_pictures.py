"""Draws the pictures for people of a long clip as it is run: overlay, contact sheet, strip."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amodal.runtime.clips.windows import Block, WindowStrategy, windows_at
from amodal.runtime.files.object_overlay import colour_of, draw_mask_colours, draw_objects, draw_strip
from amodal.runtime.files.overlay import (
    LONGEST,
    LONGEST_OF_MP4,
    display_size,
    draw_overlay,
    draw_sheet,
    fit,
    save_gif,
    with_legend,
)
from amodal.runtime.files.video_writing import VideoWriter, join_videos

from .long_layout import Facts, Notes

Pictures = Sequence[NDArray[np.uint8]]
Masks = Sequence[NDArray[np.bool_]]


@dataclass(frozen=True)
class Scene:
    """One frame, uint8 [h, w, 3], with masks bool [h, w] and, if it was completed, RGB of each object."""

    number: int
    frame: NDArray[np.uint8]
    modal: Masks
    whole: Masks
    order: Sequence[int]
    completed: Pictures

    def fitted(self, size: tuple[int, int]) -> Scene:
        """Returns it resized to (width, height)."""
        modal, whole, completed = (
            [fit(one, size) for one in many] for many in (self.modal, self.whole, self.completed)
        )
        return Scene(self.number, fit(self.frame, size), modal, whole, self.order, completed)


class LongPictures:
    """Draws a block's part of the pictures into `work`, and at the end the pictures of all parts."""

    def __init__(self, work: Path, facts: Facts) -> None:
        self._work, self._facts = work, facts
        self._legend = [(colour_of(i), label) for i, label in enumerate(facts.labels)]
        self._video: VideoWriter | None = None
        self.written: list[Path] = []
        for name in ("overlay", "gif", "sheet"):
            (work / name).mkdir(exist_ok=True)

    @contextmanager
    def block(self, number: int) -> Iterator[None]:
        """Draws the frames that are added within as those of a block."""
        self.written = []
        if "mp4" not in self._facts.videos:
            yield
            return
        path = self._part(number)
        with VideoWriter(path, self._facts.fps) as self._video:
            yield
        self._video = None
        self.written.append(path)

    def add(self, scene: Scene) -> None:
        """Draws a frame."""
        facts = self._facts
        if self._video is not None:
            self._video.add(np.asarray(self._overlay(scene, LONGEST_OF_MP4)))
        if "gif" in facts.videos and scene.number % facts.gif_step == 0:
            self._save(self._overlay(scene, LONGEST), self._work / "gif" / f"{scene.number:08d}.png")
        if facts.videos and scene.number in facts.on_sheet:
            for row, (_, panel) in enumerate(self._panels(scene)):
                self._save(Image.fromarray(panel), self._work / "sheet" / f"{scene.number:08d}-{row}.png")

    def finish(self, folder: Path, blocks: Sequence[Block], notes: Notes, windows: tuple[WindowStrategy, int]) -> None:
        """Writes the pictures of all blocks; `windows` are the strategy and the frames of a window."""
        facts = self._facts
        if "mp4" in facts.videos:
            join_videos(folder / "overlay.mp4", [self._part(number) for number in range(len(blocks))])
        if "gif" in facts.videos:
            pictures = [_read(path) for path in sorted((self._work / "gif").iterdir())]
            save_gif(folder / "overlay.gif", pictures, facts.fps / facts.gif_step)
        self._write_sheet(folder / "sheet.png")
        lanes, change = notes.lanes.read(0, facts.count), notes.change.read(0, facts.count)
        starts = sorted({start for block in blocks for start in window_starts(block, *windows)})
        strip = draw_strip(lanes, change, facts.labels, [block.start for block in blocks[1:]], starts)
        strip.save(folder / "strip.png")

    def _part(self, number: int) -> Path:
        return self._work / "overlay" / f"{number:06d}.mp4"

    def _save(self, picture: Image.Image, path: Path) -> None:
        picture.save(path)
        self.written.append(path)

    def _overlay(self, scene: Scene, most: int) -> Image.Image:
        shown = scene.fitted(display_size(self._facts.size, most))
        counter = f"{scene.number + 1}/{self._facts.count}"
        if self._facts.several:
            picture = draw_objects(shown.frame, shown.modal, shown.whole, scene.order, shown.completed)
            return with_legend(picture, counter, self._legend)
        completed = shown.completed[0] if shown.completed else None
        return with_legend(draw_overlay(shown.frame, shown.modal[0], shown.whole[0], completed), counter)

    def _panels(self, scene: Scene) -> list[tuple[str, NDArray[np.uint8]]]:
        width, height = display_size(self._facts.size)
        shown = scene.fitted((max(1, width * 240 // max(width, height)), max(1, height * 240 // max(width, height))))
        visible = draw_mask_colours(shown.modal, shown.modal, scene.order)
        panels = [
            ("frame", shown.frame),
            ("visible", visible),
            ("whole", draw_mask_colours(shown.modal, shown.whole, scene.order)),
        ]
        if shown.completed:
            drawn = np.full_like(shown.frame, 238)
            for index in reversed(scene.order):
                drawn[shown.whole[index]] = shown.completed[index][shown.whole[index]]
            panels.append(("completed", drawn))
        return panels

    def _write_sheet(self, path: Path) -> None:
        frames, names = sorted(self._facts.on_sheet), ["frame", "visible", "whole", "completed"]
        columns = [sorted((self._work / "sheet").glob(f"{frame:08d}-*.png")) for frame in frames]
        panels = [[np.asarray(_read(one)) for one in column] for column in columns]
        height, width = panels[0][0].shape[:2]
        gap, margin, head = 6, 96, 24
        lefts = [margin + column * (width + gap) for column in range(len(frames))]
        tops = [head + row * (height + gap) for row in range(len(panels[0]))]
        labels = [((10, top + height // 2), names[row], "lm") for row, top in enumerate(tops)]
        labels += [((left + width // 2, head // 2), f"{i + 1}", "mm") for left, i in zip(lefts, frames, strict=True)]
        cells = [
            ((left, top), panel)
            for left, column in zip(lefts, panels, strict=True)
            for top, panel in zip(tops, column, strict=True)
        ]
        size = (margin + len(lefts) * (width + gap), head + len(tops) * (height + gap))
        draw_sheet(size, cells, labels).save(path)


def window_starts(block: Block, strategy: WindowStrategy, frames: int) -> set[int]:
    """Returns the frames at which another window decides, at the last even step or the last odd one."""
    used: WindowStrategy = "chunks" if strategy == "blended" else strategy
    starts: set[int] = set()
    for step in (98, 99):
        for window in windows_at(used, block.stop - block.start, frames, step, 100):
            own = window.frames[window.weights > 0]
            if len(own):
                breaks = np.flatnonzero(np.diff(own) != 1) + 1
                starts |= {block.start + int(own[at]) for at in (0, *breaks)}
    return starts - {0}


def _read(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")
