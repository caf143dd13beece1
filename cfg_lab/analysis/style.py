"""The look of all figures (sizes, colours, fonts), and saving them to files."""

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
"""Widths of figures in inches: one column of a paper, and the full page."""

COLOURS = ("#332288", "#CC6677", "#44AA99", "#999933", "#882255", "#88CCEE", "#117733", "#AA4499")
"""Paul Tol's muted scheme (sronpersonalpages.nl/~pault). Colour-blind readers can tell its colours apart."""

MARKERS = ("o", "s", "D", "^", "v", "P", "X")
DASHES = ((), (4, 1.5), (1.2, 1.2), (5, 1.5, 1.2, 1.5), (7, 1.5))
"""Each line has its own colour, marker and dashes, so a figure can be read in black and white.

There are 8 colours, 7 markers and 5 dashes. As these numbers differ, the ninth line does not look like the
first.
"""

INK, FAINT, GRID = "#222222", "#6B6B6B", "#E4E4E4"
"""Colours of text, of axes and small print, and of grid lines."""

RAMP = ("#F7F6F2", "#D5E3E6", "#9FC3CC", "#5F9BAE", "#33708C", "#1D4468")
"""Colours of a heat map from low to high values: one hue, in even steps of lightness."""

STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures look the same on every machine
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
    "pdf.fonttype": 42,  # embedded TrueType fonts, which publishers require
    "ps.fonttype": 42,
    "svg.hashsalt": "cfg_lab",  # makes the ids in an SVG file reproducible
}
"""Matplotlib's settings for all figures."""

Arguments = ParamSpec("Arguments")


def in_style(draw: Callable[Arguments, Figure]) -> Callable[Arguments, Figure]:
    """Decorator of a drawing function, which then uses STYLE and ignores the user's matplotlib settings."""

    @wraps(draw)
    def draw_in_style(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Figure:
        with _styled():
            return draw(*args, **kwargs)

    return draw_in_style


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of this size in inches. No window is opened and no global state is changed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from cfg_lab.analysis.notebook import NotebookFigure

    figure = NotebookFigure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    layout: Any = figure.get_layout_engine()
    layout.set(w_pad=0.02, h_pad=0.02)
    return figure


def save(figure: Figure, path: str | Path, formats: Sequence[str] = ("png", "svg", "pdf")) -> list[Path]:
    """Write a figure to one file per format, and return the paths of the files.

    PDF files embed their fonts and SVG files contain letters as outlines, so both look the same on every
    machine. Files contain no date, so the same figure always gives the same bytes.

    Args:
        figure: from one of the drawing functions.
        path: path of the files without the ending. Its folder is created if it does not exist.
        formats: file endings, each of them a format that matplotlib can write.
    """
    metadata: dict[str, dict[str, Any]] = {"pdf": {"CreationDate": None}, "svg": {"Date": None}}
    files: list[Path] = []
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with _styled():
        for ending in formats:
            file = Path(f"{path}.{ending}")
            figure.savefig(file, format=ending, metadata=metadata.get(ending))
            files.append(file)
    return files


def _styled() -> AbstractContextManager[None]:
    """A context for `with`: inside the block, matplotlib's settings are STYLE."""
    matplotlib: Any = import_module("matplotlib")
    return matplotlib.rc_context(STYLE)
