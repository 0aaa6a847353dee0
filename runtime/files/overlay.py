"""Draws results for people: a video of an overlay that shows the hidden part, panels, and a contact sheet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..paths import PathLike
from .video_writing import write_video

if TYPE_CHECKING:
    from PIL import Image

# Blue and vermilion of Okabe and Ito, brightened, which differ for any colour vision.
VISIBLE = (0, 140, 255)
HIDDEN = (255, 72, 0)
_INK = (40, 44, 52)
_PAPER = (255, 255, 255)
_BLANK = np.uint8(238)
LONGEST, _SHORTEST = 640, 320  # pixels of a displayed frame's longer side
LONGEST_OF_MP4 = 1920
_SLOWEST = (1 << 16) - 1  # hundredths of a second that a frame of a GIF may last
_FONT_SIZE = 14

Colour = tuple[int, int, int]
Frames = NDArray[np.uint8]
Masks = NDArray[np.bool_]


def draw_overlay(frame: Frames, modal: Masks, amodal: Masks, completed: Frames | None = None) -> Frames:
    """Draws a frame with the hidden part highlighted: uint8 [H, W, 3] RGB.

    The background is pale and the visible part keeps its colours. The hidden part is tinted and hatched, over the
    completed object if there is one. Both are outlined.

    Args:
        frame, completed: uint8 [H, W, 3] RGB; `completed` shows the whole object.
        modal, amodal: bool [H, W].
    """
    hidden = amodal & ~modal
    grey = frame.astype(np.float32).mean(axis=-1, keepdims=True)
    picture = 255 - 0.42 * (255 - (0.35 * frame + 0.65 * grey))
    picture[modal] = frame[modal]
    if completed is not None:
        picture[amodal] = completed[amodal]
    height, width = hidden.shape
    stripe = max(8, round(max(height, width) / 50))
    rows, columns = np.mgrid[:height, :width]
    hatch = (rows + columns) % stripe < stripe * 0.35
    plain, striped = (0.12, 0.45) if completed is not None else (0.45, 0.8)
    tint = np.where(hatch, striped, plain)[hidden][:, None]
    picture[hidden] = (1 - tint) * picture[hidden] + tint * np.asarray(HIDDEN, np.float32)
    canvas = np.ascontiguousarray(np.rint(picture).astype(np.uint8))
    outline(canvas, modal, VISIBLE)
    outline(canvas, hidden, HIDDEN)
    return canvas


def display_size(size: tuple[int, int], most: int = LONGEST) -> tuple[int, int]:
    """Returns the (width, height) to show pictures of (height, width) in: at most `most`; small ones are enlarged."""
    height, width = size
    longest = max(height, width)
    scale = most / longest if longest > most else max(1, -(-_SHORTEST // longest))
    return max(1, round(width * scale)), max(1, round(height * scale))


class _Clip(NamedTuple):
    """The pictures of a run: uint8 [T, H, W, 3] and bool [T, H, W]."""

    frames: Frames
    modal: Masks
    amodal: Masks
    completed: Frames | None
    truth: Masks | None = None

    def display_size(self, most: int = LONGEST) -> tuple[int, int]:
        """(width, height) of a displayed frame: at most `most`; small frames are enlarged by a whole factor."""
        return display_size((int(self.frames.shape[1]), int(self.frames.shape[2])), most)

    def at(self, i: int, size: tuple[int, int]) -> _Clip:
        """Returns frame i without the axis T, resized to (width, height)."""
        return _Clip._make(None if pictures is None else fit(pictures[i], size) for pictures in self)

    def panels(self, i: int, size: tuple[int, int]) -> dict[str, Frames]:
        """Draws frame i as named pictures, uint8 [h, w, 3]."""
        frame, modal, amodal, completed, truth = self.at(i, size)
        panels = {"frame": frame, "visible": _draw_mask(modal, modal), "whole": _draw_mask(modal, amodal)}
        if truth is not None:
            panels["truth"] = _draw_mask(modal, truth)
        if completed is not None:
            panels["completed"] = np.where(amodal[..., None], completed, _BLANK)
        return panels


def write_overlay(
    path: PathLike, frames: Frames, modal: Masks, amodal: Masks, completed: Frames | None = None, fps: float = 8
) -> None:
    """Writes a video of `draw_overlay` with a legend, as the suffix of `path` says.

    A `.gif` is at most 640 pixels wide and high without the legend; an `.mp4` (H.264) at most 1920.

    Args:
        frames, completed: uint8 [T, H, W, 3] RGB.
        modal, amodal: bool [T, H, W].
        fps: frames per second, rounded to GIF's hundredths of a second.

    Raises:
        MissingDependencyError: an mp4 without PyAV.
    """
    clip = _Clip(frames, modal, amodal, completed)
    if Path(path).suffix == ".mp4":
        write_video(path, (np.asarray(picture) for picture in _overlays(clip, LONGEST_OF_MP4)), fps)
    else:
        save_gif(path, list(_overlays(clip, LONGEST)), fps)


def _overlays(clip: _Clip, most: int) -> Iterator[Image.Image]:
    size, count = clip.display_size(most), len(clip.frames)
    for i in range(count):
        yield with_legend(draw_overlay(*clip.at(i, size)[:4]), f"{i + 1}/{count}")


def write_contact_sheet(
    path: PathLike,
    frames: Frames,
    modal: Masks,
    amodal: Masks,
    completed: Frames | None = None,
    columns: int = 5,
    truth: Masks | None = None,
) -> None:
    """Writes a PNG of a few frames side by side with, below each other, frame, visible, whole and completed.

    Args:
        frames, modal, amodal, completed: as for `write_overlay`.
        columns: number of frames, spread evenly over the clip.
        truth: bool [T, H, W], the true `amodal`, for a row of its own.
    """
    clip = _Clip(frames, modal, amodal, completed, truth)
    chosen = np.unique(np.linspace(0, len(frames) - 1, min(columns, len(frames))).round().astype(int))
    size = clip.display_size()
    width, height = (max(1, side * 240 // max(size)) for side in size)
    drawn = [clip.panels(i, (width, height)) for i in chosen]
    gap, margin, head = 6, 96, 24
    lefts = [margin + column * (width + gap) for column in range(len(chosen))]
    tops = {name: head + row * (height + gap) for row, name in enumerate(drawn[0])}
    labels = [((10, top + height // 2), name, "lm") for name, top in tops.items()]
    labels += [((left + width // 2, head // 2), f"{i + 1}", "mm") for left, i in zip(lefts, chosen, strict=True)]
    cells = [
        ((left, tops[name]), panel) for left, panels in zip(lefts, drawn, strict=True) for name, panel in panels.items()
    ]
    draw_sheet((margin + len(lefts) * (width + gap), head + len(tops) * (height + gap)), cells, labels).save(path)


def write_panels(
    path: PathLike,
    frames: Frames,
    modal: Masks,
    amodal: Masks,
    completed: Frames | None = None,
    truth: Masks | None = None,
    fps: float = 8,
) -> None:
    """Writes an animated GIF of the contact sheet's rows and the overlay, as panels side by side.

    Args:
        frames, modal, amodal, completed, fps: as for `write_overlay`.
        truth: as for `write_contact_sheet`.
    """
    clip = _Clip(frames, modal, amodal, completed, truth)
    width, height = (max(1, side // 2) for side in clip.display_size())
    gap, head = 8, 22
    pictures = []
    for i in range(len(frames)):
        panels = {**clip.panels(i, (width, height)), "overlay": draw_overlay(*clip.at(i, (width, height))[:4])}
        across = 3 if len(panels) > 4 else 2
        down = -(-len(panels) // across)
        corners = [(gap + n % across * (width + gap), n // across * (height + head + gap)) for n in range(len(panels))]
        labels = [((left, top + head // 2), name, "lm") for name, (left, top) in zip(panels, corners, strict=True)]
        cells = [((x, y + head), panel) for (x, y), panel in zip(corners, panels.values(), strict=True)]
        pictures.append(draw_sheet((gap + across * (width + gap), down * (height + head + gap)), cells, labels))
    save_gif(path, pictures, fps)


def draw_sheet(
    size: tuple[int, int], cells: list[tuple[tuple[int, int], Frames]], labels: list[tuple[tuple[int, int], str, str]]
) -> Image.Image:
    """Draws a sheet of (width, height) with pictures, each at its (left, top), and texts at (x, y) with an anchor."""
    from PIL import Image, ImageDraw, ImageFont

    sheet = Image.new("RGB", size, _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_FONT_SIZE)
    for corner, picture in cells:
        sheet.paste(Image.fromarray(picture), corner)
    for place, text, anchor in labels:
        draw.text(place, text, _INK, font, anchor=anchor)
    return sheet


def _draw_mask(seen: Masks, whole: Masks) -> Frames:
    picture = np.full((*seen.shape, 3), _BLANK)
    picture[whole & ~seen] = HIDDEN
    picture[whole & seen] = VISIBLE
    return picture


def outline(canvas: Frames, mask: Masks, colour: Colour) -> None:
    """Draws a line of `colour` on a wider white one, to stand out from any background."""
    import cv2

    # Along predicted edges lie slivers of a pixel or two, which would look like parts if they were outlined.
    solid = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    contours, _ = cv2.findContours(solid, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    line = max(1, round(max(mask.shape) / 320))
    cv2.drawContours(canvas, contours, -1, _PAPER, line + 2, cv2.LINE_AA)
    cv2.drawContours(canvas, contours, -1, colour, line, cv2.LINE_AA)


def fit(picture: NDArray[Any], size: tuple[int, int]) -> NDArray[Any]:
    """Resizes a frame or a mask to (width, height)."""
    import cv2

    interpolation = cv2.INTER_AREA if picture.shape[1] > size[0] else cv2.INTER_LINEAR
    if picture.dtype == np.bool_:
        return np.asarray(cv2.resize(picture.astype(np.uint8) * np.uint8(255), size, interpolation=interpolation)) > 127
    return np.asarray(cv2.resize(picture, size, interpolation=interpolation))


def with_legend(
    picture: Frames, counter: str, entries: Sequence[tuple[Colour, str]] = ((VISIBLE, "visible"), (HIDDEN, "hidden"))
) -> Image.Image:
    """Adds a bar with what colours mean, as far as there is room, and a counter."""
    from PIL import ImageDraw, ImageFont

    height, width = picture.shape[:2]
    bar = 30
    image = draw_sheet((width, height + bar), [((0, 0), picture)], [])
    draw, font = ImageDraw.Draw(image), ImageFont.load_default(_FONT_SIZE)
    middle, x = height + bar // 2, 10
    room = width - 10 - draw.textlength(counter, font)
    for colour, label in entries:
        if len(entries) > 2 and x + 18 + draw.textlength(label, font) > room:
            break
        draw.rounded_rectangle((x, middle - 6, x + 12, middle + 6), 3, colour)
        draw.text((x + 18, middle), label, _INK, font, anchor="lm")
        x += 18 + round(draw.textlength(label, font)) + 18
    if x + draw.textlength(counter, font) < width:
        draw.text((width - 10, middle), counter, _INK, font, anchor="rm")
    return image


def save_gif(path: PathLike, pictures: list[Image.Image], fps: float) -> None:
    """Writes an animated GIF."""
    from PIL import Image

    # One palette for the clip, from a few of its frames: with one per frame, the background flickers.
    chosen = [pictures[round(i)] for i in np.linspace(0, len(pictures) - 1, min(4, len(pictures)))]
    palette = Image.fromarray(np.vstack([np.asarray(picture) for picture in chosen])).quantize(256)
    images = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]
    duration = max(2, round(min(100 / fps, _SLOWEST))) * 10
    images[0].save(path, save_all=True, append_images=images[1:], duration=duration, loop=0, disposal=1)
