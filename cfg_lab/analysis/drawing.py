"""Elements of figures: legend, note, axes, error bars, Pareto front, and labels that do not overlap."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from cfg_lab.analysis.style import COLUMN, FAINT, INK, RAMP

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def add_legend(figure: Figure, axes: Axes, title: str) -> None:
    """Add a legend above the axes, in as many columns as fit side by side. This makes the figure taller.

    Nothing is added if the legend would have fewer than two entries.
    """
    handles, names = axes.get_legend_handles_labels()
    entries = [(handle, name) for handle, name in zip(handles, names, strict=True) if name]
    if len(entries) < 2:
        return
    width, height = figure.get_size_inches()
    longest_name = max(len(name) for _, name in entries)
    columns = min(max(1, int(width / COLUMN * 72 / (longest_name + 9))), len(entries))
    legend = figure.legend(
        *zip(*entries, strict=True), loc="outside upper left", ncols=columns, title=title or None
    )
    legend.set_alignment("left")
    lines = -(-len(entries) // columns) + bool(title)
    figure.set_size_inches(width, height + 0.135 * lines)


def add_sample_size_note(axes: Axes, cells: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> None:
    """Add a note in small print: how many texts and prompts the means and intervals are based on.

    Args:
        cells: one row per cell, with the column m_n of each metric m and the column "prompt count".
        metrics: the metrics that the figure shows.
    """

    def span(values: set[int]) -> str:
        return "–".join(str(value) for value in sorted({min(values), max(values)}))

    texts = span({int(cell[f"{metric}_n"]) for cell in cells for metric in metrics})
    prompts = span({int(cell["prompt count"]) for cell in cells})
    note = f"means, 95 % intervals; {texts} texts of {prompts} prompts"
    axes.annotate(
        note,
        (0, 1),
        (0, 3),
        "axes fraction",
        "offset points",
        fontsize=5,
        color=FAINT,
        ha="left",
        va="bottom",
    )


def set_axis_scale(axes: Axes, which: Literal["x", "y"], metric: str) -> None:
    """Make the axis logarithmic if its metric is a perplexity, which is the exponential of a mean."""
    if metric.startswith("perplexity"):
        from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        axis = axes.xaxis if which == "x" else axes.yaxis
        axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())


def decimals(values: Sequence[float]) -> int:
    """Number of decimal places with which the largest of the values has three significant digits."""
    largest = max((abs(value) for value in values), default=0)
    return int(np.clip(2 - np.floor(np.log10(largest)), 0, 6)) if largest > 0 else 2


def ink_for(background: Any) -> str:
    """The text colour, dark or white, that has the higher contrast (WCAG 2.1) on a background colour."""
    from matplotlib.colors import to_rgb

    channels = np.array(to_rgb(background))
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    contrast_of_white, contrast_of_ink = 1.05 / (luminance + 0.05), (luminance + 0.05) / 0.066
    return "white" if contrast_of_white > contrast_of_ink else INK


def error_bars(cells: Sequence[Mapping[str, Any]], metric: str) -> list[list[float]]:
    """Lengths of the error bars below and above each mean, in the form that matplotlib's `errorbar` takes."""
    return [
        [cell[metric] - cell[f"{metric}_low"] for cell in cells],
        [cell[f"{metric}_high"] - cell[metric] for cell in cells],
    ]


def dot_area(values: Sequence[float]) -> Callable[[float], float]:
    """Return a function that takes a value and returns the area of its dot in square points.

    The area is 10 for the least of `values`, 80 for the greatest, and linear between them.
    """
    scored = [value for value in values if not np.isnan(value)]
    least, most = min(scored, default=0), max(scored, default=0)
    return lambda value: 10 + 70 * (np.clip((value - least) / (most - least), 0, 1) if most > least else 0.5)


def draw_front(axes: Axes, front: pd.DataFrame, x: str, y: str) -> None:
    """Draw the Pareto front as a broad pale line behind all other elements of the figure.

    Args:
        front: the table that `pareto` returns.
        x, y: names of the two metrics.
    """
    points = front[front["on_front"]].sort_values([x, y])
    axes.plot(
        points[x],
        points[y],
        color=RAMP[1],
        linewidth=5,
        solid_capstyle="round",
        solid_joinstyle="round",
        zorder=0.5,
        label="Pareto front",
    )


@dataclass(frozen=True, kw_only=True)
class Label:
    """A label of a figure: a short text beside a dot.

    Attributes:
        text: the text to write.
        colour: colour of the text.
        radius: radius of the dot, in points.
    """

    text: str
    colour: str
    radius: float


def place_labels(figure: Figure, axes: Axes, labels: Mapping[tuple[float, float], Label]) -> None:
    """Write each label beside its dot, where it covers the smallest area of dots, lines and other labels.

    For each label 36 positions around the dot are tried: 3 distances times 12 directions.

    Args:
        labels: position (x, y) of a dot in data coordinates -> its label.
    """
    figure.draw_without_rendering()  # computes the layout, which determines all positions in pixels
    pixels_per_point = figure.dpi / 72
    frame: Any = axes.get_window_extent().extents
    dots: list[tuple[float, float]] = [tuple(axes.transData.transform(point)) for point in labels]
    occupied = [
        _box(x, y, 2 * label.radius * pixels_per_point, 2 * label.radius * pixels_per_point)
        for (x, y), label in zip(dots, labels.values(), strict=True)
    ]
    for line in axes.lines:
        occupied += _boxes_along(axes.transData.transform(line.get_xydata()), 2 * pixels_per_point)
    for (point, label), (dot_x, dot_y) in zip(labels.items(), dots, strict=True):
        annotation = axes.annotate(
            label.text,
            point,
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            color=label.colour,
            fontsize=6.5,
        )
        annotation.set_in_layout(False)  # its position is valid for the present layout only
        extent = annotation.get_window_extent()
        width, height = extent.width + 2 * pixels_per_point, extent.height
        best = (np.inf, 0.0, 0.0)  # cost, and offset from the dot
        for distance in (0.8, 3.5, 6.5):
            for degrees in range(0, 360, 30):
                cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
                gap = (label.radius + distance) * pixels_per_point
                x, y = cosine * (width / 2 + gap), sine * (height / 2 + gap)
                box = _box(dot_x + x, dot_y + y, width, height)
                covered = sum(_overlap(box, other) for other in occupied) / (width * height)
                outside = 1 - _overlap(box, frame) / (width * height)
                best = min(best, (covered + 4 * outside + 0.03 * distance, x, y))
        _, x, y = best
        annotation.set_position((x / pixels_per_point, y / pixels_per_point))
        occupied.append(_box(dot_x + x, dot_y + y, width, height))


Box = tuple[float, float, float, float]
"""A rectangle in pixels: left, bottom, right, top."""


def _box(x: float, y: float, width: float, height: float) -> Box:
    """The rectangle of the given size whose centre is at (x, y)."""
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _boxes_along(corners: Any, size: float) -> list[Box]:
    """Squares of side `size` that cover a line, which is given by its corners [n, 2]."""
    boxes: list[Box] = []
    for begin, end in pairwise(corners):
        if np.isfinite([*begin, *end]).all():
            steps = max(int(np.hypot(*(end - begin)) / size), 1)
            for step in range(steps):
                x, y = begin + (end - begin) * step / steps
                boxes.append(_box(x, y, size, size))
    return boxes


def _overlap(first: Box, second: Box) -> float:
    """Area in square pixels that two rectangles have in common."""
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return max(width, 0.0) * max(height, 0.0)
