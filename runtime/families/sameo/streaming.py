"""Opens streams over the networks of a bundle, which look at each frame by itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...clips.stream import Stream
from ...clips.stream_options import StreamOptions
from ...clips.stream_pictures import FindMasks, SinglePictures
from ...errors import InputError
from ...execution.session import Session
from .config import TASK
from .encoding import Encoding, encoding_of
from .predicting import Options
from .segmenting import Bools, from_visible
from .shape import PictureRun

_OWN = ("every", "deadline", "forget")
_NO_DEPTH = "and this stream uses no depth"
_UNUSED = {
    "lookahead": "later frames add nothing",
    "windows": "there are no windows of several",
    "gate": f"the gate needs depth, {_NO_DEPTH}",
    "depth_kind": f"it is about depth, {_NO_DEPTH}",
}
"""Why options of other families mean nothing here, in words that follow on that each frame is drawn by itself."""


def open_stream(session: Session, options: Mapping[str, Any]) -> Stream:
    """Opens a stream; see `Model.stream`."""
    usual = StreamOptions(every=1, lookahead=0, gate=None)
    own = {name: options[name] for name in _OWN if name in options}
    clock = {"clock": options["clock"]} if "clock" in options else {}
    for name, value in options.items():
        if name not in (*own, *clock) and value != getattr(usual, name, None):
            why = _UNUSED.get(name, "there is no sampler to set")
            raise InputError(
                f"`{name}`: a SAMEO bundle draws each frame by itself, so that {why}; omit it.", field=name
            )
    given = StreamOptions(every=own.pop("every", 1), lookahead=0, gate=None, steps=(1,), **own)
    if session.planned is not None:
        session.planned.fit_to_budget(PictureRun((TASK,), boxes=1))
    return Stream(SinglePictures(partial(_read, session)), given, **clock)


def _read(session: Session, picture: NDArray[np.uint8]) -> FindMasks:
    """Encodes a picture; see `amodal.runtime.clips.stream_pictures.ReadPicture`."""
    session.components.start_timing()
    return partial(_find, session, encoding_of(session, picture))


def _find(session: Session, encoding: Encoding, visible: Bools) -> tuple[Bools, NDArray[np.float32]]:
    found = from_visible(session, encoding, visible, 0, False, None, Options())
    return found.masks, found.iou
