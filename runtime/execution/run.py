"""A run's settings, and all its calls of components."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import Any

from typing_extensions import Self

from ..bundle.manifest import Manifest


@dataclass(frozen=True)
class Run:
    """The settings that decide a run's calls and memory; families extend it by their own.

    Attributes:
        tasks: names in order; empty for all of the bundle's.
    """

    tasks: tuple[str, ...] = ()

    @property
    def variant(self) -> str:
        """Name of this variant for messages; empty if there is only one."""
        return ""

    @property
    def pictures(self) -> str:
        """Describes the pictures for people; empty for those of the bundle."""
        return ""

    def variants(self) -> tuple[Self, ...]:
        """Returns the variants that the settings leave open, the fastest first."""
        return (self,)

    def open_variant(self) -> Self:
        """Returns this run with its variant left open."""
        return self

    def smaller(self, manifest: Manifest) -> Iterator[Iterator[tuple[str, Self]]]:
        """Yields runs that need less memory: for each kind of change, pairs of setting and run, the largest first."""
        if len(self.tasks) > 1:
            yield ((f"{task} alone", replace(self, tasks=(task,))) for task in self.tasks)

    def longer(self, manifest: Manifest) -> Iterator[tuple[str, Self]]:
        """Yields runs of longer clips and of several objects, by name, if the family has them."""
        yield from ()

    def beside(self, loaded: Self, resident: bool) -> Self:
        """Adapts this run to a model that was loaded for the run `loaded`.

        Args:
            resident: whether the components of `loaded` stay loaded.

        Raises:
            InputError: the model was loaded for less.
        """
        return replace(self, tasks=loaded.tasks) if resident else self

    def as_json(self) -> dict[str, Any]:
        """Returns a JSON-ready form."""
        return {"shape": {**asdict(self), "tasks": list(self.tasks)}}


@dataclass(frozen=True)
class ComponentCall:
    """Calls of one component with inputs of one shape.

    Attributes:
        component: key in the bundle.
        axes: sizes of the graph's free axes.
        count: number of calls in a run.
        profile: name of the engine's profile for these shapes.
        share: fraction of the profile's recorded activations; below 1 for less than its largest shape.
    """

    component: str
    axes: Mapping[str, int]
    count: int
    profile: str
    share: Fraction = Fraction(1)


@dataclass(frozen=True)
class Phase:
    """A part of a task during which the same arrays are on the device.

    Attributes:
        calls: in order.
        buffers: peak bytes of the arrays outside the networks, by name.
    """

    task: str
    name: str
    calls: tuple[ComponentCall, ...]
    buffers: Mapping[str, int] = field(default_factory=dict)

    @property
    def components(self) -> tuple[str, ...]:
        """Keys of its components, in the order of their first call."""
        return tuple(dict.fromkeys(call.component for call in self.calls))


@dataclass(frozen=True)
class Calls:
    """All calls of a run.

    Attributes:
        run: with its tasks named, and the bundle's defaults filled in.
        estimated: whether it would need engines for other shapes than the bundle's.
    """

    run: Run
    phases: tuple[Phase, ...]
    estimated: bool = False

    @property
    def components(self) -> tuple[str, ...]:
        """Keys of the run's components, in the order of their first call."""
        return tuple(dict.fromkeys(key for phase in self.phases for key in phase.components))
