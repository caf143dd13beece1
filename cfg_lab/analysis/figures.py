"""Figures of a sweep, sized for a paper's column: a metric against the scale, two metrics, a grid."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from cfg_lab.analysis.compare import summary
from cfg_lab.analysis.drawing import (
    Label,
    add_legend,
    areas_of,
    decimals,
    draw_front,
    errors,
    legible_on,
    place_labels,
    say_what_intervals_are,
    scale_axis,
)
from cfg_lab.analysis.frame import SCALE, known_metrics, settings_by_cell, short, varying, written
from cfg_lab.analysis.pareto_front import pareto
from cfg_lab.analysis.style import COLOURS, COLUMN, DASHES, FAINT, INK, MARKERS, RAMP, in_style, new_figure
from cfg_lab.errors import InputError
from cfg_lab.metrics.known_columns import better

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CellRow = dict[str, Any]
"""All settings of a cell, and the summary of some metrics."""


@in_style
def scale_curves(results: pd.DataFrame, metric: str, width: float = COLUMN) -> Figure:
    """A metric's mean against guidance.scale, with its 95 % interval as a band.

    Cells that differ in other settings than the scale are lines of their own. Where the scale does not vary,
    the setting with the most values makes the places of the x axis, and intervals are bars.

    Args:
        results: from `cfg_lab.load_results`.
        metric: its name.
        width: of the figure, inches; COLUMN (3.3) or PAGE (6.9).

    Raises:
        InputError: there is no such metric.
    """
    cells, names = _cells(results, [metric]), varying(results)
    along = SCALE if SCALE in names else max(names, key=lambda name: _count(cells, name), default=None)
    others = [name for name in names if name != along]
    lines = _grouped(cells, others)
    places: list[Any] = (
        sorted({cell[along] for cell in cells if cell[along] is not None}, key=_order) if along else [None]
    )
    figure = new_figure(width, 0.7 * COLUMN)
    axes = figure.add_subplot()
    axes.grid(axis="y")
    for number, (name, members) in enumerate(lines.items()):
        drawn = sorted(
            (cell for cell in members if not along or cell[along] is not None),
            key=lambda cell: _order(cell[along]) if along else (False, 0.0, ""),
        )
        y = [cell[metric] for cell in drawn]
        style: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
            "markeredgecolor": "white",
            "markeredgewidth": 0.5,
            "label": name,
        }
        if along == SCALE:
            x = [cell[along] for cell in drawn]
            low, high = ([cell[f"{metric}_{end}"] for cell in drawn] for end in ("low", "high"))
            alpha = 0.14 if len(lines) <= 4 else 0.07
            axes.fill_between(x, low, high, color=style["color"], alpha=alpha, linewidth=0)
            axes.plot(x, y, dashes=DASHES[number % len(DASHES)] or (None, None), **style)
        else:
            beside = 0.0 if len(lines) == 1 else 0.5 * (number / (len(lines) - 1) - 0.5)
            x = [places.index(cell[along] if along else None) + beside for cell in drawn]
            axes.errorbar(x, y, errors(drawn, metric), linestyle="none", elinewidth=1, **style)
    if along == SCALE:
        if len(places) <= 8:
            axes.set_xticks(places, [written(place) for place in places])
        axes.set_xlabel("guidance scale (1 is off)")
    else:
        axes.set_xticks(range(len(places)), [written(place) if along else "" for place in places])
        axes.set_xlim(-0.5, len(places) - 0.5)
        axes.set_xlabel(short(along) if along else "")
    axes.set_ylabel(_titled(metric))
    scale_axis(axes, "y", metric)
    say_what_intervals_are(axes, cells, [metric])
    add_legend(figure, axes, _title(others))
    return figure


@in_style
def trade_off(
    results: pd.DataFrame, x: str, y: str, size: str | None = None, width: float = COLUMN
) -> Figure:
    """Two metrics of every cell, with 95 % intervals of both as crosses, and the Pareto front of the means.

    Where the scale varies it labels the cells, a thin line leads through the scales, and colours are the
    other settings. The front is drawn where both metrics have a direction (`cfg_lab.analysis.better`).

    Args:
        results: from `cfg_lab.load_results`.
        x, y: two metrics.
        size: a third one, shown as the area of the dots.
        width: of the figure, inches; COLUMN (3.3) or PAGE (6.9).

    Raises:
        InputError: there is no such metric.
    """
    cells, names = _cells(results, [x, y, *([size] if size else [])]), varying(results)
    others = [name for name in names if name != SCALE]
    area = areas_of([cell[size] for cell in cells]) if size else None
    figure = new_figure(width, 0.85 * COLUMN)
    axes = figure.add_subplot()
    axes.grid()
    scale_axis(axes, "x", x)
    scale_axis(axes, "y", y)
    labels: dict[tuple[float, float], Label] = {}
    for number, (name, members) in enumerate(_grouped(cells, others).items()):
        colour = COLOURS[number % len(COLOURS)]
        drawn = sorted(members, key=lambda cell: _order(cell.get(SCALE)))
        across, up = [cell[x] for cell in drawn], [cell[y] for cell in drawn]
        if SCALE in names:
            axes.plot(across, up, color=colour, linewidth=0.7, alpha=0.7, zorder=2)
        cross: dict[str, Any] = {"color": colour, "alpha": 0.28, "elinewidth": 0.7, "zorder": 1}
        axes.errorbar(across, up, errors(drawn, y), errors(drawn, x), linestyle="none", **cross)
        axes.scatter(
            across,
            up,
            [area(cell[size]) for cell in drawn] if size and area else 16,
            color=colour,
            marker=MARKERS[number % len(MARKERS)],
            edgecolor="white",
            linewidth=0.5,
            label=name if SCALE in names else None,
            zorder=3,
        )
        for cell in drawn:
            place, text = (cell[x], cell[y]), written(cell[SCALE]) if SCALE in names else name
            # One place, such as scale 1 of all negatives, has one label, of no group's colour.
            ink = INK if place in labels else colour
            labels[place] = Label(text, ink, math.sqrt(area(cell[size]) if size and area else 16) / 2)
    if better(x) and better(y):
        draw_front(axes, pareto(results, x, y), x, y)
    if size and area:
        known = sorted(cell[size] for cell in cells if not math.isnan(cell[size]))
        for value in dict.fromkeys([*known[:1], *known[-1:]]):
            axes.scatter([], [], area(value), color=FAINT, label=f"{_plain(size)} {value:.2g}")
    axes.set_xlabel(_titled(x))
    axes.set_ylabel(_titled(y))
    say_what_intervals_are(axes, cells, [x, y])
    add_legend(figure, axes, _title(others) if SCALE in names else "")
    place_labels(figure, axes, labels)
    return figure


@in_style
def heat_map(results: pd.DataFrame, metric: str, rows: str, columns: str, width: float = COLUMN) -> Figure:
    """A metric's mean and 95 % interval in every cell of a grid of two settings.

    Args:
        results: from `cfg_lab.load_results`.
        metric: its name.
        rows, columns: two settings, such as "negatives" and "guidance.scale".
        width: of the figure, inches; COLUMN (3.3) or PAGE (6.9).

    Raises:
        InputError: there is no such metric or setting, or cells differ in further settings, so that several
            would fall on one place.
    """
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.patches import Rectangle

    cells = _cells(results, [metric])
    for name, key in ((rows, "rows"), (columns, "columns")):
        if name not in cells[0]:
            raise InputError(f"{key} is {name!r}, which is no setting of these results")
    further = [name for name in varying(results) if name not in {rows, columns}]
    if len({(cell[rows], cell[columns]) for cell in cells}) < len(cells):
        raise InputError(f"cells differ also in {', '.join(further)}; choose one value of it first")
    across = sorted({cell[columns] for cell in cells}, key=_order)
    down = sorted({cell[rows] for cell in cells}, key=_order)
    known = [cell[metric] for cell in cells if not math.isnan(cell[metric])]
    colours: Any = LinearSegmentedColormap.from_list("cfg_lab", RAMP)
    shade: Any = Normalize(min(known, default=0), max(known, default=1))
    digits = decimals(known)
    figure = new_figure(width, 0.72 + 0.34 * len(down))
    axes = figure.add_subplot()
    for cell in cells:
        x, y, value = across.index(cell[columns]), down.index(cell[rows]), cell[metric]
        face: Any = "white" if math.isnan(value) else colours(shade(value))
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, edgecolor="white"))
        ink: dict[str, Any] = {"color": legible_on(face), "ha": "center"}
        low, high = cell[f"{metric}_low"], cell[f"{metric}_high"]
        axes.text(x, y - 0.02, f"{value:.{digits}f}", va="bottom", fontweight="bold", **ink)
        interval = f"{low:.{digits}f} – {high:.{digits}f}"
        axes.text(x, y + 0.06, interval, va="top", fontsize=5, **ink)
    axes.set_xlim(-0.5, len(across) - 0.5)
    axes.set_ylim(len(down) - 0.5, -0.5)
    axes.set_xticks(range(len(across)), [written(value) for value in across])
    axes.set_yticks(range(len(down)), [written(value) for value in down])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("guidance scale (1 is off)" if columns == SCALE else short(columns))
    axes.set_ylabel(short(rows))
    axes.set_title(_titled(metric), loc="left", pad=11)
    say_what_intervals_are(axes, cells, [metric])
    return figure


def _cells(results: pd.DataFrame, metrics: Sequence[str]) -> list[CellRow]:
    """Of each cell, all its settings and the summary of the metrics."""
    known_metrics(results, metrics)
    settings = settings_by_cell(results)
    rows: Any = summary(results, metrics, settings=[]).to_dict("records")
    prompts: Any = results.groupby("cell")["prompt_id"].nunique()
    return [{**settings[row["cell"]], **row, "prompt count": int(prompts[row["cell"]])} for row in rows]


def _grouped(cells: Sequence[CellRow], names: Sequence[str]) -> dict[str, list[CellRow]]:
    """Cells that have the same values of some settings, under what a legend calls them."""
    groups: dict[str, list[CellRow]] = {}
    for cell in cells:
        values = ["–" if cell[name] is None else written(cell[name]) for name in names]
        groups.setdefault(", ".join(values), []).append(cell)
    return groups


def _count(cells: Sequence[CellRow], name: str) -> int:
    return len({cell[name] for cell in cells})


def _order(value: Any) -> tuple[bool, float, str]:
    """Numbers by size, then texts by alphabet."""
    if isinstance(value, (int, float)):
        return (False, float(value), "")
    return (True, 0.0, str(value))


def _plain(metric: str) -> str:
    return metric.replace("_", " ")


def _titled(metric: str) -> str:
    way = better(metric)
    return _plain(metric) + (f" ({way} is better)" if way else "")


def _title(names: Sequence[str]) -> str:
    return ", ".join(short(name) for name in names)
