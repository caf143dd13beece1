"""Bootstrap resamples of prompts, and the t statistics of resampled means."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from cfg_lab.analysis.stats.clustered_means import TOLERANCE, Floats

RESAMPLES = 3999
"""Number of resamples. 2.5 % of RESAMPLES + 1 is a whole number, so each quantile is one of the resamples."""


@lru_cache(maxsize=8)
def resample_counts(prompts: int, number: int = RESAMPLES) -> Floats:
    """How often each prompt occurs in each bootstrap resample, [number, prompts].

    Each resample draws as many prompts as the data has, with replacement. The random generator is seeded with
    the number of prompts, so all cells and metrics get the same resamples.
    """
    generator = np.random.default_rng(prompts)
    return generator.multinomial(prompts, np.full(prompts, 1 / prompts), number).astype(np.float64)


def bootstrap_t_statistics(residuals: Floats, counts: Floats) -> Floats:
    """The t statistic of each resampled mean, [columns, RESAMPLES].

    t = (resampled mean - mean of the data) / standard error of the resample. If the values of a resample do
    not vary, t is 0 or infinite.

    Args:
        residuals: one per prompt, [columns, prompts]. The residual of a prompt is
            (sum of its values) - (mean of the data) * (number of its values).
        counts: number of values of each prompt, [columns, prompts].
    """
    prompts = residuals.shape[1]
    weights = resample_counts(prompts).T  # [prompts, RESAMPLES]
    n = counts @ weights  # values in each resample
    deviation = (residuals @ weights) / n
    # The sum over prompts of weight * (residual - deviation * count)^2, multiplied out.
    products = (residuals * counts) @ weights
    squares = (residuals**2) @ weights - 2 * deviation * products + deviation**2 * (counts**2 @ weights)
    # Sums of squares that are rounding errors of their terms are set to 0, and 0 / 0 is taken as 0.
    varied = squares > TOLERANCE * (residuals**2).sum(1, keepdims=True)
    error = np.sqrt(prompts / (prompts - 1) * np.where(varied, squares, 0)) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(deviation / error, copy=False, nan=0.0, posinf=np.inf, neginf=-np.inf)
