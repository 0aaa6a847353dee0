"""Plots as SVG elements that belong to the page: its fonts, its colours by day and by night, no identifier twice."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from amodal.runtime.errors import MissingDependencyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.7
"""Inches. On a phone the plot is about as many pixels wide as it has points, so that 9 pt stay legible."""
INK, MUTED, GRID, PAPER = "#1b1b1f", "#6b6b76", "#d9d9e0", "#fdfdfe"
SERIES = ("#2f6fb3", "#d9822b", "#3d9970", "#8a63b8", "#c8505a", "#2a9db0", "#9a8f2e", "#8a8a94")
_NAMES = {INK: "ink", MUTED: "muted", GRID: "grid", PAPER: "paper"} | {c: f"c{i}" for i, c in enumerate(SERIES)}
_COMPONENTS = ("unet", "vae_encoder", "vae_decoder", "image_encoder", "unet_conditioner", "depth", "load")
_STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "amodal",
    # Names of bundles and GPUs may hold dollar signs, which are not mathematics.
    "text.parse_math": False,
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "grid.color": GRID,
    "hatch.color": PAPER,
    "patch.edgecolor": INK,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.4,
}


def series(index: int) -> str:
    """The colour of the i-th thing."""
    return SERIES[index % len(SERIES)]


def colour_of(component: str) -> str:
    """A component has the same colour in all plots, whatever its stage."""
    name = component.rpartition("/")[2]
    return SERIES[_COMPONENTS.index(name)] if name in _COMPONENTS else SERIES[-1]


def label(text: str, limit: int = 46) -> str:
    """Text for a plot: one line without control characters, which XML forbids, and not endless."""
    clean = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"


def require_matplotlib() -> None:
    """Says how to get it where it is missing.

    Raises:
        MissingDependencyError: matplotlib is not installed.
    """
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise MissingDependencyError(
            f'The report needs matplotlib, which cannot be imported ({error}); `pip install "amodal[bench]"`.'
        ) from error


class Canvas:
    """A figure with its axes, in the style of the report.

    Use as `with Canvas(2.5) as (figure, axes): ...` and take `svg` afterwards: the style holds within the block only.
    """

    def __init__(self, height: float, rows: int = 1, columns: int = 1) -> None:
        self.svg = ""
        self._height, self._rows, self._columns = height, rows, columns

    def __enter__(self) -> tuple[Figure, list[Axes]]:
        import matplotlib as mpl
        from matplotlib.figure import Figure

        self._context = mpl.rc_context(_STYLE)  # type: ignore[arg-type]
        self._context.__enter__()
        self._figure = Figure(figsize=(WIDTH, self._height), layout="constrained")
        grid = self._figure.subplots(self._rows, self._columns, squeeze=False)
        return self._figure, list(grid.flat)

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        try:
            if kind is None:
                self.svg = _svg(self._figure)
        finally:
            self._context.__exit__(kind, error, trace)


def bare(axes: Axes) -> None:
    """Takes away the vertical axis, for plots whose rows are named in words."""
    axes.spines["left"].set_visible(False)
    axes.set_yticks([])


def beside(axes: Axes, text: str, x: float, y: float) -> None:
    """Words to the right of the end of a bar."""
    axes.annotate(text, (x, y), (4, 0), textcoords="offset points", va="center", fontsize=8.5, annotation_clip=False)


def plain_log(axes: Axes, which: str = "x") -> None:
    """A logarithmic axis with numbers as people write them."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    if which == "x":
        axes.set_xscale("log")
    else:
        axes.set_yscale("log")
    axis = axes.xaxis if which == "x" else axes.yaxis
    low, high = sorted(axis.get_view_interval())
    narrow = high / max(low, 1e-300) < 100
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if narrow else (1,), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}".replace("e-0", "e-")))
    axis.set_minor_formatter(NullFormatter())


def legend_below(figure: Figure, handles: Sequence[Any], names: Sequence[str], columns: int = 3) -> None:
    """A legend under the axes; names that begin with an underscore would be left out by matplotlib."""
    shown = [label(name).replace("_", "\u200b_", 1) if name.startswith("_") else label(name) for name in names]
    figure.legend(handles, shown, loc="outside lower center", ncols=columns, handlelength=1.2, columnspacing=1.2)


def _svg(figure: Figure) -> str:
    buffer = io.StringIO()
    empty = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with warnings.catch_warnings():
        # A letter that matplotlib's font lacks is measured as a box; the reader's browser has it.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, format="svg", transparent=True, metadata=empty)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<defs>\s*<style[^>]*>[^<]*</style>\s*</defs>", "", text)
    text = text.replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "").replace("xlink:href=", "href=")
    for colour, name in _NAMES.items():
        text = text.replace(colour, f"var(--{name})")
    return re.sub(r"\n\s*", "\n", text)


def with_unique_ids(svg: str, prefix: str) -> str:
    """The same picture with a prefix before every identifier, so that many can stand on one page."""
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", svg))
    svg = re.sub(r' id="([^"]*)"', lambda m: f' id="{prefix}{m[1]}"' if m[1] in used else "", svg)
    return re.sub(r'(url\(|href=")#', rf"\g<1>#{prefix}", svg)
