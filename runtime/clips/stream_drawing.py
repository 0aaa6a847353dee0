"""What a stream asks of whoever draws its objects: families differ in nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..pictures.images import Size
from ..pictures.objects import ObjectId
from .gate import Judgement
from .stream_frames import Frame


class Drawn(NamedTuple):
    """An object in a frame: its whole mask, bool [h, w], and the IoU that the network expects of it, if it does."""

    mask: NDArray[np.bool_]
    iou: float | None = None


class Drawing(Protocol):
    """Draws the objects of a stream in windows of its newest frames; used by one thread at a time.

    Attributes:
        frames: T, most frames of a window for which something is drawn.
        reach: how many of the newest frames a window sees, T or more.
        depth_size: (H, W) at which it takes depth; None if it takes none and draws from the pictures.
        computes_depth: whether frames without depth have it computed from their pictures.
    """

    @property
    def frames(self) -> int: ...  # noqa: D102

    @property
    def reach(self) -> int: ...  # noqa: D102

    @property
    def depth_size(self) -> Size | None: ...  # noqa: D102

    @property
    def computes_depth(self) -> bool: ...  # noqa: D102

    def begin_anew(self) -> None:
        """Forgets the frames so far, after a gap in time; the stream has forgotten all objects then."""
        ...

    def take_in(self, frame: Frame) -> None:
        """Prepares a frame; each once, in order, before any object in it."""
        ...

    def see(self, object_id: ObjectId, frame: Frame) -> None:
        """Remembers what is seen of an object in a frame that was taken in; the first time is its birth."""
        ...

    def forget(self, object_id: ObjectId) -> None:
        """Forgets an object, which has ended."""
        ...

    def look(self, frames: Sequence[Frame], objects: Iterable[ObjectId]) -> StreamWindow:
        """Looks at the newest frames, at most `reach`, all taken in, and at these objects in them."""
        ...


class StreamWindow(Protocol):
    """The newest frames, and the objects in them.

    Attributes:
        numbers: of its frames.
    """

    @property
    def numbers(self) -> range: ...  # noqa: D102

    def is_needed(self, object_id: ObjectId, first: int) -> bool:
        """Returns whether the networks are needed for an object in one of the frames from number `first` on."""
        ...

    def is_seen(self, object_id: ObjectId) -> bool:
        """Returns whether an object is seen in one of the frames."""
        ...

    def judgement(self, object_id: ObjectId, number: int) -> Judgement | None:
        """Returns what the gate says of an object in a frame; None without a gate."""
        ...

    def prepare(self) -> None:
        """Does what all objects share, before the first is drawn and its time is taken."""
        ...

    def draw(self, objects: Sequence[ObjectId], steps: int) -> None:
        """Draws objects.

        Raises:
            NonFiniteError: latents, pictures or logits became NaN or infinite.
        """
        ...

    def whole(self, object_id: ObjectId, frame: Frame) -> Drawn | None:
        """Returns an object in a frame as this window, or one before, has drawn it; None if none did."""
        ...
