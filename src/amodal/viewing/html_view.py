"""Writes a page that any browser plays without a network: frames, masks and completed objects in one file."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from amodal.runtime.files.object_overlay import colour_of
from amodal.runtime.files.overlay import fit
from amodal.runtime.files.rle import encode_rle

from .view import Moment, Places, Shown, box_of

_LONGEST = 640  # pixels of a picture's longer side
_JPEG, _WEBP = 80, 75  # qualities
MOST_FRAMES, MOST_BYTES = 600, 48_000_000
"""What a page may hold; browsers open that in a second or two. More frames than that are thinned evenly."""


class HtmlView:
    """A page with a player, written when it is closed.

    Pictures have at most 640 pixels on their longer side. A clip of more frames, or of more bytes, than `most_frames`
    and `most_bytes` is shown by every second, fourth, ... frame; `close` says so, and the page too.
    """

    def __init__(self, path: Path, title: str, most_frames: int = MOST_FRAMES, most_bytes: int = MOST_BYTES) -> None:
        self.name, self._path, self._title = path.name, path, title
        self._most_frames, self._most_bytes = most_frames, most_bytes
        self._places = Places()
        self._frames: list[str] = []
        self._bytes = self._count = 0
        self._step = 1

    def add(self, moment: Moment) -> None:
        """See `View`."""
        count, self._count = self._count, self._count + 1
        if count % self._step:
            return
        text = json.dumps(self._describe(moment), separators=(",", ":"))
        self._frames.append(text)
        self._bytes += len(text)
        while len(self._frames) > self._most_frames or (self._bytes > self._most_bytes and len(self._frames) > 1):
            self._frames, self._step = self._frames[::2], 2 * self._step
            self._bytes = sum(map(len, self._frames))

    def close(self) -> list[str]:
        """See `View`."""
        note = ""
        if self._step > 1:
            note = f"{self.name} shows one frame in {self._step} of {self._count}."
        names = self._places.names
        objects = [{"name": name, "colour": colour_of(place)} for place, name in enumerate(names)]
        known = {"title": self._title, "objects": objects, "note": note}
        frames = ",\n".join(self._frames)
        data = f'{{"clip":{json.dumps(known)},"frames":[\n{frames}]}}'.replace("<", "\\u003c")
        page = resources.files(__package__).joinpath("player.html").read_text(encoding="utf-8")
        head, tail = page.replace("{{title}}", html.escape(self._title)).split("{{data}}")
        whole = self._path.with_name(f".{self._path.name}.part")
        try:
            with whole.open("w", encoding="utf-8") as file:
                file.writelines((head, data, tail))
            whole.replace(self._path)
        finally:
            whole.unlink(missing_ok=True)
        return [note] * bool(note)

    def _describe(self, moment: Moment) -> dict[str, Any]:
        height, width = moment.frame.shape[:2]
        scale = min(1.0, _LONGEST / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        return {
            "n": moment.number,
            "t": round(moment.stamp, 4),
            "size": size,
            "picture": _encode(fit(moment.frame, size), "JPEG", _JPEG),
            "objects": {self._places.of(shown.name): _object(shown, size) for shown in moment.objects},
            **({} if moment.depth is None else {"depth": _encode(_grey(fit(moment.depth, size)), "JPEG", _JPEG)}),
            "figures": _rounded(moment.figures),
        }


def _object(shown: Shown, size: tuple[int, int]) -> dict[str, Any]:
    whole = fit(shown.whole, size)
    described: dict[str, Any] = {"whole": encode_rle(whole)["counts"]}
    if shown.note:
        described["note"] = shown.note
    if shown.visible is not None:
        described["visible"] = encode_rle(fit(shown.visible, size))["counts"]
    box = box_of(whole)
    if shown.completed is not None and box is not None:
        x, y, width, height = box
        rgba = np.dstack([fit(shown.completed, size), whole.astype(np.uint8) * np.uint8(255)])
        described["completed"] = [x, y, _encode(rgba[y : y + height, x : x + width], "WEBP", _WEBP)]
    return described


def _grey(depth: NDArray[Any]) -> NDArray[np.uint8]:
    """Returns depth as grey levels uint8 [h, w], nearer is lighter; unknown depth is black."""
    known = np.isfinite(depth)
    if not known.any():
        return np.zeros(depth.shape, np.uint8)
    least, most = (float(one) for one in (depth[known].min(), depth[known].max()))
    scaled = (np.where(known, depth, least) - least) / ((most - least) or 1.0)
    return np.rint(255 * scaled).astype(np.uint8)


def _encode(picture: NDArray[np.uint8], kind: str, quality: int) -> str:
    """Returns a picture as a `data:` address."""
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(picture)).save(file, kind, quality=quality)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode('ascii')}"


def _rounded(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Returns figures with four digits; null for those that are no numbers, which JSON cannot hold."""
    return {name: float(f"{value:.4g}") if np.isfinite(value) else None for name, value in figures.items()}
