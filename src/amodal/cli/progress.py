"""Progress on standard error, so that standard output stays for results; nothing where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class Watcher:
    """Standard error as a terminal that somebody watches, or not."""

    def __init__(self, quiet: bool) -> None:
        self.console = Console(stderr=True, highlight=False)
        self.hidden = quiet or not self.console.is_terminal
        self.console.quiet = self.hidden  # before rich 15, bars that are disabled end with an empty line

    @contextmanager
    def doing(self, what: str = "") -> Iterator[Callable[[str], None]]:
        """Says what is being done; yields what is to be told when that is something else."""
        if self.hidden:
            yield lambda what: None
        else:
            with self.console.status(what) as status:
                yield status.update

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[], None]]:
        """A bar over things; yields what is to be called after each."""
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, disable=self.hidden, transient=True) as bars:
            task = bars.add_task(what, total=total)
            yield lambda: bars.advance(task)

    @contextmanager
    def reading(self, what: str, total_bytes: int) -> Iterator[Callable[[int], None]]:
        """A bar over bytes; yields what is to be told of each further piece."""
        columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
        with Progress(*columns, console=self.console, disable=self.hidden, transient=True) as bars:
            task = bars.add_task(what, total=total_bytes)
            yield lambda count: bars.advance(task, count)


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

    def component(self, kind: str, what: str) -> None:
        """See `amodal.runtime.execution.components.Watch`."""
        self._phase(kind if what == "run" else f"{what} {kind}")

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


class _Lines:
    """Progress over components, one after the other: a line each, its name, `columns` and the time it takes."""

    def __init__(self, watcher: Watcher, *columns: ProgressColumn) -> None:
        self._current: TaskID | None = None
        self._bars = Progress(
            TextColumn("{task.description:<25}"),
            *columns,
            TimeElapsedColumn(),
            console=watcher.console,
            disable=watcher.hidden,
        )

    @contextmanager
    def show(self) -> Iterator[None]:
        """Shows the lines, until the block ends."""
        with self._bars:
            yield
            self._finish()

    def _start(self, component: str, phase: str, total: int | None) -> None:
        self._finish()
        self._current = self._bars.add_task(component, total=total, phase=phase)

    def _finish(self) -> None:
        if self._current is not None:
            self._bars.update(self._current, phase="done")
            self._bars.stop_task(self._current)


class ExportBars(_Lines):
    """An export's progress, one bar per component; see `amodal.export.bundle.Progress`."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__(watcher, BarColumn(), DownloadColumn(), TextColumn("{task.fields[phase]:<7}"))

    def start(self, component: str) -> None:
        """See `Progress`."""
        self._start(component, "read", total=None)

    def phase(self, what: str, total_bytes: int | None = None) -> None:
        """See `Progress`."""
        if self._current is None:
            return
        if what == "shared":
            self._bars.remove_task(self._current)
            self._current = None
        else:
            self._bars.update(self._current, phase=what, total=total_bytes)

    def advance(self, count: int) -> None:
        """See `Progress`."""
        if self._current is not None:
            self._bars.advance(self._current, count)


class BuildBars(_Lines):
    """A build's progress: what is being built, and for how long; see `amodal.engines.build.Progress`."""

    def __init__(self, watcher: Watcher) -> None:
        super().__init__(watcher, SpinnerColumn(finished_text=" "), TextColumn("{task.fields[phase]:<9}"))

    def start(self, component: str) -> None:
        """See `Progress`."""
        self._start(component, "check", total=1)

    def phase(self, what: str) -> None:
        """See `Progress`."""
        if self._current is not None:
            self._bars.update(self._current, phase=what)

    def _finish(self) -> None:
        if self._current is not None:
            kept = self._bars.tasks[-1].fields["phase"] == "kept"
            self._bars.update(self._current, completed=1, phase="kept" if kept else "done")
