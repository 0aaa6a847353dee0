"""Plots as SVG elements of the page: they use its fonts and its colours, light or dark, and no id occurs twice."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from amodal.runtime.errors import MissingDependencyError

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

Canvas: TypeAlias = "matplotlib.figure.Figure"
Axes: TypeAlias = "matplotlib.axes.Axes"

WIDTH = 4.7
"""Inches. On a phone the plot is about as many pixels wide as it has points, so 9 pt stays legible."""
INK, MUTED, GRID, PAPER = "#1b1b1f", "#6b6b76", "#d9d9e0", "#fdfdfe"
SERIES = ("#2f6fb3", "#d9822b", "#3d9970", "#8a63b8", "#c8505a", "#2a9db0", "#9a8f2e", "#8a8a94")
_NAMES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"} | {c: f"c{i}" for i, c in enumerate(SERIES)}
_COMPONENTS = ("unet", "vae_encoder", "vae_decoder", "image_encoder", "unet_conditioner", "depth", "load")
_COLOURS = dict(zip(_COMPONENTS, SERIES, strict=False))


def series(index: int) -> str:
    """Colour of the i-th series."""
    return SERIES[index % len(SERIES)]


def component_colour(component: str) -> str:
    """Colour of a component, the same in all plots and stages."""
    return _COLOURS.get(component.rpartition("/")[2], SERIES[-1])


def label(text: str, limit: int = 46) -> str:
    """One line of at most `limit` characters, without control characters, which XML forbids."""
    clean = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def require_libraries(*names: str) -> None:
    """Raises `MissingDependencyError` unless all libraries can be imported."""
    for name in names:
        try:
            import_module(name)
        except ImportError as error:
            raise MissingDependencyError(
                f'The report needs {name}, which cannot be imported ({error}); `pip install "amodal[bench]"`.'
            ) from error


@contextmanager
def styled_canvas() -> Iterator[Canvas]:
    """A figure in the style of the report; draw and save it inside the block."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(fname=Path(__file__).with_name("plots.mplstyle")):
        yield Figure(figsize=(WIDTH, WIDTH), layout="constrained")


def draw_svg(plot: Callable[[Canvas], None], prefix: str) -> str:
    """Draws a plot as an `<svg>` element; `prefix` makes its ids unique on the page."""
    buffer = io.StringIO()
    empty = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with styled_canvas() as canvas, warnings.catch_warnings():
        plot(canvas)
        # matplotlib measures a letter that its font lacks as a box; the reader's browser has it.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        canvas.savefig(buffer, format="svg", transparent=True, metadata=empty)
    svg = "<svg" + buffer.getvalue().partition("<svg")[2]
    svg = re.sub(r"<defs>\s*<style[^>]*>[^<]*</style>\s*</defs>", "", svg)
    svg = svg.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "").replace("xlink:href=", "href=")
    for colour, name in _NAMES.items():
        svg = svg.replace(colour, f"var(--{name})")
    svg = re.sub(r"\n\s*", "\n", svg)
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", svg)
    return re.sub(r'(url\(|href=")#', rf"\g<1>#{prefix}", svg)


def scatter_clips(axes: Axes, values: Sequence[float], centre: float, height: float, **style: Any) -> None:
    """One dot per clip in a band around `centre`."""
    # Golden-ratio steps separate neighbours and are the same in every rendering.
    offsets = (np.arange(len(values)) * 0.618034) % 1 * height - height / 2
    axes.scatter(values, centre + offsets, alpha=0.55, linewidths=0, **style)


def log_scale(axes: Axes, which: str) -> None:
    """Makes axis `x` or `y` logarithmic, with plain numbers rather than powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = sorted(axis.get_view_interval())
    narrow = high / max(low, 1e-300) < 100
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if narrow else (1,), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("e-0", "e-")))
    axis.set_minor_formatter(NullFormatter())


def legend_below(canvas: Canvas, handles: Sequence[Any], names: Sequence[str], columns: int = 3) -> None:
    """A legend under the axes; matplotlib would leave out names that begin with an underscore."""
    shown = [label(name).replace("_", "\u200b_", 1) if name.startswith("_") else label(name) for name in names]
    canvas.legend(handles, shown, loc="outside lower center", ncols=columns, handlelength=1.2, columnspacing=1.2)
