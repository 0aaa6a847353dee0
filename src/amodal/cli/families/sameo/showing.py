"""Hands the pictures of `amodal run` for SAMEO to views."""

from __future__ import annotations

from amodal.viewing.view import Moment, Shown, Views

from .products import Predicted
from .sources import Boxes, Picture, Source

_GUESSED_FPS = 8.0  # of a clip that does not say its own; a page plays it in this rhythm


class Showing:
    """Collects the objects of a picture, and shows it when it ends."""

    def __init__(self, views: Views, source: Source) -> None:
        self._views, self._source, self._shown = views, source, []  # type: Views, Source, list[Shown]
        self._fps = source.fps or (_GUESSED_FPS if source.is_clip else 1.0)

    def add(self, picture: Picture, predicted: Predicted) -> None:
        """Takes objects of a picture."""
        for place, mask, iou in zip(*predicted, strict=True):
            name = self._source.label(int(picture.objects[place]))
            if isinstance(self._source, Boxes):  # the same names in all pictures, since detections are of one alone
                name = f"{name} {int(place) + 1}"
            visible = None if picture.modal is None else picture.modal[place]
            self._shown.append(Shown(name, visible, mask, note=f"expected IoU {float(iou):.2f}"))

    def end(self, picture: Picture) -> None:
        """Shows the picture."""
        self._views.add(Moment(picture.place, picture.place / self._fps, picture.frame, self._shown))
        self._shown = []
