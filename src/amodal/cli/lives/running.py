"""Opens what `amodal live` reads and writes, and runs the loop."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

import numpy as np

from amodal.cli.environment import environment_of
from amodal.cli.viewing import check_views, view_files, views_of
from amodal.robots.live.frames import FileFrames, FrameSource, Taken, is_camera, open_source
from amodal.robots.live.loop import LiveLoop
from amodal.robots.live.masks import CommandMasks, FileMasks, MaskSource
from amodal.runtime.errors import AmodalError, InputError, argument
from amodal.runtime.families.diffusion_vas.settings import PRESETS
from amodal.runtime.families.requirements import works_by_picture
from amodal.runtime.files.atomic import staged_folder
from amodal.runtime.files.clip import ClipFiles
from amodal.runtime.files.clip_source import open_clip
from amodal.runtime.files.results import write_json
from amodal.runtime.loading import load
from amodal.runtime.model import Model

from .writing import LiveOutput

MARKER = "result.json"
_LOAD = ("backend", "memory", "vram", "engine_dir", "device", "threads")


def run_live(options: Mapping[str, Any]) -> tuple[dict[str, Any], AmodalError | None]:
    """Runs the loop until the source ends or the user stops it.

    Returns:
        the counts, and what ended the loop after it had results: they are kept then, as hours of them may be.

    Raises:
        InputError: options that do not go together, a source or masks that cannot be opened or fail for good.
    """
    _check(options)
    with ExitStack() as undo:
        folder = None
        if options["out"] is not None:
            inputs = [options[n] for n in ("source", "masks_from", "depth") if options[n] and Path(options[n]).exists()]
            folder = undo.enter_context(staged_folder(options["out"], options["overwrite"], MARKER, inputs))
        masks = open_masks(options)
        undo.callback(masks.close)
        with _stopping() as (stopped, on_stop):
            frames = _Limited(open_source(options["source"], options["rate"]), options["limit"], stopped)
            undo.callback(frames.close)
            on_stop(frames.close)
            model = undo.enter_context(load(options["bundle"], **{name: options[name] for name in _LOAD}))
            summary, failed = _run(options, model, frames, masks, folder)
        if folder is not None:
            write_json(folder / MARKER, {**summary, "files": [*summary["files"], MARKER]})
        return summary, failed


def _run(
    options: Mapping[str, Any], model: Model, frames: _Limited, masks: MaskSource, folder: Path | None
) -> tuple[dict[str, Any], AmodalError | None]:
    given = {name: options[name] for name in ("every", "lookahead", "deadline", "preset", "depth_kind")}
    asked: dict[str, Any] = {} if works_by_picture(model.session) else {"preset": "auto"}
    asked |= {name: value for name, value in given.items() if value is not None}
    with (
        model.stream(**asked) as stream,
        views_of(options, folder or Path(), options["source"]) as views,
        LiveOutput(folder, views, options["as_json"]) as output,
    ):
        first = frames.next()
        if first is not None:
            _warm_up(model, options, first)
            frames.begin_again()
        reach = max(2, stream.options.reach(model.config.frames))
        loop = LiveLoop(stream, frames, masks, output.add, options["deadline"], reach)
        failed: AmodalError | None = None
        try:
            loop.run()
        except AmodalError as error:
            if not loop.tally.results:
                raise
            failed = error
        views.close()
    tally, ages = loop.tally, loop.ages()
    warnings = list(views.notes)
    if tally.refused:
        warnings.append(f"{tally.refused} frames were refused, the last because {tally.reason}")
    if tally.unknown:
        warnings.append(f"{tally.unknown} frames have no masks, since {options['masks_from']} failed and began again.")
    summary = {
        "schema_version": 1,
        "files": [*output.files, *(view_files(options) if folder else [])],
        "source": options["source"],
        **{name: getattr(tally, name) for name in _COUNTS},
        "age_seconds": None if not len(ages) else {f"p{p}": float(np.percentile(ages, p)) for p in (50, 99)},
        **environment_of(options["bundle"], model),
        "error": None if failed is None else str(failed),
        "warnings": warnings,
    }
    return summary, failed


_COUNTS = ("frames", "results", "dropped", "skipped", "unknown", "refused", "late")


def _warm_up(model: Model, options: Mapping[str, Any], first: Taken) -> None:
    """Runs everything once, so that the first window is no slower than the next."""
    steps = PRESETS.get(options["preset"], min(PRESETS.values()))
    from_rgb = None if works_by_picture(model.session) else model.config.depth is not None
    model.warm_up(["segment"], frame_size=first.frame.shape[:2], from_rgb=from_rgb, steps=steps)


def open_masks(options: Mapping[str, Any]) -> MaskSource:
    """Opens --masks-from.

    Raises:
        InputError: it cannot be read or started, or does not fit the source.
    """
    given, source = options["masks_from"], options["source"]
    if given == "node":
        raise InputError(
            "masks of a ROS 2 topic are for the node: run `amodal ros2`, which takes frames from topics, too.",
            field="masks_from",
        )
    path = Path(given)
    is_program = path.is_file() and os.access(path, os.X_OK)
    if not path.exists() or is_program:
        if not is_program and shutil.which(given.split()[0] if given.split() else "") is None:
            raise InputError(
                f"{given!r} is neither a file or folder nor a program that can be run; give masks in files, or a "
                "command as in a shell.",
                field="masks_from",
            )
        if options["depth"] is not None:
            raise InputError(
                "--depth is for masks in files; a program answers depth beside its masks, or the bundle computes it.",
                field="depth",
            )
        return CommandMasks(given, options["timeout"])
    if is_camera(source):
        raise InputError(
            f"{given} holds masks of frames in files, and --source {source} is a camera; give a program that is asked "
            "about each frame.",
            field="masks_from",
        )
    with argument("masks_from"):
        files = ClipFiles(source, given, options["depth"], depth_kind=options["depth_kind"])
        return FileMasks(open_clip(files, "all"))


def _check(options: Mapping[str, Any]) -> None:
    check_views(options)
    if options["out"] is None:
        for name, asked in (("--html", options["html"]), ("--view rerun", options["view"] == "rerun")):
            if asked:
                raise InputError(f"{name} writes a file to OUT, which was not given; add -o OUT.", field="out")
        if not options["as_json"] and options["view"] is None:
            raise InputError(
                "nothing would come of the results; give -o OUT, --json or --view rerun:live.", field="out"
            )


class _Limited:
    """A source that ends after some frames, or when the user stops it."""

    def __init__(self, source: FrameSource, limit: int | None, stopped: Callable[[], bool]) -> None:
        self._source, self._limit, self._stopped = source, limit, stopped
        self._taken = 0

    @property
    def dropped(self) -> int:
        return self._source.dropped

    def next(self) -> Taken | None:
        if self._stopped() or self._taken == self._limit:
            return None
        self._taken += 1
        return self._source.next()

    def begin_again(self) -> None:
        """Has files begin anew, since warming up took a while; a camera goes on with what it sees now."""
        self._taken = 0
        if isinstance(self._source, FileFrames):
            self._source.rewind()

    def close(self) -> None:
        self._source.close()


@contextmanager
def _stopping() -> Iterator[tuple[Callable[[], bool], Callable[[Callable[[], None]], None]]]:
    """Yields whether Ctrl-C or SIGTERM came in the block, and a way to say what is then to be called.

    The loop ends after its frame, and everything is written. A second Ctrl-C ends the command at once.
    """
    came: list[int] = []
    calls: list[Callable[[], None]] = []
    if current_thread() is not main_thread():
        yield lambda: bool(came), calls.append
        return

    def stop(number: int, _: object) -> None:
        if came:
            raise KeyboardInterrupt
        came.append(number)
        for call in calls:
            call()

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(came), calls.append
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
