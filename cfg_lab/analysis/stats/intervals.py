"""Means with 95 % confidence intervals, by the bootstrap-t over prompts.

Input: for each column, the sum and the number of every prompt's scored values. Steps:

1. Compute the mean over all values, and its cluster-robust standard error.
2. Draw 3,999 resamples of the prompts, with replacement. A prompt brings all its values with it.
3. For each resample compute the t statistic:
   (mean of the resample - mean of step 1) / standard error of the resample.
4. Take the 2.5 % and 97.5 % quantiles of these t statistics as critical values.
5. The interval goes from mean - upper critical value * standard error to
   mean - lower critical value * standard error.

Returned: mean, both ends of the interval, and the number of values.

Why this is valid: the t statistic of a resample relates to the data as the t statistic of the data relates to
the truth (Hall 1988, doi:10.1214/aos/1176350933; with clusters, Cameron, Gelbach & Miller 2008,
doi:10.1162/rest.90.3.414). Percentiles of the resampled means would give intervals that are too short for 8
to 64 prompts. The t statistics also reflect skewness: the interval of a skewed metric is longer on the side
of its tail.

Exceptions:
- With fewer than MIN_PROMPTS_FOR_BOOTSTRAP prompts, Student's t is used, because there are too few different
  resamples.
- With more than MAX_PROMPTS_FOR_RESAMPLING prompts, Student's t is used, because the result of the bootstrap
  would be nearly the same.
- A critical value is at least 0 and at most three times the critical value of Student's t.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from cfg_lab.analysis.stats.bootstrap import RESAMPLES, bootstrap_t_statistics
from cfg_lab.analysis.stats.clustered_means import Floats, clustered_means, column_batches, sums_by_prompt
from cfg_lab.analysis.stats.student_t import MAX_PROMPTS_FOR_RESAMPLING, SIGNIFICANCE_LEVEL, critical_t

MIN_PROMPTS_FOR_BOOTSTRAP = 6
"""With fewer prompts, intervals use Student's t, because there are too few different resamples."""

RESAMPLES_IN_TAIL = round((RESAMPLES + 1) * SIGNIFICANCE_LEVEL / 2)
"""Rank of a critical value, counted from the outermost t statistic."""

MAX_RATIO_TO_STUDENT = 3.0
"""Upper limit of a critical value, as a multiple of Student's critical value.

The limit is needed because the t statistic of a resample with hardly any variation is huge.
"""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A mean with its 95 % confidence interval. A number that cannot be known is NaN.

    Attributes:
        mean: mean over all scored values.
        low, high: ends of the interval.
        n: number of scored values.
    """

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}], n={self.n}"


def mean_interval(values: Sequence[float], prompts: Sequence[Hashable]) -> Estimate:
    """Mean and 95 % confidence interval of the values of one cell.

    Args:
        values: one per text. NaN means unscored; such values are left out and not counted in n.
        prompts: the prompt of each value, such as its id. Duplicates of a prompt must have equal entries.

    Raises:
        ValueError: the two lists differ in length.
    """
    return mean_intervals(*sums_by_prompt(np.asarray(values, np.float64), prompts))[0]


def mean_intervals(sums: Floats, counts: Floats) -> list[Estimate]:
    """`mean_interval` of many columns at once. The module's docstring describes the method.

    Args:
        sums: sum of each prompt's scored values, [prompts, columns].
        counts: number of each prompt's scored values, [prompts, columns]; 0 where a column has none.
    """
    means = clustered_means(sums, counts)
    lower, upper = -critical_t(means.prompts), critical_t(means.prompts)
    residuals = sums - means.mean * counts
    fewest, most = MIN_PROMPTS_FOR_BOOTSTRAP, MAX_PROMPTS_FOR_RESAMPLING
    for batch in column_batches(means, residuals, counts, fewest, most, order_by=residuals):
        t = bootstrap_t_statistics(batch.values, batch.counts)
        t.partition((RESAMPLES_IN_TAIL - 1, RESAMPLES - RESAMPLES_IN_TAIL), axis=1)
        limit = MAX_RATIO_TO_STUDENT * critical_t(means.prompts[batch.columns])
        lower[batch.columns] = np.clip(t[:, RESAMPLES_IN_TAIL - 1], -limit, 0)
        upper[batch.columns] = np.clip(t[:, RESAMPLES - RESAMPLES_IN_TAIL], 0, limit)
    low, high = means.mean - upper * means.standard_error, means.mean - lower * means.standard_error
    fields = {"mean": means.mean, "low": low, "high": high, "n": means.n.astype(np.int64)}
    rows = zip(*(values.tolist() for values in fields.values()), strict=True)
    return [Estimate(**dict(zip(fields, row, strict=True))) for row in rows]
