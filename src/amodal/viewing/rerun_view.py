"""Shows moments in rerun's viewer, or writes a recording that it opens (`rerun view.rrd`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from amodal.runtime.errors import BackendError, MissingDependencyError, first_line
from amodal.runtime.files.object_overlay import colour_of

from .view import Moment, Places, Shown

_QUALITY = 85  # of the JPEGs; frames without losses take ten times the room
_OPACITY = 0.5


def require_rerun() -> Any:
    """Returns the module of rerun-sdk.

    Raises:
        MissingDependencyError: it is not installed, or cannot be imported.
    """
    try:
        import rerun
    except ImportError as error:
        raise MissingDependencyError(
            f"showing results in rerun needs rerun-sdk, which cannot be imported ({first_line(error)}); run "
            '`pip install "amodal[view]"`, or write a page that any browser shows: `--html`.'
        ) from error
    return rerun


class RerunView:
    """A recording of rerun.

    Entities: `frame`, `frame/visible` (all objects in one label image), `frame/whole/NAME` (one each, since whole
    objects overlap), `completed/NAME`, `depth` and `figures/NAME`. The timelines are `frame` and `stamp`.

    Args:
        path: the file to write; None to open a window of the viewer.

    Raises:
        MissingDependencyError: rerun-sdk is not installed.
        BackendError: the viewer cannot be started.
    """

    def __init__(self, path: Path | None, title: str) -> None:
        self._rerun = rerun = require_rerun()
        self.name = "" if path is None else path.name
        self._places = Places()
        self._there: set[str] = set()  # of the objects in the moment before
        self._recording = rerun.RecordingStream("amodal")
        self._recording.send_recording_name(title)
        if path is not None:
            self._recording.save(path)
            return
        try:
            with _without_analytics():
                self._recording.spawn(hide_welcome_screen=True)
        except (RuntimeError, OSError) as error:
            raise BackendError(
                f"the window of rerun's viewer cannot be opened ({first_line(error)}); without a display, write a file "
                "with `--view rerun` and open it elsewhere."
            ) from error

    def add(self, moment: Moment) -> None:
        """See `View`."""
        recording, rerun = self._recording, self._rerun
        recording.set_time("frame", sequence=moment.number)
        recording.set_time("stamp", duration=moment.stamp)
        recording.log("frame", rerun.Image(moment.frame).compress(jpeg_quality=_QUALITY))
        before = len(self._places.names)
        places = [self._places.of(shown.name) for shown in moment.objects]
        if len(self._places.names) != before or not before:
            recording.log("/", self._colours(), static=True)
        self._log_masks(moment, places)
        if moment.depth is not None:
            recording.log("depth", rerun.DepthImage(moment.depth))
        for name, value in moment.figures.items():
            recording.log(["figures", name], rerun.Scalars(float(value)))

    def close(self) -> list[str]:
        """See `View`."""
        self._recording.flush()
        self._recording.disconnect()
        return []

    def _log_masks(self, moment: Moment, places: list[int]) -> None:
        """Logs masks explicitly as label images: rerun takes integers for depth otherwise."""
        recording, rerun = self._recording, self._rerun
        labels: NDArray[np.uint16] = np.zeros(moment.frame.shape[:2], np.uint16)
        for place, shown in zip(places, moment.objects, strict=True):
            if shown.visible is not None:
                labels[shown.visible] = place + 1
            whole = shown.whole.astype(np.uint16) * np.uint16(place + 1)
            recording.log(["frame", "whole", shown.name], rerun.SegmentationImage(whole, opacity=_OPACITY))
            if shown.completed is not None:
                recording.log(["completed", shown.name], rerun.Image(_cut_out(shown)))
        recording.log("frame/visible", rerun.SegmentationImage(labels, opacity=_OPACITY))
        there = {shown.name for shown in moment.objects}
        for name in self._there - there:  # else the viewer goes on to show the last one
            recording.log(["frame", "whole", name], rerun.Clear(recursive=False))
            recording.log(["completed", name], rerun.Clear(recursive=False))
        self._there = there

    def _colours(self) -> Any:
        info = self._rerun.AnnotationInfo
        named = [info(place + 1, name, (*colour_of(place), 255)) for place, name in enumerate(self._places.names)]
        return self._rerun.AnnotationContext([info(0, "", (0, 0, 0, 0)), *named])


def _cut_out(shown: Shown) -> NDArray[np.uint8]:
    """Returns RGBA uint8 [h, w, 4] of the whole object alone."""
    assert shown.completed is not None
    return np.dstack([shown.completed, shown.whole.astype(np.uint8) * np.uint8(255)])


@contextmanager
def _without_analytics() -> Iterator[None]:
    """Starts no analytics in a viewer that the block starts: it sends none from a machine of CI."""
    before = os.environ.get("CI")
    os.environ["CI"] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ["CI"]
        else:
            os.environ["CI"] = before
