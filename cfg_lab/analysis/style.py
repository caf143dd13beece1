"""How figures look: sizes, colours, type; and how they are saved. Nothing here knows what is drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import wraps
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLUMN, PAGE = 3.3, 6.9
"""Widths of a paper's column and page, inches."""

COLOURS = ("#332288", "#CC6677", "#44AA99", "#999933", "#882255", "#88CCEE", "#117733", "#AA4499")
"""Paul Tol's muted scheme (sronpersonalpages.nl/~pault): told apart by colour-blind readers too."""

MARKERS = ("o", "s", "D", "^", "v", "P", "X")
DASHES = ((), (4, 1.5), (1.2, 1.2), (5, 1.5, 1.2, 1.5), (7, 1.5))
"""Colour, marker and dashes say the same thing, so a figure survives a black-and-white printer; their numbers
differ, so the ninth line is not the first again."""

INK, FAINT, GRID = "#222222", "#6B6B6B", "#E4E4E4"

RAMP = ("#F7F6F2", "#D5E3E6", "#9FC3CC", "#5F9BAE", "#33708C", "#1D4468")
"""From low to high values: one hue, even steps of lightness."""

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib: the same figure everywhere
    "font.size": 7,
    "axes.labelsize": 7,
    "axes.titlesize": 7,
    "xtick.labelsize": 6.5,
    "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5,
    "legend.title_fontsize": 6.5,
    "legend.frameon": False,
    "legend.handlelength": 2.2,
    "legend.columnspacing": 1.2,
    "legend.borderaxespad": 0,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "text.color": INK,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.2,
    "lines.markersize": 3.6,
    "figure.dpi": 150,
    "savefig.dpi": 300,
    "pdf.fonttype": 42,  # real, embedded fonts, as publishers ask
    "ps.fonttype": 42,
    "svg.hashsalt": "cfg_lab",  # the same figure is the same file
}


Arguments = ParamSpec("Arguments")


def in_style(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """A drawing function whose figure has this look, whatever the user's own settings."""

    @wraps(draw)
    def drawn(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with _styled():
            return draw(*args, **kwargs)

    return drawn


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches, without a window or global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from cfg_lab.analysis.notebook import NotebookFigure

    figure = NotebookFigure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    layout: Any = figure.get_layout_engine()
    layout.set(w_pad=0.02, h_pad=0.02)
    return figure


def save(figure: Figure, path: str | Path, formats: Sequence[str] = ("png", "svg", "pdf")) -> list[Path]:
    """Write a figure in each format, and return the files.

    Fonts are embedded in PDF; SVG has its letters as outlines, so both look the same everywhere. There is no
    date in the files: the same figure is the same file.

    Args:
        path: without the ending; its folder is made if need be.
    """
    undated: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    files: list[Path] = []
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with _styled():
        for ending in formats:
            file = Path(f"{path}.{ending}")
            figure.savefig(file, format=ending, metadata=undated.get(ending))
            files.append(file)
    return files


def _styled() -> AbstractContextManager[None]:
    matplotlib: Any = import_module("matplotlib")
    return matplotlib.rc_context(STYLE)
