"""What a benchmark's clip is, family by family; of one without a module here it is every task's trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Protocol, cast

from amodal.runtime.execution.run import Run
from amodal.runtime.model import Model

from ..schema import Work

_MODULES = {"diffusion-vas": "amodal.bench.families.diffusion_vas"}


class ClipMaker(Protocol):
    """A module of this package."""

    def run_of(self, work: Work, model: Model | None = None) -> Run:
        """A clip's run: as a loaded model makes it; None for engines."""
        ...

    def tasks_of(self, work: Work, model: Model) -> Iterator[tuple[str, Callable[[], object]]]:
        """The tasks of a clip, each with what runs it from raw arrays to results on the host, in their order."""
        ...


def clip_maker(family: str) -> ClipMaker:
    """What makes the clips of a family."""
    return cast(ClipMaker, import_module(_MODULES.get(family, "amodal.bench.families.trials")))
