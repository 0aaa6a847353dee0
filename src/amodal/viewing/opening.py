"""From what a user asks for to views."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Literal

from .html_view import HtmlView
from .rerun_view import RerunView, require_rerun
from .view import View, Views

Wish = Literal["rerun", "rerun:live"]
RECORDING, PAGE = "view.rrd", "view.html"


def require_views(view: Wish | None) -> None:
    """Raises `MissingDependencyError` for a view whose library is missing; cheap, so call it before any work."""
    if view is not None:
        require_rerun()


def open_views(folder: Path, view: Wish | None, html: bool, title: str) -> Views:
    """Opens the views that are asked for.

    Args:
        folder: where their files are written, named by `RECORDING` and `PAGE`; it exists.
        view: `rerun` for a file, `rerun:live` for a window.
        html: whether a page is written.
        title: of the window and the page.

    Raises:
        MissingDependencyError: rerun-sdk is not installed.
        BackendError: the window cannot be opened.
    """
    with ExitStack() as undo:
        views: list[View] = []
        if view is not None:
            views.append(RerunView(folder / RECORDING if view == "rerun" else None, title))
            undo.callback(views[-1].close)
        if html:
            views.append(HtmlView(folder / PAGE, title))
        undo.pop_all()
    return Views(views)
