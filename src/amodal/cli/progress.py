"""Progress on standard error: bars on a terminal, a line every few seconds elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from amodal.runtime.progress import Progress as Report

from . import lines
from .console import human_bytes
from .lines import Lines


def hidden(quiet: bool) -> bool:
    """Whether no bars are shown."""
    return quiet or not Console(stderr=True).is_terminal


def _bars(quiet: bool, *columns: ProgressColumn, transient: bool = False) -> Progress:
    console = Console(stderr=True, highlight=False)
    console.quiet = hidden(quiet)  # before rich 15, bars that are disabled end with an empty line
    return Progress(*columns, console=console, disable=console.quiet, transient=transient)


def _lines(quiet: bool) -> Lines:
    """Returns what prints progress as lines; nothing if it is quiet, or shown as bars."""
    return Lines(math.inf if quiet or not hidden(quiet) else lines.EVERY)


@contextmanager
def activity(quiet: bool, name: str = "") -> Iterator[Report]:
    """Shows one line until the block ends; yields a function that updates it."""
    columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    printed = _lines(quiet)
    with _bars(quiet, *columns, TimeElapsedColumn(), transient=True) as bars, printed.running():
        task = bars.add_task(name, total=None)
        printed.begin(name)

        def report(what: str, phase: str = "", done: int = 0, total: int | None = None) -> None:
            text = ": ".join(part for part in (what, phase) if part)
            bars.update(task, description=": ".join(part for part in (name, text) if part), completed=done, total=total)
            printed.update(_with_share(text, done, total), done, total)

        yield report


@contextmanager
def counting(quiet: bool, name: str) -> Iterator[Report]:
    """Shows how many of many things are done, and when the rest will be; yields a function that updates it."""
    times = (TimeElapsedColumn(), TimeRemainingColumn(elapsed_when_finished=True))
    printed = _lines(quiet)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), *times)
    with _bars(quiet, *columns, TextColumn("{task.fields[note]}")) as bars, printed.running():
        task = bars.add_task(name, total=None, note="")
        printed.begin(name)

        def report(what: str, phase: str = "", done: int = 0, total: int | None = None) -> None:
            bars.update(task, completed=done, total=total, note=what)
            printed.update(", ".join(part for part in (f"{done} of {total}", what, phase) if part), done, total)

        yield report


def _with_share(text: str, done: int, total: int | None) -> str:
    return " ".join(part for part in (text, f"{done / total:.0%}" if total else "") if part)


@contextmanager
def component_lines(quiet: bool) -> Iterator[Report]:
    """Shows a line per component, with a bar where the total is known; yields a function that updates them.

    A component that is `shared` with an earlier one gets no line.
    """
    texts = [TextColumn("{task.description:<25}"), TextColumn("{task.fields[size]:>9} {task.fields[phase]:<9}")]
    columns = (texts[0], SpinnerColumn(finished_text=" "), BarColumn(), texts[1], TimeElapsedColumn())
    name, current = "", None  # type: tuple[str, TaskID | None]

    printed = _lines(quiet)
    with _bars(quiet, *columns) as bars, printed.running():

        def finish() -> None:
            if current is not None:
                kept = bars.tasks[-1].fields["phase"] == "kept"
                bars.update(current, completed=1, total=1, phase="kept" if kept else "done")

        def report(what: str, phase: str = "", done: int = 0, total: int | None = None) -> None:
            nonlocal name, current
            if what != name or current is None:
                finish()
                name, current = what, bars.add_task(what, total=None, phase=phase, size="")
                printed.begin(what)
            printed.update(_with_share(phase, done, total), done, total)
            if phase == "shared":
                bars.remove_task(current)
                current = None
            else:
                bars.update(current, phase=phase, completed=done, total=total)
                if total is not None:
                    bars.update(current, size=human_bytes(total))

        yield report
        finish()


class StageBars:
    """A run's progress: one bar per stage over the sampler's steps, with the current phase beside it.

    Args:
        steps: per sample.
        samples: number of samples that `segment` draws, one after the other, in one bar.
    """

    def __init__(self, quiet: bool, steps: int, samples: int = 1) -> None:
        self._steps, self._samples, self._sample = steps, samples, 0
        self._task: TaskID | None = None
        self._lines = _lines(quiet)
        phase = TextColumn("{task.fields[phase]:<22}")
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        self._bars = _bars(quiet, TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), phase, *times)

    @contextmanager
    def show(self, stages: Sequence[str]) -> Iterator[None]:
        """Shows the bars of `stages` until the block ends."""
        with self._bars, self._lines.running():
            for name in stages:
                total = self._steps * (self._samples if name == "segment" else 1)
                self._bars.add_task(name, total=total, phase="", start=False)
            yield
            self.phase("done")

    def stage(self, name: str) -> Callable[[int, float, Any], None]:
        """Starts the bar of a stage; returns the sampler's callback."""
        self.phase("done")
        self._sample = 0
        self._lines.begin(name)
        self._task = next((task.id for task in self._bars.tasks if task.description == name), None)
        if self._task is not None:
            self._bars.start_task(self._task)
        return self._step

    def component(self, what: str, phase: str = "", done: int = 0, total: int | None = None) -> None:
        """Implements `amodal.runtime.progress.Progress`; `what` is a component's kind."""
        self.phase(what if phase == "run" else f"{phase} {what}")

    def _step(self, index: int, sigma: float, _: Any) -> None:
        self._sample += index == 0
        if self._task is not None:
            total = int(self._bars.tasks[self._task].total or 0)
            what = f"{self._sample} of {self._samples}" if total != self._steps else "unet"
            done = (self._sample - 1) * self._steps + index + 1
            self._bars.update(self._task, completed=done, phase=f"{what}, sigma {sigma:.3g}")
            self._lines.update(f"step {done} of {total}", done, total)

    def phase(self, what: str) -> None:
        """Shows what is being done, until the next call; "done" ends the stage."""
        if self._task is not None:
            self._bars.update(self._task, phase=what)
            self._lines.update(what)
            if what == "done":
                self._bars.stop_task(self._task)


class ClipBars:
    """The progress of a long clip: a bar per stage over the steps of all its blocks and objects, and what is done now.

    Use it as a context manager. A bar begins where a run that is resumed begins.
    """

    def __init__(self, quiet: bool) -> None:
        self._lines = _lines(quiet)
        self._task: TaskID | None = None
        self._name = ""
        self._undo = ExitStack()
        phase = TextColumn("{task.fields[phase]:<40}")
        times = (TimeElapsedColumn(), TimeRemainingColumn())
        self._bars = _bars(quiet, TextColumn("{task.description:<8}"), BarColumn(), MofNCompleteColumn(), phase, *times)

    def __enter__(self) -> ClipBars:
        with self._undo:
            self._undo.enter_context(self._bars)
            self._undo.enter_context(self._lines.running())
            self._undo = self._undo.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._finish()
        self._undo.close()

    def begin(self, stage: str) -> None:
        """Begins a stage."""
        self._finish()
        self._name = stage
        self._lines.begin(stage)

    def component(self, what: str, phase: str = "", done: int = 0, total: int | None = None) -> None:
        """Implements `amodal.runtime.progress.Progress` for a component, and for files that are read."""
        if phase != "run":  # the step that runs it says more
            self.phase(f"{phase} {what}" if total is None else _with_share(f"{phase} {what}", done, total))

    def report(self, what: str, phase: str = "", done: int = 0, total: int | None = None) -> None:
        """Implements `Progress` for the steps of a stage."""
        if self._task is None:
            self._task = self._bars.add_task(self._name, total=total, completed=max(done - 1, 0), phase="")
        self._bars.update(self._task, completed=done, total=total, phase=phase)
        self._lines.update(phase, done, total)

    def phase(self, what: str) -> None:
        """Shows what is being done beside the steps."""
        if self._task is not None:
            self._bars.update(self._task, phase=what)
        self._lines.note(what)

    def _finish(self) -> None:
        if self._task is not None:
            self._bars.update(self._task, phase="done")
            self._bars.stop_task(self._task)
            self._task = None
