"""Compares methods along their curves: at equal values of one metric, with a bootstrap over prompts.

A curve is a list of cells, such as one guidance rule at scales 1, 2 and 4. Methods are compared where their
curves have the same value of a metric, for example the same divergence from plain decoding.

Means are computed for the data and for every bootstrap resample of the prompts, as arrays [1 + resamples, …].
Row 0 is the data. Whatever is computed from these arrays row by row, such as a point on a curve, has its
estimate in row 0 and its bootstrap distribution in the other rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cfg_lab.analysis.frame import AlignedTexts
from cfg_lab.analysis.stats import holm
from cfg_lab.analysis.stats.bootstrap import resample_counts
from cfg_lab.analysis.stats.clustered_means import Floats
from cfg_lab.analysis.style import COLOURS, DASHES, MARKERS
from experiments.record import markdown_table, number_and_interval


def resampled_means(scores: pd.DataFrame, metrics: Sequence[str]) -> dict[str, dict[str, Floats]]:
    """The mean of each metric in each cell, as metric -> cell -> means [1 + resamples].

    All cells and metrics have the same resamples, so differences between cells are paired.

    Args:
        scores: one row per text, as from `Record.scores`. The column `cell` names the cells.
    """
    texts = AlignedTexts.from_results(scores)
    means: dict[str, dict[str, Floats]] = {}
    for metric in metrics:
        sums, counts = texts.sums_by_prompt(texts.table(scores[metric]))  # [prompts, cells] each
        prompts = len(sums)
        weights = np.vstack([np.ones((1, prompts)), resample_counts(prompts)])  # [1 + resamples, prompts]
        with np.errstate(invalid="ignore"):
            table = (weights @ sums) / (weights @ counts)
        means[metric] = dict(zip(texts.cells, table.T, strict=True))
    return means


def along(means: Mapping[str, Floats], cells: Sequence[str]) -> Floats:
    """The means of the cells of a curve, [1 + resamples, points]."""
    return np.stack([means[cell] for cell in cells], axis=1)


def at_divergence(divergence: Floats, metric: Floats, level: float | Floats) -> Floats:
    """The metric at the points of a curve where the divergence has a given level, [1 + resamples].

    Between two cells the metric is taken to be linear in the square root of the divergence: for small pushes
    an effect grows with the push, and a divergence with its square. NaN where the curve does not reach the
    level.

    Args:
        divergence, metric: [1 + resamples, points].
        level: a divergence in nats, or one for each row, [1 + resamples]; NaN gives NaN.
    """
    levels = np.sqrt(np.broadcast_to(level, len(metric)))
    result = np.full(len(metric), np.nan)
    for row, (x, y) in enumerate(zip(_root(divergence), metric, strict=True)):
        order = np.argsort(x, kind="stable")
        result[row] = np.interp(levels[row], x[order], y[order], left=np.nan, right=np.nan)
    return result


def divergence_at(divergence: Floats, metric: Floats, level: float) -> Floats:
    """The smallest divergence at which a curve reaches a level of the metric, [1 + resamples].

    The inverse of `at_divergence`, for metrics that grow with the divergence. NaN where the curve ends
    before.
    """
    roots = _root(divergence)
    result = np.full(len(roots), np.nan)
    for row, (x, y) in enumerate(zip(roots, metric, strict=True)):
        order = np.argsort(x, kind="stable")
        x, y = x[order], y[order]
        if y[0] >= level:
            result[row] = x[0]
            continue
        for start in np.flatnonzero((y[:-1] < level) & (y[1:] >= level))[:1]:
            share = (level - y[start]) / (y[start + 1] - y[start])
            result[row] = x[start] + share * (x[start + 1] - x[start])
    return result**2


def interval(values: Floats) -> tuple[float, float, float]:
    """The estimate and the ends of its 95 % percentile interval, from values [1 + resamples].

    The ends are NaN if more than 2.5 % of the resamples have no value.
    """
    resamples = values[1:]
    if np.isnan(values[0]):
        return np.nan, np.nan, np.nan
    if np.isnan(resamples).mean() > 0.025:
        return float(values[0]), np.nan, np.nan
    low, high = np.nanquantile(resamples, [0.025, 0.975])
    return float(values[0]), float(low), float(high)


def with_interval(values: Floats) -> str:
    """An estimate with its interval for a table, from values [1 + resamples]."""
    return number_and_interval(*interval(values))


def with_differences(rows: Sequence[Sequence[str | Floats]]) -> list[list[str]]:
    """Rows of a table, with arrays of differences [1 + resamples] written as an estimate with its interval.

    A difference in bold is significant (5 %) after Holm's correction over all differences of the table. Its p
    value before correction is twice the share of resamples on the other side of 0.
    """
    differences = [cell for row in rows for cell in row if not isinstance(cell, str)]
    significant = iter(np.array(holm([_p_value(values) for values in differences])) < 0.05)

    def text(values: Floats) -> str:
        number = number_and_interval(*interval(values), sign=True)
        return f"**{number}**" if next(significant) else number

    return [[cell if isinstance(cell, str) else text(cell) for cell in row] for row in rows]


def divergence_table(
    means: Mapping[str, Mapping[str, Floats]],
    curves: Mapping[str, Sequence[str]],
    reference: str,
    levels: Sequence[float],
    kind: str,
) -> str:
    """A Markdown table of differences from a reference curve, at points of the curves with equal divergence.

    Args:
        means: from `resampled_means`, with the metrics kl, sentiment, leakage and nats.
        curves: name of a curve -> its cells.
        reference: the name of the curve that the others are compared with. Its rows have its own values.
        levels: the divergences (kl), in nats per token.
        kind: what a curve is, for the head of the column of names.
    """
    metrics = ("sentiment", "leakage", "nats")

    def points(name: str, level: float) -> list[Floats]:
        divergence = along(means["kl"], curves[name])
        return [at_divergence(divergence, along(means[metric], curves[name]), level) for metric in metrics]

    rows: list[list[str | Floats]] = []
    for level in levels:
        of_reference = points(reference, level)
        for name in curves:
            if name == reference:
                rows.append([f"{level:g}", name, *map(with_interval, of_reference)])
            else:
                pairs = zip(points(name, level), of_reference, strict=True)
                differences = [values - reference_values for values, reference_values in pairs]
                rows.append([f"{level:g}", f"{name} − {reference}", *differences])
    return markdown_table(["KL", kind, *metrics], with_differences(rows))


def draw_curves(
    axes: Any,
    means: Mapping[str, Mapping[str, Floats]],
    metric: str,
    curves: Mapping[str, Sequence[str]],
) -> None:
    """Draw a metric against the square root of the divergence, one line per curve.

    Args:
        axes: axes of matplotlib.
        means: from `resampled_means`, with the metric and kl.
        curves: name of a curve -> its cells.
    """
    for number, (name, cells) in enumerate(curves.items()):
        axes.plot(
            [root_of_divergence(means, cell) for cell in cells],
            [means[metric][cell][0] for cell in cells],
            label=name,
            color=COLOURS[number],
            marker=MARKERS[number % len(MARKERS)],
            dashes=DASHES[number % len(DASHES)],
        )


def draw_interval(
    axes: Any, means: Mapping[str, Mapping[str, Floats]], metric: str, cell: str, colour: str, **style: Any
) -> None:
    """Draw the 95 % interval of a cell as a thin vertical line, in the figure of `draw_curves`."""
    _, low, high = interval(means[metric][cell])
    axes.plot([root_of_divergence(means, cell)] * 2, [low, high], color=colour, linewidth=0.6, **style)


def root_of_divergence(means: Mapping[str, Mapping[str, Floats]], cell: str) -> float:
    """The place of a cell in the figure of `draw_curves`."""
    return float(_root(means["kl"][cell])[0])


def _p_value(differences: Floats) -> float:
    """Two-sided bootstrap p value of a difference; NaN if it has no interval."""
    if np.isnan(interval(differences)[1]):
        return np.nan
    resamples = differences[1:][~np.isnan(differences[1:])]
    smaller = min((resamples <= 0).sum(), (resamples >= 0).sum())
    return float(min(1.0, 2 * (smaller + 1) / (len(resamples) + 1)))


def _root(divergence: Floats) -> Floats:
    """The square root. An estimate of a small divergence can be below 0, and counts as 0."""
    return np.sqrt(np.maximum(divergence, 0))
