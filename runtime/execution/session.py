"""A loaded model's components, and the memory budget that each run must keep."""

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
    """The memory that a model was loaded for; see `amodal.runtime.memory.choice.Planned`."""

    def fit_to_budget(self, run: Run) -> Any: ...  # noqa: D102


@dataclass(frozen=True)
class Session:
    """What a family runs its tasks with; `planned` is None if no GPU memory is planned."""

    components: Components
    planned: Budget | None = None

    @property
    def backend(self) -> Backend:
        """The backend of the components."""
        return self.components.backend

    @property
    def bundle(self) -> Bundle:
        """The bundle of the components."""
        return self.components.bundle

    @property
    def manifest(self) -> Manifest:
        """The bundle's manifest."""
        return self.bundle.manifest


def components_of(bundle: Bundle, task: str) -> dict[str, str]:
    """Returns the bundle's key of each component of a task, by its role.

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
