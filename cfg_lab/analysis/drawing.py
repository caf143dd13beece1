"""Parts of figures: legends, intervals, areas, the front, labels that keep out of each other's way."""

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
    """What the colours mean, above the axes, in as many columns as fit; the figure grows by its height."""
    handles, names = axes.get_legend_handles_labels()
    shown = [(handle, name) for handle, name in zip(handles, names, strict=True) if name]
    if len(shown) < 2:
        return
    wide, high = figure.get_size_inches()
    longest = max(len(name) for _, name in shown)
    across = min(max(1, int(wide / COLUMN * 72 / (longest + 9))), len(shown))
    legend = figure.legend(
        *zip(*shown, strict=True), loc="outside upper left", ncols=across, title=title or None
    )
    legend.set_alignment("left")
    figure.set_size_inches(wide, high + 0.135 * (-(-len(shown) // across) + bool(title)))


def say_what_intervals_are(axes: Axes, cells: Sequence[Mapping[str, Any]], metrics: Sequence[str]) -> None:
    """In small print: how many texts and prompts the means and intervals are of."""

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


def scale_axis(axes: Axes, which: Literal["x", "y"], metric: str) -> None:
    """Perplexity, a mean in the exponent, on a logarithmic axis with plain numbers."""
    if metric.startswith("perplexity"):
        from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

        (axes.set_xscale if which == "x" else axes.set_yscale)("log")
        axis = axes.xaxis if which == "x" else axes.yaxis
        axis.set_major_locator(LogLocator(subs=(1, 1.5, 2, 3, 4, 5, 7)))
        axis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.set_minor_locator(NullLocator())


def decimals(values: Sequence[float]) -> int:
    """How many show the largest of the values to three digits."""
    largest = max((abs(value) for value in values), default=0)
    return int(np.clip(2 - np.floor(np.log10(largest)), 0, 6)) if largest > 0 else 2


def legible_on(colour: Any) -> str:
    """Dark or white ink, whichever has more contrast (WCAG 2.1) on a colour."""
    from matplotlib.colors import to_rgb

    parts = np.array(to_rgb(colour))
    linear = np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4)
    luminance = float(linear @ [0.2126, 0.7152, 0.0722])
    return "white" if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.066 else INK


def errors(cells: Sequence[Mapping[str, Any]], metric: str) -> list[list[float]]:
    """How far the intervals reach below and above the means, as error bars want them."""
    return [
        [cell[metric] - cell[f"{metric}_low"] for cell in cells],
        [cell[f"{metric}_high"] - cell[metric] for cell in cells],
    ]


def areas_of(values: Sequence[float]) -> Callable[[float], float]:
    """What area a dot has, points squared: 10 for the least value, 80 for the greatest."""
    known = [value for value in values if not np.isnan(value)]
    least, most = min(known, default=0), max(known, default=0)
    return lambda value: 10 + 70 * (np.clip((value - least) / (most - least), 0, 1) if most > least else 0.5)


def draw_front(axes: Axes, front: pd.DataFrame, x: str, y: str) -> None:
    """The Pareto front as a broad pale line behind everything, through its cells in the order of x."""
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


@dataclass(frozen=True)
class Label:
    """What stands beside a dot of that radius in points."""

    text: str
    colour: str
    radius: float


def place_labels(figure: Figure, axes: Axes, points: Mapping[tuple[float, float], Label]) -> None:
    """Write the text of each point, in its colour, where it covers least of dots, lines and other texts.

    Args:
        points: by position in data.
    """
    figure.draw_without_rendering()  # fixes where things are, as far as it can be known
    pixels = figure.dpi / 72
    frame: Any = axes.get_window_extent().extents
    there: list[tuple[float, float]] = [tuple(axes.transData.transform(point)) for point in points]
    taken = [
        _box(x, y, 2 * label.radius * pixels, 2 * label.radius * pixels)
        for (x, y), label in zip(there, points.values(), strict=True)
    ]
    for line in axes.lines:
        taken += _along(axes.transData.transform(line.get_xydata()), 2 * pixels)
    for (point, label), place in zip(points.items(), there, strict=True):
        written = axes.annotate(
            label.text,
            point,
            (0, 0),
            textcoords="offset points",
            ha="center",
            va="center",
            color=label.colour,
            fontsize=6.5,
        )
        written.set_in_layout(False)  # else it would move what it was placed by
        extent = written.get_window_extent()
        wide, high = extent.width + 2 * pixels, extent.height
        best = (np.inf, 0.0, 0.0)
        for distance in (0.8, 3.5, 6.5):
            for degrees in range(0, 360, 30):
                across, up = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
                beside = (label.radius + distance) * pixels
                x, y = across * (wide / 2 + beside), up * (high / 2 + beside)
                box = _box(place[0] + x, place[1] + y, wide, high)
                covered = sum(_overlap(box, other) for other in taken) / (wide * high)
                outside = 1 - _overlap(box, frame) / (wide * high)
                best = min(best, (covered + 4 * outside + 0.03 * distance, x, y))
        _, x, y = best
        written.set_position((x / pixels, y / pixels))
        taken.append(_box(place[0] + x, place[1] + y, wide, high))


Box = tuple[float, float, float, float]
"""left, bottom, right, top; pixels."""


def _box(x: float, y: float, wide: float, high: float) -> Box:
    return (x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)


def _along(corners: Any, size: float) -> list[Box]:
    """Small boxes along a line through corners [n, 2]."""
    boxes: list[Box] = []
    for begin, end in pairwise(corners):
        if np.isfinite([*begin, *end]).all():
            steps = max(int(np.hypot(*(end - begin)) / size), 1)
            for step in range(steps):
                x, y = begin + (end - begin) * step / steps
                boxes.append(_box(x, y, size, size))
    return boxes


def _overlap(one: Box, other: Box) -> float:
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    return max(wide, 0.0) * max(high, 0.0)
