"""Tables and figure of the study `schedules`: `python -m experiments.schedules.analyse` after the sweeps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from cfg_lab.analysis.stats.clustered_means import Floats
from cfg_lab.analysis.style import COLOURS, DASHES, FAINT, MARKERS, PAGE, in_style, new_figure
from experiments.curves import (
    divergence_table,
    interval,
    resampled_means,
    with_differences,
    with_interval,
)
from experiments.record import Record, markdown_table

METRICS = ("sentiment", "leakage", "perplexity", "kl_from_plain", "forward_tokens", "gflop")
CURVES = {
    "constant": ("plain", "constant 2", "constant 4"),
    "interval": ("plain", "interval 2", "interval 4"),
    "decay": ("plain", "decay 2", "decay 4"),
    "warm_up": ("plain", "warm_up 2", "warm_up 4"),
    "entropy_gate": ("plain", "entropy_gate 2", "entropy_gate 4"),
    "by_entropy": ("plain", "by_entropy 2", "by_entropy 4"),
    "by_divergence": ("plain", "by_divergence 2", "by_divergence 4"),
    "by_jsd": ("plain", "by_jsd 2", "by_jsd 12"),
    "kl_budget": ("plain", "kl_budget 2", "kl_budget 4"),
    "adaptive_stop": ("plain", "adaptive_stop 2", "adaptive_stop 4"),
}
LEVELS = (0.03, 0.2)
"""Divergences from plain decoding at which the curves are compared, nats per token."""

Means = dict[str, dict[str, Floats]]


def main(record: Record) -> None:
    """Make all tables and the figure of the record."""
    scores = record.scores("schedules", METRICS)
    scores = scores.assign(
        cell=scores.apply(method, axis=1), nats=np.log(scores["perplexity"]), kl=scores["kl_from_plain"]
    ).drop_duplicates(["cell", "prompt_id", "sample"])
    means = resampled_means(scores, ("sentiment", "leakage", "nats", "kl", "forward_tokens", "gflop"))
    record.table("cells", cells_table(means, scores.groupby("cell").size()))
    record.table("divergence", divergence_table(means, CURVES, "constant", LEVELS, "curve"))
    record.table("scale", same_scale_table(means))
    record.table("operations", operations_table(means))
    record.figure("trade_off", trade_off(means))


def method(text: pd.Series) -> str:
    """The name of a text's cell in tables. Constant guidance is the rule cfg without a schedule."""
    scale = text["guidance.scale"]
    name = "constant" if text["guidance"] == "cfg" else text["guidance"]
    return "plain" if scale == 1 else f"{name} {scale:g}"


def cells_table(means: Means, texts: pd.Series) -> str:
    """Means of every cell, with its computation as a multiple of plain decoding's."""
    rows: list[list[str]] = []
    for cell in dict.fromkeys(cell for curve in CURVES.values() for cell in curve):
        numbers = [with_interval(means[metric][cell]) for metric in ("kl", "sentiment", "leakage", "nats")]
        tokens, gflop = (means[metric][cell][0] for metric in ("forward_tokens", "gflop"))
        compute = gflop / means["gflop"]["plain"][0]
        rows.append([cell, str(texts[cell]), *numbers, f"{tokens:.0f}", f"{gflop:.0f}", f"{compute:.2f}"])
    header = ["cell", "n", "KL", "sentiment", "leakage", "nats", "forward tokens", "GFLOP", "÷ plain"]
    return markdown_table(header, rows)


def same_scale_table(means: Means) -> str:
    """Differences from constant guidance at the same scale."""
    rows: list[list[str | Floats]] = []
    for scale in (2, 4):
        constant = f"constant {scale}"
        for cell in (f"{name} {scale}" for name in CURVES if name != "constant"):
            if cell in means["kl"]:
                differences = [
                    means[m][cell] - means[m][constant] for m in ("kl", "sentiment", "leakage", "nats")
                ]
                rows.append([f"{cell} − {constant}", *differences])
    return markdown_table(["difference", "KL", "sentiment", "leakage", "nats"], with_differences(rows))


def operations_table(means: Means) -> str:
    """Effects per added computation, of the ways that save computation and of constant guidance.

    The unit of computation is that of a plain text. An effect is the difference from plain decoding.
    """
    rows: list[list[str | Floats]] = []
    for scale in (2, 4):
        constant = f"constant {scale}"
        for cell in (constant, f"interval {scale}", f"adaptive_stop {scale}"):
            row: list[str | Floats] = [cell, with_interval(added(means, cell))]
            for metric in ("sentiment", "leakage"):
                per_operation = per_added(means, cell, metric)
                row += [with_interval(effect(means, cell, metric)), with_interval(per_operation)]
                row.append("–" if cell == constant else per_operation - per_added(means, constant, metric))
            rows.append(row)
    header = ["cell", "added computation"]
    for name in ("sentiment", "leakage"):
        header += [f"Δ {name}", "per added computation", "minus constant"]
    return markdown_table(header, with_differences(rows))


def added(means: Means, cell: str) -> Floats:
    """Computation of a cell above that of plain decoding, in units of plain decoding, [1 + resamples]."""
    return means["gflop"][cell] / means["gflop"]["plain"] - 1


def effect(means: Means, cell: str, metric: str) -> Floats:
    """Difference of a cell from plain decoding, [1 + resamples]."""
    return means[metric][cell] - means[metric]["plain"]


def per_added(means: Means, cell: str, metric: str) -> Floats:
    """The effect of a cell per unit of added computation, [1 + resamples]."""
    return effect(means, cell, metric) / added(means, cell)


@in_style
def trade_off(means: Means) -> Figure:
    """Sentiment and leakage against the divergence from plain decoding, and against computation."""
    figure = new_figure(PAGE, 3.0)
    panels: Any = figure.subplots(1, 3)
    for axes, x, y in (
        (panels[0], "kl", "sentiment"),
        (panels[1], "kl", "leakage"),
        (panels[2], "gflop", "sentiment"),
    ):
        for number, (name, cells) in enumerate(CURVES.items()):
            axes.plot(
                [position(means, cell, x) for cell in cells],
                [means[y][cell][0] for cell in cells],
                label=name,
                color=COLOURS[number % len(COLOURS)],
                marker=MARKERS[number % len(MARKERS)],
                **({"linestyle": ""} if x == "gflop" else {"dashes": DASHES[number % len(DASHES)]}),
            )
        for cell in ("plain", "constant 2", "constant 4"):
            _, low, high = interval(means[y][cell])
            axes.plot([position(means, cell, x)] * 2, [low, high], color=FAINT, linewidth=0.6, zorder=1)
        axes.set_ylabel(y)
        axes.grid(axis="y")
    ticks = (0, 0.05, 0.2, 0.5, 1)
    for axes in panels[:2]:
        axes.set_xticks([math.sqrt(tick) for tick in ticks], [f"{tick:g}" for tick in ticks])
        axes.set_xlabel("KL from plain decoding, nats per token")
    panels[2].set_xlabel("computation ÷ plain")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper left", ncols=5)
    return figure


def position(means: Means, cell: str, metric: str) -> float:
    """Where a cell stands on the x axis: the root of its divergence, or its computation."""
    value = means[metric][cell][0]
    return math.sqrt(max(value, 0)) if metric == "kl" else value / means["gflop"]["plain"][0]


if __name__ == "__main__":
    main(Record.of_command_line("schedules"))
