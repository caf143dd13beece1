"""Means with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean, its 95 % interval, and how many values it is of. NaN where it cannot be known."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}], n={self.n}"


def mean_interval(values: Sequence[float], clusters: Sequence[Hashable]) -> Estimate:
    """Mean and 95 % confidence interval of values that come in clusters.

    Texts of one prompt are alike, so the prompt and not the text is the independent unit: the interval is
    Student's t on the cluster-robust standard error of a ratio mean (Cochran 1977, eq. 2.43 and 6.4), with
    one degree of freedom fewer than there are prompts. With one text a prompt it is the usual t interval.

    Args:
        values: NaN means unscored; such values are left out and not counted in n.
        clusters: of each value, such as its prompt's id.
    """
    sums: dict[Hashable, float] = {}
    counts: dict[Hashable, int] = {}
    for value, cluster in zip(values, clusters, strict=True):
        if not math.isnan(value):
            sums[cluster] = sums.get(cluster, 0.0) + value
            counts[cluster] = counts.get(cluster, 0) + 1
    n, m = sum(counts.values()), len(counts)
    if not n:
        return Estimate(math.nan, math.nan, math.nan, 0)
    mean = sum(sums.values()) / n
    if m < 2:
        return Estimate(mean, math.nan, math.nan, n)
    residuals = np.array([sums[cluster] - mean * counts[cluster] for cluster in sums])
    error = math.sqrt(m / (m - 1) * float((residuals**2).sum())) / n
    half = _t_975(m - 1) * error
    return Estimate(mean, mean - half, mean + half, n)


def _t_975(degrees: int) -> float:
    from scipy.stats import t  # half a second, only where an interval is asked for

    return float(t.ppf(0.975, degrees))
