"""What a loaded model runs with: a bundle's components on a backend, and the memory that each run is held to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from ..backends import Backend
from ..bundle.manifest import Manifest
from ..bundle.reading import Bundle
from ..errors import InputError
from .components import Components
from .run import Run


class Budget(Protocol):
    """The memory that a model was loaded for."""

    def fit_to_budget(self, run: Run) -> Any:
        """The run in the fastest variant that fits; see `amodal.runtime.memory.choice.Planned`."""
        ...


@dataclass(frozen=True)
class Session:
    """What a family runs its tasks with.

    Attributes:
        planned: None where no GPU memory is planned.
    """

    components: Components
    planned: Budget | None = None

    @property
    def backend(self) -> Backend:
        """What executes the components."""
        return self.components.backend

    @property
    def bundle(self) -> Bundle:
        """Where they come from."""
        return self.components.bundle

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.components.bundle.manifest


def components_of(bundle: Bundle, task: str) -> dict[str, str]:
    """A task's components: role -> key in the bundle.

    Raises:
        InputError: the bundle was exported without that task.
    """
    entry = bundle.manifest.tasks.get(task)
    if entry is None:
        raise InputError(
            f"bundle {bundle.path} has no {task} stage, only {', '.join(bundle.manifest.tasks)}; export it again with "
            f"`amodal export --{task} CHECKPOINT`."
        )
    return entry.components
