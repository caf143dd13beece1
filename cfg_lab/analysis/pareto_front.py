"""The Pareto front of two metrics, and how sure it is."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cfg_lab.analysis.frame import Floats, Pairs, known_metrics
from cfg_lab.analysis.stats.resampling import resamples
from cfg_lab.errors import InputError
from cfg_lab.metrics.column_info import Direction
from cfg_lab.metrics.known_columns import better

RESAMPLES = 1000
"""Of the prompts; a probability is known to within 0.03."""


def pareto(
    results: pd.DataFrame,
    x: str,
    y: str,
    x_better: Direction | None = None,
    y_better: Direction | None = None,
) -> pd.DataFrame:
    """Which cells no other cell beats: none is at least as good in x and in y, and better in one.

    Args:
        results: from `cfg_lab.load_results`.
        x, y: two metrics.
        x_better, y_better: which direction is good, "higher" or "lower"; by default what `better` says.

    Returns:
        A row a cell: `cell`, the means under the names of x and y, `on_front`, and `probability`, the share
        of bootstrap resamples of the prompts in which the cell is on the front. All cells see the same
        resamples, so what prompts do to all of them alike does not count. A cell without one of the means
        is not on the front.

    Raises:
        InputError: there is no such metric, or it has no direction and none is given.
    """
    known_metrics(results, [x, y])
    signs = np.array([_sign(x, "x_better", x_better), _sign(y, "y_better", y_better)])
    pairs = Pairs.of(results)
    totals = [pairs.by_prompt(pairs.values(results[name])) for name in (x, y)]
    sums, counts = (np.stack(parts) for parts in zip(*totals, strict=True))  # [2, prompts, cells]
    # Cells of the same texts, such as scale 1 with several negatives, are one point: rounding ranks no one.
    stacked = np.concatenate([*sums, *counts])
    _, first, point = np.unique(stacked, axis=1, return_index=True, return_inverse=True)
    drawn = resamples(sums.shape[1], RESAMPLES)
    fronts = np.array(
        [_front(*costs) for costs in _means(sums[..., first], counts[..., first], drawn, signs)]
    )
    every = np.ones((1, sums.shape[1]))
    x_mean, y_mean = _means(sums, counts, every, np.ones(2))[0]
    on_front = _front(*_means(sums[..., first], counts[..., first], every, signs)[0])
    return pd.DataFrame(
        {
            "cell": pairs.cells,
            x: x_mean,
            y: y_mean,
            "on_front": on_front[point],
            "probability": fronts.mean(0)[point],
        }
    )


def _sign(metric: str, key: str, given: Direction | None) -> float:
    """What makes a cost of a metric."""
    way = given or better(metric)
    if way not in {"higher", "lower"}:
        raise InputError(
            f"{key} is {way!r}, and {metric!r} has no direction of its own; it is higher or lower"
        )
    return 1.0 if way == "lower" else -1.0


def _means(sums: Floats, counts: Floats, weights: Floats, signs: Floats) -> Floats:
    """From sums and counts [2, prompts, cells] and resamples [number, prompts]: [number, 2, cells]."""
    with np.errstate(invalid="ignore"):
        means = (weights @ sums) / (weights @ counts)  # [2, number, cells]
    return np.moveaxis(means, 1, 0) * signs[:, None]


def _front(x: Floats, y: Floats) -> NDArray[np.bool_]:
    """Which points, of costs, no other point beats; points with a NaN are not among them."""
    x_of, y_of = x[:, None], y[:, None]  # [points, others]
    beaten = (x <= x_of) & (y <= y_of) & ((x < x_of) | (y < y_of))
    return ~beaten.any(1) & ~np.isnan(x) & ~np.isnan(y)
