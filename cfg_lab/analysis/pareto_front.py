"""The Pareto front of two metrics, with the probability that a cell is on the front, for each cell.

A cell is one combination of settings, with the texts that were written with these settings.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cfg_lab.analysis.frame import AlignedTexts, checked_metrics
from cfg_lab.analysis.stats.bootstrap import resample_counts
from cfg_lab.analysis.stats.clustered_means import Floats
from cfg_lab.errors import InputError
from cfg_lab.metrics.column_info import Direction
from cfg_lab.metrics.known_columns import better

FRONT_RESAMPLES = 1000
"""Number of bootstrap resamples of the prompts. The error of a probability is then at most about 0.03."""


def pareto(
    results: pd.DataFrame,
    x: str,
    y: str,
    x_better: Direction | None = None,
    y_better: Direction | None = None,
) -> pd.DataFrame:
    """Find out which cells are on the Pareto front of two metrics, and with what probability.

    A cell is on the front if no other cell is at least as good in both metrics and better in one.

    Args:
        results: from `cfg_lab.load_results`.
        x, y: names of two metrics.
        x_better, y_better: which values of each metric are better, "higher" or "lower". None takes the
            direction that the metric declares, see `cfg_lab.analysis.better`.

    Returns:
        One row per cell: `cell`, the means in columns named x and y, `on_front`, and `probability`. The
        probability is the share of bootstrap resamples of the prompts in which the cell is on the front. All
        cells get the same resamples, so effects that a prompt has on all cells cancel out. A cell that lacks
        one of the means is not on the front.

    Raises:
        InputError: the results have no such metric. Or `x_better` or `y_better` is None, and its metric does
            not declare which values are better.
    """
    checked_metrics(results, [x, y])
    signs = np.array([_cost_sign(x, "x_better", x_better), _cost_sign(y, "y_better", y_better)])
    texts = AlignedTexts.from_results(results)
    totals = {name: texts.sums_by_prompt(texts.table(results[name])) for name in (x, y)}
    return _pareto(texts.cells, totals, x, y, signs)


def pareto_fronts(
    results: pd.DataFrame, pairs: Sequence[tuple[str, str]]
) -> Iterator[tuple[tuple[str, str], pd.DataFrame]]:
    """`pareto` of several pairs of metrics that declare which values are better.

    A large frame is aligned once, instead of once for each pair.

    Args:
        results: from `cfg_lab.load_results`.
        pairs: names of metrics, as (x, y).

    Yields:
        Each pair, and what `pareto` returns for it.
    """
    names = checked_metrics(results, list({name: None for pair in pairs for name in pair}))
    texts = AlignedTexts.from_results(results)
    totals = {name: texts.sums_by_prompt(texts.table(results[name])) for name in names}
    for x, y in pairs:
        signs = np.array([_cost_sign(x, "x_better", None), _cost_sign(y, "y_better", None)])
        yield (x, y), _pareto(texts.cells, totals, x, y, signs)


def _pareto(
    cells: Sequence[str], totals: Mapping[str, tuple[Floats, Floats]], x: str, y: str, signs: Floats
) -> pd.DataFrame:
    """See `pareto`.

    Args:
        cells: ids of the cells.
        totals: metric -> sums and counts of its values, both [prompts, cells].
        x, y: names of two metrics.
        signs: the factors of both metrics from `_cost_sign`, [2].
    """
    sums, counts = (np.stack(arrays) for arrays in zip(totals[x], totals[y], strict=True))
    # Both are [2, prompts, cells].
    # Cells with the same texts, such as scale 1 with several negatives, become one point. Otherwise rounding
    # errors would put one of them before the other.
    stacked = np.concatenate([*sums, *counts])
    _, first, point = np.unique(stacked, axis=1, return_index=True, return_inverse=True)
    weights = resample_counts(sums.shape[1], FRONT_RESAMPLES)
    resampled_fronts = np.array(
        [_front(*costs) for costs in _means(sums[..., first], counts[..., first], weights, signs)]
    )
    all_prompts = np.ones((1, sums.shape[1]))
    x_mean, y_mean = _means(sums, counts, all_prompts, np.ones(2))[0]
    on_front = _front(*_means(sums[..., first], counts[..., first], all_prompts, signs)[0])
    return pd.DataFrame(
        {
            "cell": cells,
            x: x_mean,
            y: y_mean,
            "on_front": on_front[point],
            "probability": resampled_fronts.mean(0)[point],
        }
    )


def _cost_sign(metric: str, argument: str, direction: Direction | None) -> float:
    """The factor that turns a metric into a cost: 1 if lower values are better, -1 if higher values are.

    A lower cost is better.
    """
    direction = direction or better(metric)
    if direction not in {"higher", "lower"}:
        raise InputError(
            f"{argument} is {direction!r}, and {metric!r} has no direction of its own; it is higher or lower"
        )
    return 1.0 if direction == "lower" else -1.0


def _means(sums: Floats, counts: Floats, weights: Floats, signs: Floats) -> Floats:
    """Means of both metrics in each resample of the prompts, [resamples, 2, cells].

    Each mean is multiplied by the sign of its metric.

    Args:
        sums, counts: for each prompt the sum of its values and their number, [2, prompts, cells].
        weights: how often each prompt occurs in each resample, [resamples, prompts].
        signs: the sign of each metric, [2]. It is 1, or the sign from `_cost_sign`.
    """
    with np.errstate(invalid="ignore"):
        means = (weights @ sums) / (weights @ counts)  # [2, resamples, cells]
    return np.moveaxis(means, 1, 0) * signs[:, None]


def _front(x: Floats, y: Floats) -> NDArray[np.bool_]:
    """Whether each point is on the Pareto front, [points] bool. `x` and `y` are the costs of the points.

    A point with a cost of NaN is not on the front.
    """
    x_of, y_of = x[:, None], y[:, None]  # [points, 1], against all others [points]
    dominated = (x <= x_of) & (y <= y_of) & ((x < x_of) | (y < y_of))
    return ~dominated.any(1) & ~np.isnan(x) & ~np.isnan(y)
