"""Means and paired differences with their uncertainty: a cluster bootstrap, made right for few prompts.

Texts of one prompt are alike, so the prompt and not the text is the independent unit: prompts are resampled,
with all their texts. The percentiles of resampled means make intervals that are too short for the 8 to 64
prompts of a usual sweep. What is learned from the resamples instead is how many standard errors a mean is off
(the bootstrap-t, Hall 1988, doi:10.1214/aos/1176350933; with clusters Cameron, Gelbach & Miller 2008,
doi:10.1162/rest.90.3.414). `experiments/coverage` measures what either covers.

Everything is deterministic: the resamples depend on the number of prompts alone, and neither the names nor
the order of prompts matter.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 3999
"""(RESAMPLES + 1) times 2.5 % is whole, so that a quantile is one of the resamples."""

FEW, MANY = 6, 1000
"""From FEW to MANY prompts the bootstrap says how many standard errors an interval reaches; Student's t does
where there are fewer (too little to resample) and where there are more (the two agree)."""

WIDEST = 3.0
"""At most this many times Student's: resamples without variation say nothing about the unit."""

LEVEL, POWER = 0.05, 0.80


@dataclass(frozen=True)
class Estimate:
    """A mean, its 95 % interval, and how many values it is of. NaN where it cannot be known."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}], n={self.n}"


@dataclass(frozen=True)
class Difference:
    """A mean of paired differences, value minus baseline. NaN where something cannot be known.

    Attributes:
        mean, low, high: of the differences, with the 95 % interval; it leaves out 0 exactly where p < 0.05.
        n: pairs in which both are scored.
        p: two-sided, of the null hypothesis that the mean difference is 0. In [0, 1].
        effect: Cohen's d_z, the mean in standard deviations of the prompts' differences, times Hedges' factor
            for few prompts. NaN where the differences do not vary, or of fewer than three prompts.
        needed: prompts, with as many texts each, with which a paired t test would find an effect of this
            size with 80 % power at the 5 % level. A whole number; inf where the difference is 0. It takes the
            effect for the true one: a plan for the next study, not a judgement on this one.
    """

    mean: float
    low: float
    high: float
    n: int
    p: float
    effect: float
    needed: float

    def __str__(self) -> str:
        return f"{self.mean:+.3g} [{self.low:+.3g}, {self.high:+.3g}], p={self.p:.2g}, n={self.n}"


def mean_interval(values: Sequence[float], clusters: Sequence[Hashable]) -> Estimate:
    """Mean of values that come in clusters, with a 95 % confidence interval: see `mean_intervals`.

    Args:
        values: NaN means unscored; such values are left out and not counted in n.
        clusters: of each value, such as its prompt's id.
    """
    return mean_intervals(*_totals(np.asarray(values, np.float64), clusters))[0]


def paired_difference(
    values: Sequence[float], baseline: Sequence[float], clusters: Sequence[Hashable]
) -> Difference:
    """Mean of values minus baseline, pair by pair: see `paired_differences`.

    Args:
        values, baseline: aligned: the same prompt, sample and noise. A pair with a NaN is left out.
        clusters: of each pair, such as its prompt's id.
    """
    differences = np.asarray(values, np.float64) - np.asarray(baseline, np.float64)
    return paired_differences(*_totals(differences, clusters))[0]


def mean_intervals(sums: Floats, counts: Floats) -> list[Estimate]:
    """`mean_interval` of many columns at once.

    The mean is over texts, sum of sums / sum of counts. Its standard error is cluster-robust (Cochran 1977,
    eq. 6.4), and on each side the interval reaches as many of them as the bootstrap-t says: the interval of a
    skewed metric is longer on the side of its tail.

    Args:
        sums, counts: [clusters, columns], of a cluster's scored values; count 0 where a column has none.
    """
    found = _columns(sums, counts)
    low, high = found.mean - found.above * found.error, found.mean + found.below * found.error
    rows = zip(found.mean.tolist(), low.tolist(), high.tolist(), found.n.tolist(), strict=True)
    return [Estimate(mean, below, above, int(n)) for mean, below, above, n in rows]


def paired_differences(sums: Floats, counts: Floats) -> list[Difference]:
    """`paired_difference` of many columns at once.

    The interval is the symmetric bootstrap-t: on both sides of the mean as many cluster-robust standard
    errors as 95 % of the resamples are off by at most. p is of Student's t, in a unit stretched such that its
    5 % point is the bootstrap's: p and interval agree, and p goes as far down as corrections for many tests
    need, which a count of resamples does not. Where all prompts differ by the same amount, p is the sign
    test's 2 / 2^prompts.

    Args:
        sums, counts: [clusters, columns], of differences, as in `mean_intervals`.
    """
    from scipy.special import stdtr

    found = _columns(sums, counts)
    m, reach = found.clusters, found.either
    low, high = found.mean - reach * found.error, found.mean + reach * found.error
    with np.errstate(divide="ignore", invalid="ignore"):
        t = found.mean / found.error
        tail = cast("Any", stdtr)(m - 1, -np.abs(t) * _student(m) / reach)
        effect = t / np.sqrt(m) * _hedges(m - 1)
    still = (found.error == 0) & (m > 1)
    p = np.where(still, np.where(found.mean == 0, 1.0, 2 * 0.5**m), 2 * tail)
    effect = np.where(still, np.where(found.mean == 0, 0.0, np.nan), effect)
    columns = (found.mean, low, high, found.n, p, effect, prompts_needed(effect))
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        Difference(mean, below, above, int(n), p, effect, needed)
        for mean, below, above, n, p, effect, needed in rows
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for their number (Holm 1979, jstor.org/stable/4615733).

    Where effects are called real if their adjusted p is below 0.05, at most 5 % of studies call any wrongly
    so, however the tests depend on each other. NaN stays NaN and does not count.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]
    adjusted = np.full(len(p), np.nan)
    steps = p[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return adjusted.tolist()


def power(effect: Floats, prompts: Floats) -> Any:
    """Chance that a two-sided paired t test over so many prompts finds an effect d_z at the 5 % level."""
    from scipy.special import nctdtr

    critical, shift = _student(prompts), np.abs(effect) * np.sqrt(prompts)
    return 1 - nctdtr(prompts - 1, shift, critical) + nctdtr(prompts - 1, shift, -critical)


def prompts_needed(effect: Floats) -> Floats:
    """Fewest prompts, at least 2, that reach a power of 80 %; inf for no effect, NaN for NaN.

    Exact below 1000 prompts, from there by Guenther's approximation (1981, doi:10.2307/2683010).
    """
    from scipy.special import ndtri

    quantile = ndtri(1 - LEVEL / 2)
    with np.errstate(divide="ignore"):
        guess = np.ceil(((quantile + ndtri(POWER)) / effect) ** 2 + quantile**2 / 2)
    prompts = np.maximum(guess, 2)
    exact = prompts < 1000
    m, d = prompts[exact], effect[exact]
    while (fewer := (m > 2) & (power(d, np.maximum(m - 1, 2)) >= POWER)).any():
        m = m - fewer
    while (more := power(d, m) < POWER).any():
        m = m + more
    prompts[exact] = m
    return prompts


@lru_cache(maxsize=8)
def resamples(clusters: int) -> Floats:
    """How often each cluster is drawn in each bootstrap resample: [RESAMPLES, clusters]."""
    generator = np.random.default_rng(clusters)
    return generator.multinomial(clusters, np.full(clusters, 1 / clusters), RESAMPLES).astype(np.float64)


@dataclass(frozen=True)
class _Columns:
    """What intervals are made of, each [columns]. `above` and `below`: how many standard errors above or
    below the mean one resampled mean in 40 is; `either`: how many one in 20 is off, on whichever side."""

    mean: Floats
    error: Floats
    n: Floats
    clusters: Floats
    above: Floats
    below: Floats
    either: Floats


def _columns(sums: Floats, counts: Floats) -> _Columns:
    n, clusters = counts.sum(0), np.count_nonzero(counts, axis=0).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = sums.sum(0) / n
        residuals = sums - mean * counts
        error = np.sqrt(clusters / (clusters - 1) * (residuals**2).sum(0)) / n
    # Equal values leave residuals of rounding, which are no variation.
    error = np.where(error <= 1e-12 * np.abs(sums).max(0, initial=0), 0, error)
    error = np.where(clusters < 2, np.nan, error)
    reach = np.tile(_student(clusters), (3, 1))
    for number in {int(m) for m in clusters if FEW <= m <= MANY}:
        which = np.flatnonzero((clusters == number) & (error > 0))
        for part in np.array_split(which, 1 + len(which) // 256):  # [columns, RESAMPLES] at a time
            rows = _sorted_clusters(residuals[:, part], counts[:, part], number)
            reach[:, part] = np.clip(_quantiles(*rows), 0, WIDEST * _student(clusters[part]))
    return _Columns(mean, error, n, clusters, *reach)


def _sorted_clusters(residuals: Floats, counts: Floats, clusters: int) -> tuple[Floats, Floats]:
    """The clusters that a column has, [columns, clusters], in an order that their names have no say in."""
    order = np.lexsort((counts, residuals, counts == 0), axis=0)[:clusters]
    return np.take_along_axis(residuals, order, 0).T, np.take_along_axis(counts, order, 0).T


def _quantiles(residuals: Floats, counts: Floats) -> tuple[Floats, Floats, Floats]:
    """How many standard errors off resampled means are: above, below, either; from [columns, clusters]."""
    clusters = residuals.shape[1]
    weights = resamples(clusters).T
    drawn = counts @ weights  # [columns, RESAMPLES]: texts in a resample
    off = (residuals @ weights) / drawn
    squares = (
        (residuals**2) @ weights - 2 * off * ((residuals * counts) @ weights) + off**2 * (counts**2 @ weights)
    )
    rounding = 1e-12 * (residuals**2).sum(1, keepdims=True)
    error = np.sqrt(clusters / (clusters - 1) * np.where(squares > rounding, squares, 0)) / drawn
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.nan_to_num(off / error, nan=0.0, posinf=np.inf, neginf=-np.inf)  # 0/0: not off at all
    last = round((RESAMPLES + 1) * LEVEL / 2)
    t.partition((last - 1, RESAMPLES - last), axis=1)
    below, above = -t[:, last - 1], t[:, RESAMPLES - last].copy()
    either = np.partition(np.abs(t), RESAMPLES - 2 * last, axis=1)[:, RESAMPLES - 2 * last]
    return above, below, either


def _totals(values: Floats, clusters: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Sums and counts of scored values, [clusters, 1]."""
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    sums, counts = np.zeros((len(numbers), 1)), np.zeros((len(numbers), 1))
    for value, cluster in zip(values.tolist(), clusters, strict=True):
        if not math.isnan(value):
            sums[numbers[cluster]] += value
            counts[numbers[cluster]] += 1
    return sums, counts


def _student(clusters: Floats) -> Any:
    """97.5 % point of Student's t with one degree of freedom fewer than clusters; NaN below two."""
    from scipy.special import stdtrit  # a third of a second, only where an interval is asked for

    return stdtrit(np.where(clusters > 1, clusters - 1, np.nan), 1 - LEVEL / 2)


def _hedges(degrees: Floats) -> Any:
    """What makes a standardised mean difference unbiased (Hedges 1981, doi:10.3102/10769986006002107)."""
    from scipy.special import gammaln

    safe = np.where(degrees > 1, degrees, np.nan)
    return np.exp(gammaln(safe / 2) - gammaln((safe - 1) / 2)) / np.sqrt(safe / 2)
