"""The figure of the study `rules`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from cfg_lab.analysis.stats.clustered_means import Floats
from cfg_lab.analysis.style import COLOURS, DASHES, FAINT, INK, MARKERS, PAGE, in_style, new_figure
from experiments.curves import interval


@in_style
def trade_off(
    means: Mapping[str, Mapping[str, Floats]], curves: Mapping[str, Sequence[str]], baselines: Sequence[str]
) -> Figure:
    """Sentiment against the divergence from plain decoding, and against nats under plain decoding.

    Args:
        means: metric -> cell -> means, as from `experiments.curves.resampled_means`.
        curves: rule -> cells of its curve.
        baselines: the cells to draw as stars.
    """
    figure = new_figure(PAGE, 2.9)
    panels: Sequence[Any] = figure.subplots(1, 2, sharey=True)
    sentiment = means["sentiment"]
    for axes, x, label in zip(
        panels,
        (lambda cell: math.sqrt(max(means["kl"][cell][0], 0)), lambda cell: means["nats"][cell][0]),
        ("KL from plain decoding, nats per token (square-root axis)", "nats per token under plain decoding"),
        strict=True,
    ):
        for number, (rule, cells) in enumerate(curves.items()):
            style = {"color": COLOURS[number], "marker": MARKERS[number % len(MARKERS)]}
            axes.plot(
                [x(cell) for cell in cells],
                [sentiment[cell][0] for cell in cells],
                label=rule,
                dashes=DASHES[number % len(DASHES)],
                **style,
            )
        for cell in ("plain", "cfg 2", "cfg 4"):
            _, low, high = interval(sentiment[cell])
            axes.plot([x(cell)] * 2, [low, high], color=FAINT, linewidth=0.6, zorder=1)
        for cell in baselines:
            if not math.isnan(x(cell)):
                axes.plot(x(cell), sentiment[cell][0], marker="*", markersize=6, color=INK, linestyle="")
                axes.annotate(
                    cell, (x(cell), sentiment[cell][0]), (4, -3), textcoords="offset points", fontsize=5
                )
        axes.set_xlabel(label)
        axes.grid(axis="y")
    ticks = (0, 0.05, 0.2, 0.5, 1, 2)
    panels[0].set_xticks([math.sqrt(tick) for tick in ticks], [f"{tick:g}" for tick in ticks])
    panels[0].set_ylabel("sentiment")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=8)
    return figure
