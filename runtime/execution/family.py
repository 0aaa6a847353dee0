"""The protocol of a family of models: its tasks, the calls of a run, and running them.

Memory plans, engine profiles and the benchmarks' cost model read `Family.calls` and `Family.profiles`, and know no
component by name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from ..builds.store import Profile
from ..bundle.manifest import Manifest
from ..progress import Progress, silent
from .run import Calls, Run
from .session import Session


class Config(Protocol):
    """The fields of every family's `config` in a manifest."""

    @property
    def frames(self) -> int:
        """Number of pictures in one run."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of each picture."""
        ...


@dataclass(frozen=True)
class Trial:
    """A run on inputs made from a seed, for verification and timing.

    Attributes:
        components: keys of those that must be called; None for all of the task's.
        steps: of an iterative sampler.
        progress: called with the task and its phase.
    """

    components: Collection[str] | None = None
    seed: int = 0
    steps: int = 3
    progress: Progress = silent


class Task(Protocol):
    """A task of a family, such as `segment`."""

    def trial(self, session: Session, trial: Trial) -> dict[str, NDArray[Any]]:
        """Runs the task on inputs made from a seed.

        Returns:
            Results by name, on the host: floats are compared by relative L2 difference, bool by IoU, uint8 pictures by
            their levels.

        Raises:
            NonFiniteError: a network's output became NaN or infinite.
        """
        ...


class Family(Protocol):
    """One kind of model, with its own networks and order of calls; `tasks` are by name."""

    tasks: Mapping[str, Task]

    def config(self, manifest: Manifest) -> Config:
        """Validates a manifest's `config`, tasks and components.

        Raises:
            ValueError: a value is missing or out of range (pydantic's `ValidationError` is a subclass).
        """
        ...

    def profiles(self, manifest: Manifest, component: str) -> tuple[Profile, ...]:
        """Returns the shapes that a component's engine must accept: all that `calls` may name."""
        ...

    def calls(self, manifest: Manifest, run: Run | None = None) -> Calls:
        """Lists every call of a run.

        Args:
            run: None for every task of the bundle with its default settings.

        Raises:
            InputError: the bundle lacks a task, or cannot run with these settings.
        """
        ...

    def run(self, task: str, session: Session, inputs: Any) -> Any:
        """Runs a task on the family's own kind of inputs; returns its own kind of result.

        Raises:
            InputError: the bundle lacks the task, or inputs do not fit.
        """
        ...
