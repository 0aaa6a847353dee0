"""Writes the blocks of a long clip as they are finished, and what the run needs to go on after each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amodal.runtime.clips.source import ClipSource
from amodal.runtime.families.diffusion_vas.block_inputs import Amodal
from amodal.runtime.families.diffusion_vas.blocks import CompletedBlock, SegmentedBlock
from amodal.runtime.files.object_overlay import lane_of
from amodal.runtime.files.results import cut_out
from amodal.runtime.files.track_writing import described_frame
from amodal.runtime.files.unfinished import Unfinished
from amodal.runtime.pictures.cropping import FEWEST_PIXELS
from amodal.runtime.pictures.images import prepare_modal, resize_frames, resize_masks
from amodal.runtime.pictures.occlusion import find_order

from .long_carry import save_carry
from .long_layout import Facts, Notes
from .long_pictures import LongPictures, Scene

_PIECE = 8  # frames of full size that are held at once


@dataclass
class LongWriter:
    """Writes what blocks hold into OUT's folder, and notes of it beside.

    Attributes:
        view: the clip, read by the writer alone.
        amodal: whole masks that were given, without the segment stage.
    """

    run: Unfinished
    facts: Facts
    view: ClipSource
    notes: Notes
    pictures: LongPictures
    amodal: Amodal | None = None
    _written: list[Path] = field(default_factory=list)

    def segmented(self, block: SegmentedBlock) -> None:
        """Writes a block of `segment`."""
        self._written, facts = [], self.facts
        masks = np.stack([block.masks[o] for o in facts.objects], axis=1)
        self.notes.masks.write(block.start, masks)
        if block.judged is not None:
            self.notes.judged.write(block.start, _columns(facts, block.judged))
        self._mark_drawn(block, 0)
        with self.pictures.block(block.number):
            for numbers in _pieces(block.start, block.stop):
                whole = masks[numbers.start - block.start : numbers.stop - block.start]
                depth = block.depth[numbers.start - block.start : numbers.stop - block.start]
                modal = self._describe(numbers, whole, depth)
                full = self._full(whole)
                for index, object_id in enumerate(facts.objects):
                    self._save(f"{facts.folders[object_id]}amodal_masks", numbers, full[:, index])
                if facts.last_stage == "segment":
                    self._draw(numbers, modal, full, [])
        self._commit("segment", block)

    def completed(self, block: CompletedBlock) -> None:
        """Writes a block of `complete`."""
        self._written, facts = [], self.facts
        self._mark_drawn(block, 1)
        with self.pictures.block(block.number):
            for numbers in _pieces(block.start, block.stop):
                at = slice(numbers.start - block.start, numbers.stop - block.start)
                if self.amodal is None:
                    whole = self.notes.masks.read(numbers.start, numbers.stop)
                    full, modal = self._full(whole), self._modal(numbers)
                else:
                    full = np.stack([self.amodal(o, numbers) for o in facts.objects], axis=1)
                    whole = np.stack([resize_masks(full[:, i], facts.at) for i in range(len(facts.objects))], axis=1)
                    self.notes.masks.write(numbers.start, whole)
                    modal = self._describe(numbers, whole, None, full)
                self._note_known(block, numbers, at, whole)
                self._save_frames(block, numbers, at, modal, full)
        self._commit("complete", block)

    def finished(self, stage: str) -> bool:
        """Whether a stage was finished, in this run or the one before."""
        state = self.run.state.get(stage, {})
        return bool(state) and state["next"] == state["count"]

    def _full(self, whole: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.stack([resize_masks(whole[:, i], self.facts.size) for i in range(whole.shape[1])], axis=1)

    def _modal(self, numbers: range) -> NDArray[np.bool_]:
        return np.stack([self.view.modal(o, numbers) for o in self.facts.objects], axis=1)

    def _describe(
        self,
        numbers: range,
        whole: NDArray[np.bool_],
        depth: NDArray[np.float32] | None,
        full: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.bool_]:
        """Notes what the masks of some frames are; returns the visible ones, bool [n, K, h, w]."""
        facts, modal = self.facts, self._modal(numbers)
        full = self._full(whole) if full is None else full
        seen = np.stack([prepare_modal(modal[:, i], facts.at) > 0 for i in range(modal.shape[1])], axis=1)
        self._note_shrunk(numbers, modal, seen)
        before = self.notes.masks.read(max(numbers.start - 1, 0), max(numbers.start, 1))[0]
        lines, orders = [], []
        for t in range(len(numbers)):
            order, occluders = find_order(seen[t], whole[t], None if depth is None else depth[t])
            orders.append(order)
            lines.append(described_frame(facts.objects, modal[t], full[t], order, occluders))
            lanes = np.stack([lane_of(*pair) for pair in zip(seen[t], whole[t] | seen[t], strict=True)])
            self.notes.lanes.write(numbers[t], lanes[None])
            either = (before | whole[t]).sum(axis=(1, 2))
            self.notes.change.write(numbers[t], ((before ^ whole[t]).sum(axis=(1, 2)) / np.maximum(either, 1))[None])
            before = whole[t]
        self.notes.order.write(numbers.start, np.array(orders))
        self.notes.lines.append(lines)
        return modal

    def _note_shrunk(self, numbers: range, modal: NDArray[np.bool_], seen: NDArray[np.bool_]) -> None:
        """Collects the frames in which too little of an object is left at the networks' size."""
        given, left = modal.sum(axis=(2, 3)), seen.sum(axis=(2, 3))
        shrunk = self.run.state.setdefault("shrunk", {})
        for t, index in np.argwhere((left < given) & (left < FEWEST_PIXELS)).tolist():
            shrunk.setdefault(str(index), []).append(numbers[t])

    def _mark_drawn(self, block: SegmentedBlock | CompletedBlock, stage: int) -> None:
        rows = self.notes.drawn.read(block.start, block.stop)
        rows[..., stage] = _columns(self.facts, block.drawn)
        self.notes.drawn.write(block.start, rows)

    def _note_known(self, block: CompletedBlock, numbers: range, at: slice, whole: NDArray[np.bool_]) -> None:
        if block.known is None:
            return
        known = np.stack([block.known[o][at] for o in self.facts.objects], axis=1)
        pixels = (known | whole).sum(axis=(2, 3))
        self.notes.known.write(
            numbers.start, np.where(pixels > 0, known.sum(axis=(2, 3)) / np.maximum(pixels, 1), np.nan)
        )

    def _save_frames(
        self, block: CompletedBlock, numbers: range, at: slice, modal: NDArray[np.bool_], full: NDArray[np.bool_]
    ) -> None:
        """Writes the RGB of some frames; frame by frame, since it is large for many objects."""
        facts = self.facts
        needs_frames = facts.cutouts or facts.videos
        frames = self.view.frames(numbers) if needs_frames else None
        for t, number in enumerate(numbers):
            one = range(number, number + 1)
            drawn = [resize_frames(block.frames[o][at][t : t + 1], facts.size) for o in facts.objects]
            for index, object_id in enumerate(facts.objects):
                root = facts.folders[object_id]
                self._save(f"{root}completed", one, drawn[index])
                if facts.cutouts and frames is not None:
                    self._save(f"{root}rgba", one, cut_out(drawn[index], full[t : t + 1, index]))
                    self._save(f"{root}visible", one, cut_out(frames[t : t + 1], modal[t : t + 1, index]))
            if facts.videos and frames is not None:
                self._draw_one(number, frames[t], modal[t], full[t], [picture[0] for picture in drawn])

    def _draw(
        self, numbers: range, modal: NDArray[np.bool_], full: NDArray[np.bool_], completed: Sequence[NDArray[np.uint8]]
    ) -> None:
        if self.facts.videos:
            for t, frame in enumerate(self.view.frames(numbers)):
                self._draw_one(numbers[t], frame, modal[t], full[t], completed)

    def _draw_one(
        self,
        number: int,
        frame: NDArray[np.uint8],
        modal: NDArray[np.bool_],
        full: NDArray[np.bool_],
        completed: Sequence[NDArray[np.uint8]],
    ) -> None:
        order = self.notes.order.read(number, number + 1)[0].tolist()
        self.pictures.add(Scene(number, frame, list(modal), list(full), order, completed))

    def _save(self, folder: str, numbers: range, pictures: NDArray[Any]) -> None:
        root = self.run.folder / folder
        root.mkdir(parents=True, exist_ok=True)
        if pictures.dtype == np.bool_:
            pictures = pictures * np.uint8(255)
        for number, picture in zip(numbers, pictures, strict=True):
            path = root / self.facts.pngs[number]
            Image.fromarray(picture).save(path)
            self._written.append(path)

    def _commit(self, stage: str, block: SegmentedBlock | CompletedBlock) -> None:
        """Makes the block one that a later run does not repeat."""
        carry = save_carry(self.run.work, stage, block.carry)
        before = self.run.state.get(stage, {"seconds": 0.0})
        state = {
            **self.run.state,
            "lines": self.notes.lines.size,
            stage: {
                "next": block.number + 1,
                "count": block.count,
                "carry": carry.name,
                "seconds": before["seconds"] + block.seconds,
            },
        }
        noise = noise_of(block)
        if noise is not None:
            state[stage]["noise"] = noise
        elif len(self.facts.stages) > 1 and stage == "segment":
            self.run.state = state  # a clip of one window, whose noise is one long stream: it begins anew
            return
        self.run.commit(state, [*self._written, *self.pictures.written, *self.notes.files, carry])
        self._remove_old(stage, carry)

    def _remove_old(self, stage: str, kept: Path) -> None:
        for path in self.run.work.glob(f"carry-{stage}-*.npz"):
            if path != kept:
                path.unlink()


def noise_of(block: SegmentedBlock | CompletedBlock) -> dict[str, int] | None:
    """Returns the noise after a block in numbers; None for that of a clip of one window."""
    from amodal.runtime.clips.noise import FrameNoise

    noise = block.noise
    return {"seed": noise.seed, "stage": noise.stage} if isinstance(noise, FrameNoise) else None


def _pieces(start: int, stop: int) -> Iterator[range]:
    for at in range(start, stop, _PIECE):
        yield range(at, min(at + _PIECE, stop))


def _columns(facts: Facts, arrays: Mapping[Any, NDArray[Any]]) -> NDArray[np.uint8]:
    return np.stack([arrays[o] for o in facts.objects], axis=1).astype(np.uint8)
