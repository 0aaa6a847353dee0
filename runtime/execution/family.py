"""A family of models as generic code sees it: its tasks, the calls that a run makes, and running them.

Memory plans, engine profiles and the cost model of the benchmarks read `Family.calls` and `Family.profiles`; none of
them knows a component by name.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray
from typing_extensions import Self

from ..builds.store import Profile
from ..bundle.manifest import Manifest

if TYPE_CHECKING:
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


@dataclass(frozen=True)
class Trial:
    """A run whose inputs depend on nothing but its seed, to verify and to time with.

    Attributes:
        components: keys of those that must be called; None for all of the task's.
        steps: of an iterative sampler.
        note: called with what is being done.
    """

    components: Collection[str] | None = None
    seed: int = 0
    steps: int = 3
    note: Callable[[str], None] = lambda what: None


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
