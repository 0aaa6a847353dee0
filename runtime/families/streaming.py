"""Opens streams over bundles of the families that have them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

from ..clips.stream import Stream
from ..errors import InputError
from ..execution.session import Session
from . import Bundle


@runtime_checkable
class Streaming(Protocol):
    """What a family has, besides `amodal.runtime.execution.family.Family`, if its objects can be found in streams."""

    def open_stream(self, session: Session, options: Mapping[str, Any]) -> Stream:
        """Opens a stream.

        Args:
            options: those of `Model.stream` that were given, by name.

        Raises:
            InputError: an option is out of range, or has no meaning for the bundle.
            MemoryBudgetError: a window of one object would take more GPU memory than allowed.
        """
        ...


def open_stream(bundle: Bundle, session: Session, options: Mapping[str, Any]) -> Stream:
    """Runs `Model.stream`.

    Raises:
        InputError: the bundle's family has no streams; otherwise as `Streaming.open_stream`.
    """
    if not isinstance(bundle.family, Streaming):
        raise InputError(
            f"{bundle.path} is of the family {bundle.manifest.family}, which has no streams; use `run` with one of its "
            f"tasks, {', '.join(bundle.manifest.tasks)}."
        )
    return bundle.family.open_stream(session, options)
