"""A family of models as generic code sees it: its tasks, the calls that a run makes, and running them.

Memory plans, engine profiles and the cost model of the benchmarks read `Family.calls` and `Family.profiles`; none of
them knows a component by name.
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
    """What every family's `config` in a manifest has; the rest is the family's own."""

    @property
    def frames(self) -> int:
        """Pictures that one run takes."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of each."""
        ...


@dataclass(frozen=True)
class Trial:
    """A run whose inputs depend on nothing but its seed, to verify and to time with.

    Attributes:
        components: keys of those that must be called; None for all of the task's.
        steps: of an iterative sampler.
        progress: called with the task, and what of it is being done.
    """

    components: Collection[str] | None = None
    seed: int = 0
    steps: int = 3
    progress: Progress = silent


class Task(Protocol):
    """What a user asks of a family."""

    def trial(self, session: Session, trial: Trial) -> dict[str, NDArray[Any]]:
        """Runs the task on inputs made from a seed.

        Returns:
            Its results by name, on the host: floats are compared by their relative L2 difference, bool by IoU, uint8
            pictures by their levels.

        Raises:
            NonFiniteError: a network's output became NaN or infinite.
        """
        ...


class Family(Protocol):
    """One kind of model, with its own networks and order of calls.

    Attributes:
        tasks: by name.
    """

    tasks: Mapping[str, Task]

    def config(self, manifest: Manifest) -> Config:
        """Validates a manifest's `config`, tasks and components.

        Raises:
            ValueError: something is missing or out of range (pydantic's `ValidationError` is one).
        """
        ...

    def profiles(self, manifest: Manifest, component: str) -> tuple[Profile, ...]:
        """The shapes that an engine of a component accepts: all that `calls` may name."""
        ...

    def calls(self, manifest: Manifest, run: Run | None = None) -> Calls:
        """Every call that a run makes.

        Args:
            run: None for every task of the bundle, with the settings that it runs with by default.

        Raises:
            InputError: a task that the bundle lacks, or settings that it cannot serve.
        """
        ...

    def run(self, task: str, session: Session, inputs: Any) -> Any:
        """Runs a task on inputs of the family's own kind; returns the family's own result.

        Raises:
            InputError: a task that the bundle lacks, or inputs that do not fit.
        """
        ...
