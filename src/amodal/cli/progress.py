"""Progress on standard error, so that standard output stays for results; nothing where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from amodal.runtime.progress import Progress as Report
from amodal.runtime.progress import silent


class Watcher:
    """Standard error as a terminal that somebody watches, or not."""

    def __init__(self, quiet: bool) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.hidden = quiet or not self.console.is_terminal
        self.console.quiet = self.hidden  # before rich 15, bars that are disabled end with an empty line

    @contextmanager
    def doing(self, what: str = "") -> Iterator[Report]:
        """Shows what is being done; yields what reports that it is something else now."""
        if self.hidden:
            yield silent
            return
        with self.console.status(what) as status:

            def report(what: str, phase: str = "", done: int = 0, total: int | None = None) -> None:
                status.update(f"{what}: {phase}" if phase else what)

            yield report

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """A bar over things; yields what is to be called after each."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, disable=self.hidden, transient=True) as bars:
            task = bars.add_task(what, total=total)
            yield lambda: bars.advance(task)


class StageBars:
    """A run's progress: one bar per stage over the sampler's steps, and what is being done beside it.

    Args:
        steps: of each sample.
        samples: that `segment` draws, one after the other, in one bar.
    """

    def __init__(self, watcher: Watcher, steps: int, samples: int = 1) -> None:
        self._steps, self._samples, self._sample = steps, samples, 0
        self._task: TaskID | None = None
        self._bars = Progress(
            TextColumn("{task.description:<8}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[phase]:<22}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=watcher.console,
            disable=watcher.hidden,
        )

    @contextmanager
    def show(self, stages: Sequence[str]) -> Iterator[None]:
        """Shows the bars of `stages`, until the block ends."""
        with self._bars:
            for name in stages:
                total = self._steps * (self._samples if name == "segment" else 1)
                self._bars.add_task(name, total=total, phase="", start=False)
            yield
            self._phase("done")

    def stage(self, name: str) -> Callable[[int, float, Any], None]:
        """Goes on to a stage; returns the sampler's callback."""
        self._phase("done")
        self._sample = 0
        self._task = next((task.id for task in self._bars.tasks if task.description == name), None)
        if self._task is not None:
            self._bars.start_task(self._task)
        return self._step

    def component(self, what: str, phase: str = "", done: int = 0, total: int | None = None) -> None:
        """See `amodal.runtime.progress.Progress`; `what` is a component's kind."""
        self._phase(what if phase == "run" else f"{phase} {what}")

    def writing(self) -> None:
        """The stages are through, and the results are being written."""
        self._phase("writing")

    def _step(self, index: int, sigma: float, _: Any) -> None:
        self._sample += index == 0
        if self._task is not None:
            several = self._bars.tasks[self._task].total != self._steps
            what = f"{self._sample} of {self._samples}" if several else "unet"
            done = (self._sample - 1) * self._steps + index + 1
            self._bars.update(self._task, completed=done, phase=f"{what}, sigma {sigma:.3g}")

    def _phase(self, what: str) -> None:
        if self._task is not None:
            self._bars.update(self._task, phase=what)
            if what == "done":
                self._bars.stop_task(self._task)


class ComponentLines:
    """Progress over components, one after the other: a line each, with a bar where it is known how much there is.

    One that is `shared` with an earlier one leaves no line.
    """

    def __init__(self, watcher: Watcher) -> None:
        self._name, self._current = "", None  # type: tuple[str, TaskID | None]
        self._bars = Progress(
            TextColumn("{task.description:<25}"),
            SpinnerColumn(finished_text=" "),
            BarColumn(),
            TextColumn("{task.fields[phase]:<9}"),
            TimeElapsedColumn(),
            console=watcher.console,
            disable=watcher.hidden,
        )

    @contextmanager
    def show(self) -> Iterator[ComponentLines]:
        """Shows the lines, until the block ends."""
        with self._bars:
            yield self
            self._finish()

    def __call__(self, what: str, phase: str = "", done: int = 0, total: int | None = None) -> None:
        """See `amodal.runtime.progress.Progress`; `what` is the component."""
        if what != self._name or self._current is None:
            self._finish()
            self._name, self._current = what, self._bars.add_task(what, total=None, phase=phase)
        if phase == "shared":
            self._bars.remove_task(self._current)
            self._current = None
        else:
            self._bars.update(self._current, phase=phase, completed=done, total=total)

    def _finish(self) -> None:
        if self._current is not None:
            kept = self._bars.tasks[-1].fields["phase"] == "kept"
            self._bars.update(self._current, completed=1, total=1, phase="kept" if kept else "done")
