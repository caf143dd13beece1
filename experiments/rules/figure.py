"""The figure of the study `rules`."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from cfg_lab.analysis.stats.clustered_means import Floats
from cfg_lab.analysis.style import FAINT, INK, PAGE, in_style, new_figure
from experiments.curves import draw_curves, draw_interval, root_of_divergence

BASELINE_MARKERS = ("o", "P", "X", "s", "D", "*")
LABELS = {
    "sentiment": "sentiment (higher is better)",
    "leakage": "leakage of the negative (lower is better)",
    "nats": "log-perplexity under plain decoding, nats",
}


@in_style
def trade_off(
    means: Mapping[str, Mapping[str, Floats]], curves: Mapping[str, Sequence[str]], baselines: Sequence[str]
) -> Figure:
    """Sentiment, leakage and log-perplexity against the divergence from plain decoding.

    Args:
        means: metric -> cell -> means, as from `experiments.curves.resampled_means`.
        curves: rule -> cells of its curve.
        baselines: the cells to draw as black marks, at most six.
    """
    figure = new_figure(PAGE, 3.1)
    panels: Any = figure.subplots(1, 3)
    for axes, (metric, label) in zip(panels, LABELS.items(), strict=True):
        draw_curves(axes, means, metric, curves)
        for cell in ("plain", "cfg 2", "cfg 4"):
            draw_interval(axes, means, metric, cell, FAINT, zorder=1)
        for marker, cell in zip(BASELINE_MARKERS, baselines, strict=False):
            x, y = root_of_divergence(means, cell), means[metric][cell][0]
            axes.plot(x, y, label=cell, marker=marker, markersize=4.5, color=INK, linestyle="")
        axes.set_ylabel(label)
        axes.grid(axis="y")
        ticks = (0, 0.1, 0.5, 1, 2)  # on an axis of square roots
        axes.set_xticks([math.sqrt(tick) for tick in ticks], [f"{tick:g}" for tick in ticks])
    panels[1].set_xlabel("KL from plain decoding, nats per token")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=5)
    return figure
