"""Figures of a sweep, sized for a column of a paper: scale curves, trade-off of two metrics, heat map."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from cfg_lab.analysis.compare import summary
from cfg_lab.analysis.drawing import (
    Label,
    add_legend,
    add_sample_size_note,
    decimals,
    dot_area,
    draw_front,
    error_bars,
    ink_for,
    place_labels,
    set_axis_scale,
)
from cfg_lab.analysis.frame import (
    SCALE,
    checked_metrics,
    distinct_prompts,
    setting_label,
    settings_by_cell,
    value_label,
    varying,
)
from cfg_lab.analysis.pareto_front import pareto
from cfg_lab.analysis.style import COLOURS, COLUMN, DASHES, FAINT, INK, MARKERS, RAMP, in_style, new_figure
from cfg_lab.errors import InputError
from cfg_lab.metrics.known_columns import better

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CellRow = dict[str, Any]
"""All settings of a cell, and the summary columns of the metrics that a figure shows."""

SCALE_LABEL = "guidance scale (1 is off)"


@in_style
def scale_curves(results: pd.DataFrame, metric: str, width: float = COLUMN) -> Figure:
    """Curve of a metric: its mean at each guidance scale, with its 95 % interval as a band.

    There is one line per combination of the other settings that vary. If the scale does not vary, the x axis
    shows the setting with the most values instead, and intervals are drawn as bars.

    Args:
        results: from `cfg_lab.load_results`.
        metric: name of the metric.
        width: width of the figure in inches: COLUMN (3.3) or PAGE (6.9).

    Raises:
        InputError: the results have no such metric.
    """
    cells, names = _cell_rows(results, [metric]), varying(results)
    x_setting = SCALE if SCALE in names else max(names, key=lambda name: _distinct(cells, name), default=None)
    others = [name for name in names if name != x_setting]
    lines = _grouped(cells, others)
    x_values: list[Any] = (
        sorted({cell[x_setting] for cell in cells if cell[x_setting] is not None}, key=_sort_key)
        if x_setting
        else [None]
    )
    figure = new_figure(width, 0.7 * COLUMN)
    axes = figure.add_subplot()
    axes.grid(axis="y")
    for number, (name, members) in enumerate(lines.items()):
        line = sorted(
            (cell for cell in members if not x_setting or cell[x_setting] is not None),
            key=lambda cell: _sort_key(cell[x_setting]) if x_setting else (False, 0.0, ""),
        )
        y = [cell[metric] for cell in line]
        style: dict[str, Any] = {
            "color": COLOURS[number % len(COLOURS)],
            "marker": MARKERS[number % len(MARKERS)],
            "markeredgecolor": "white",
            "markeredgewidth": 0.5,
            "label": name,
        }
        if x_setting == SCALE:
            x = [cell[x_setting] for cell in line]
            low, high = ([cell[f"{metric}_{end}"] for cell in line] for end in ("low", "high"))
            alpha = 0.14 if len(lines) <= 4 else 0.07
            axes.fill_between(x, low, high, color=style["color"], alpha=alpha, linewidth=0)
            axes.plot(x, y, dashes=DASHES[number % len(DASHES)] or (None, None), **style)
        else:
            offset = 0.0 if len(lines) == 1 else 0.5 * (number / (len(lines) - 1) - 0.5)
            x = [x_values.index(cell[x_setting] if x_setting else None) + offset for cell in line]
            axes.errorbar(x, y, error_bars(line, metric), linestyle="none", elinewidth=1, **style)
    if x_setting == SCALE:
        if len(x_values) <= 8:
            axes.set_xticks(x_values, [value_label(value) for value in x_values])
        axes.set_xlabel(SCALE_LABEL)
    else:
        axes.set_xticks(range(len(x_values)), [value_label(value) if x_setting else "" for value in x_values])
        axes.set_xlim(-0.5, len(x_values) - 0.5)
        axes.set_xlabel(setting_label(x_setting) if x_setting else "")
    axes.set_ylabel(_axis_label(metric))
    set_axis_scale(axes, "y", metric)
    add_sample_size_note(axes, cells, [metric])
    add_legend(figure, axes, _legend_title(others))
    return figure


@in_style
def trade_off(
    results: pd.DataFrame, x: str, y: str, size: str | None = None, width: float = COLUMN
) -> Figure:
    """Scatter plot of two metrics: one dot per cell, with 95 % intervals as crosses, and the Pareto front.

    If the scale varies, each cell is labelled with its scale. A thin line then connects the cells that differ
    in the scale alone, and each combination of the other settings has its own colour. The front is drawn if
    `cfg_lab.analysis.better` knows for both metrics whether higher or lower values are better.

    Args:
        results: from `cfg_lab.load_results`.
        x, y: names of two metrics.
        size: name of a third metric, shown as the area of the dots; None for dots of equal size.
        width: width of the figure in inches: COLUMN (3.3) or PAGE (6.9).

    Raises:
        InputError: the results have no such metric.
    """
    cells, names = _cell_rows(results, [x, y, *([size] if size else [])]), varying(results)
    others = [name for name in names if name != SCALE]
    area = dot_area([cell[size] for cell in cells]) if size else None
    figure = new_figure(width, 0.85 * COLUMN)
    axes = figure.add_subplot()
    axes.grid()
    set_axis_scale(axes, "x", x)
    set_axis_scale(axes, "y", y)
    labels: dict[tuple[float, float], Label] = {}
    for number, (name, members) in enumerate(_grouped(cells, others).items()):
        colour = COLOURS[number % len(COLOURS)]
        group = sorted(members, key=lambda cell: _sort_key(cell.get(SCALE)))
        x_means, y_means = [cell[x] for cell in group], [cell[y] for cell in group]
        if SCALE in names:
            axes.plot(x_means, y_means, color=colour, linewidth=0.7, alpha=0.7, zorder=2)
        cross: dict[str, Any] = {"color": colour, "alpha": 0.28, "elinewidth": 0.7, "zorder": 1}
        x_bars, y_bars = error_bars(group, x), error_bars(group, y)
        axes.errorbar(x_means, y_means, y_bars, x_bars, linestyle="none", **cross)
        axes.scatter(
            x_means,
            y_means,
            [area(cell[size]) for cell in group] if size and area else 16,
            color=colour,
            marker=MARKERS[number % len(MARKERS)],
            edgecolor="white",
            linewidth=0.5,
            label=name if SCALE in names else None,
            zorder=3,
        )
        for cell in group:
            point, text = (cell[x], cell[y]), value_label(cell[SCALE]) if SCALE in names else name
            # Cells with the same means, such as those of scale 1, share one label. Its colour is neutral.
            ink = INK if point in labels else colour
            radius = math.sqrt(area(cell[size]) if size and area else 16) / 2
            labels[point] = Label(text=text, colour=ink, radius=radius)
    if better(x) and better(y):
        draw_front(axes, pareto(results, x, y), x, y)
    if size and area:
        scored = sorted(cell[size] for cell in cells if not math.isnan(cell[size]))
        for value in dict.fromkeys([*scored[:1], *scored[-1:]]):
            axes.scatter([], [], area(value), color=FAINT, label=f"{_metric_label(size)} {value:.2g}")
    axes.set_xlabel(_axis_label(x))
    axes.set_ylabel(_axis_label(y))
    add_sample_size_note(axes, cells, [x, y])
    add_legend(figure, axes, _legend_title(others) if SCALE in names else "")
    place_labels(figure, axes, labels)
    return figure


@in_style
def heat_map(results: pd.DataFrame, metric: str, rows: str, columns: str, width: float = COLUMN) -> Figure:
    """Heat map of a metric: its mean and 95 % interval for each pair of values of two settings.

    Args:
        results: from `cfg_lab.load_results`.
        metric: name of the metric.
        rows, columns: names of two settings, such as "negatives" and "guidance.scale".
        width: width of the figure in inches: COLUMN (3.3) or PAGE (6.9).

    Raises:
        InputError: the results have no such metric or setting, or several cells have the same values of both
            settings.
    """
    from matplotlib.colors import LinearSegmentedColormap, Normalize
    from matplotlib.patches import Rectangle

    cells = _cell_rows(results, [metric])
    for name, argument in ((rows, "rows"), (columns, "columns")):
        if name not in cells[0]:
            raise InputError(f"{argument} is {name!r}, which is no setting of these results")
    if len({(cell[rows], cell[columns]) for cell in cells}) < len(cells):
        further = ", ".join(name for name in varying(results) if name not in {rows, columns})
        raise InputError(f"cells differ also in {further}; select one value of each first")
    column_values = sorted({cell[columns] for cell in cells}, key=_sort_key)
    row_values = sorted({cell[rows] for cell in cells}, key=_sort_key)
    scored = [cell[metric] for cell in cells if not math.isnan(cell[metric])]
    colours: Any = LinearSegmentedColormap.from_list("cfg_lab", RAMP)
    shade: Any = Normalize(min(scored, default=0), max(scored, default=1))
    digits = decimals(scored)
    figure = new_figure(width, 0.72 + 0.34 * len(row_values))
    axes = figure.add_subplot()
    for cell in cells:
        x, y, value = column_values.index(cell[columns]), row_values.index(cell[rows]), cell[metric]
        face: Any = "white" if math.isnan(value) else colours(shade(value))
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=face, edgecolor="white"))
        ink: dict[str, Any] = {"color": ink_for(face), "ha": "center"}
        low, high = cell[f"{metric}_low"], cell[f"{metric}_high"]
        axes.text(x, y - 0.02, f"{value:.{digits}f}", va="bottom", fontweight="bold", **ink)
        interval = f"{low:.{digits}f} – {high:.{digits}f}"
        axes.text(x, y + 0.06, interval, va="top", fontsize=5, **ink)
    axes.set_xlim(-0.5, len(column_values) - 0.5)
    axes.set_ylim(len(row_values) - 0.5, -0.5)
    axes.set_xticks(range(len(column_values)), [value_label(value) for value in column_values])
    axes.set_yticks(range(len(row_values)), [value_label(value) for value in row_values])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(SCALE_LABEL if columns == SCALE else setting_label(columns))
    axes.set_ylabel(setting_label(rows))
    axes.set_title(_axis_label(metric), loc="left", pad=11)
    add_sample_size_note(axes, cells, [metric])
    return figure


def _cell_rows(results: pd.DataFrame, metrics: Sequence[str]) -> list[CellRow]:
    """One row per cell: all settings, the summary of the metrics, and the number of prompts."""
    checked_metrics(results, metrics)
    settings = settings_by_cell(results)
    rows: Any = summary(results, metrics, settings=[]).to_dict("records")
    prompt_of_text: Any = pd.Series(distinct_prompts(results), results.index)
    prompts: Any = prompt_of_text.groupby(results["cell"]).nunique()
    return [{**settings[row["cell"]], **row, "prompt count": int(prompts[row["cell"]])} for row in rows]


def _grouped(cells: Sequence[CellRow], names: Sequence[str]) -> dict[str, list[CellRow]]:
    """Group cells that have equal values of the settings in `names`.

    Returns:
        Text for the legend (the values of these settings) -> cells of the group.
    """
    groups: dict[str, list[CellRow]] = {}
    for cell in cells:
        values = ["–" if cell[name] is None else value_label(cell[name]) for name in names]
        groups.setdefault(", ".join(values), []).append(cell)
    return groups


def _distinct(cells: Sequence[CellRow], name: str) -> int:
    """Number of different values that a setting has in the cells."""
    return len({cell[name] for cell in cells})


def _sort_key(value: Any) -> tuple[bool, float, str]:
    """Sort key for the values of a setting: first numbers by size, then texts in alphabetical order."""
    if isinstance(value, (int, float)):
        return (False, float(value), "")
    return (True, 0.0, str(value))


def _metric_label(metric: str) -> str:
    return metric.replace("_", " ")


def _axis_label(metric: str) -> str:
    """Text for the axis of a metric: its name, and whether higher or lower values are better, if known."""
    direction = better(metric)
    return _metric_label(metric) + (f" ({direction} is better)" if direction else "")


def _legend_title(names: Sequence[str]) -> str:
    return ", ".join(setting_label(name) for name in names)
