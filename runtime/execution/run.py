"""What a run is made of: the tasks that it runs, and every call that it makes of the components."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any

from typing_extensions import Self

from ..bundle.manifest import Manifest


@dataclass(frozen=True)
class Run:
    """What of a run decides its calls and its memory. A family whose runs differ in more extends it.

    Attributes:
        tasks: those that run, in their order; empty for all of the bundle's.
    """

    tasks: tuple[str, ...] = ()

    @property
    def variant(self) -> str:
        """What tells this variant from others in a message; empty where there is one."""
        return ""

    @property
    def pictures(self) -> str:
        """What pictures it is of, for people; empty for the bundle's."""
        return ""

    def variants(self) -> tuple[Self, ...]:
        """The ways to make this run's calls that its settings leave open, the fastest first."""
        return (self,)

    def open_variant(self) -> Self:
        """This run with its variant left open again."""
        return self

    def smaller(self, manifest: Manifest) -> Iterator[Iterator[tuple[str, Self]]]:
        """Runs that need less memory: by kind of change, the setting to ask for and the run, the largest first."""
        if len(self.tasks) > 1:
            yield ((f"{task} alone", replace(self, tasks=(task,))) for task in self.tasks)

    def beside(self, loaded: Self, resident: bool) -> Self:
        """This run on a model that was loaded for another.

        Args:
            resident: whether components of the run that the model was loaded for stay loaded.

        Raises:
            InputError: the model was loaded for less.
        """
        return replace(self, tasks=loaded.tasks) if resident else self

    def as_json(self) -> dict[str, Any]:
        """Plain form."""
        return {"shape": {**asdict(self), "tasks": list(self.tasks)}}


@dataclass(frozen=True)
class ComponentCall:
    """Calls of one component with inputs of one shape.

    Attributes:
        component: key in the bundle.
        axes: sizes of the graph's free axes.
        count: how many of them a run makes.
        profile: name of the engine's profile that serves them.
        share: of the activations that the profile is recorded with; below 1 for less than its largest shape.
    """

    component: str
    axes: Mapping[str, int]
    count: int
    profile: str
    share: Fraction = Fraction(1)


@dataclass(frozen=True)
class Phase:
    """A part of a task in which the same arrays lie on the device.

    Attributes:
        calls: in their order.
        buffers: bytes of the arrays beside the networks' own, by name, at the moment that takes most.
    """

    task: str
    name: str
    calls: tuple[ComponentCall, ...]
    buffers: Mapping[str, int] = field(default_factory=dict)

    @property
    def components(self) -> tuple[str, ...]:
        """Keys of the components that run in it, in the order of their first call."""
        return tuple(dict.fromkeys(call.component for call in self.calls))


@dataclass(frozen=True)
class Calls:
    """Everything that a run asks of the components.

    Attributes:
        run: with its tasks named, and all else that was left to the bundle filled in.
        estimated: whether engines of other shapes than the bundle's own would be needed.
    """

    run: Run
    phases: tuple[Phase, ...]
    estimated: bool = False

    @property
    def components(self) -> tuple[str, ...]:
        """Keys of the components that the run uses, in the order of their first call."""
        return tuple(dict.fromkeys(key for phase in self.phases for key in phase.components))
