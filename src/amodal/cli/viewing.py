"""--view and --html, for every command that has pictures to look at."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import combined

if TYPE_CHECKING:
    from amodal.viewing.view import Views

view_options = combined(
    click.option(
        "--view",
        type=click.Choice(["rerun", "rerun:live"]),
        help="Also write view.rrd, a recording for rerun's viewer; or show it in a window (needs pip install "
        '"amodal[view]").',
    ),
    click.option("--html", is_flag=True, help="Also write view.html, a page with a player that any browser shows."),
)


def check_views(options: Mapping[str, Any]) -> None:
    """Raises `MissingDependencyError` for a view whose library is missing; call it before the networks run."""
    from amodal.viewing.opening import require_views

    require_views(options.get("view"))


def views_of(options: Mapping[str, Any], folder: Path, what: str) -> Views:
    """Opens the views that the options ask for, and that write to `folder`; `what` is shown, in the title."""
    from amodal.viewing.opening import open_views

    return open_views(folder, options.get("view"), bool(options.get("html")), f"amodal: {Path(what).name}")


def view_files(options: Mapping[str, Any]) -> list[str]:
    """Returns the names of the files that views write."""
    from amodal.viewing.opening import PAGE, RECORDING

    return [RECORDING] * (options.get("view") == "rerun") + [PAGE] * bool(options.get("html"))
