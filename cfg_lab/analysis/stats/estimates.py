"""Means and paired differences with their uncertainty, right also for few prompts.

Texts of one prompt are alike, so the prompt and not the text is the independent unit: prompts are resampled,
with all their texts. The percentiles of resampled means make intervals that are too short for the 8 to 64
prompts of a usual sweep. What is learned from the resamples instead is how many standard errors a mean is off
(the bootstrap-t, Hall 1988, doi:10.1214/aos/1176350933; with clusters, and the wild bootstrap of differences,
Cameron, Gelbach & Miller 2008, doi:10.1162/rest.90.3.414). `experiments/coverage` compares the constructions.

Everything is deterministic: the resamples depend on the number of prompts alone, and neither the names nor
the order of prompts matter.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cfg_lab.analysis.stats.resampling import (
    EXACT,
    LEVEL,
    RESAMPLES,
    ROUNDING,
    SIGNS,
    Floats,
    batches,
    flipped,
    moments,
    of_size,
    resampled,
    shifts,
    size,
    student,
    two_sided,
)

TAIL = round((RESAMPLES + 1) * LEVEL / 2)
"""Resamples on either side of an interval."""

FEW, MANY_SIGNS, MANY = 6, 12, 1000
"""Student's t serves for means of fewer than FEW prompts (too little to resample), for differences of fewer
than MANY_SIGNS (too few different signs), and for both above MANY (it would be the same)."""

FAR = 20
"""Where fewer signs reach as far as what was found, their share is too rough to be p, and more are drawn."""

WIDEST = 3.0
"""At most this many times Student's: resamples without variation say nothing about the unit."""

POWER = 0.80


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
            size with 80 % power at the 5 % level, as the only comparison made: corrected for many, it takes
            more. A whole number; inf where the difference is 0. It takes the effect for the true one: a plan
            for the next study, not a judgement on this one.
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
    found = moments(sums, counts)
    below, above = student(found.clusters), student(found.clusters)
    off = sums - found.mean * counts
    for part, residuals, drawn in batches(found, off, counts, FEW, MANY, order_by=off):
        t = resampled(residuals, drawn)
        t.partition((TAIL - 1, RESAMPLES - TAIL), axis=1)
        most = WIDEST * student(found.clusters[part])
        # Means that came out too high say how far below the true one may be, and the other way round.
        below[part] = np.minimum(np.maximum(t[:, RESAMPLES - TAIL], 0), most)
        above[part] = np.minimum(np.maximum(-t[:, TAIL - 1], 0), most)
    low, high = found.mean - below * found.error, found.mean + above * found.error
    rows = zip(found.mean.tolist(), low.tolist(), high.tolist(), found.n.tolist(), strict=True)
    return [Estimate(mean, lowest, highest, int(n)) for mean, lowest, highest, n in rows]


def paired_differences(sums: Floats, counts: Floats) -> list[Difference]:
    """`paired_difference` of many columns at once.

    If guidance changes nothing, the two sides of a prompt could as well be exchanged: its difference has
    either sign with equal chance. p is the share of combinations of signs that give a t statistic as far
    from 0 as the one found: an exact test whatever the distribution, and the wild cluster bootstrap with the
    null imposed where the sides differ in more than their mean. The interval reaches as many standard errors
    as leave out 0 exactly where p < 0.05.

    Of MANY_SIGNS to EXACT prompts these are all combinations, and p is at least 2 / 2^prompts. Of more they
    are the SIGNS of a group, or, where fewer than FAR of those reach that far, those of one 64 times as
    large. The signs as found are among them, so p is at least 1 / 262,144. A test by either group is exact,
    and so is this one: the larger group only decides on p values that the smaller one puts below FAR / SIGNS.
    Where prompts differ by equal amounts (as of 0 and 1), p is an estimate of the share of all signs.

    No p is extrapolated beyond the signs there are. So where tests are corrected for their number, few
    prompts cannot answer many questions: with 12 prompts Holm finds nothing among more than 102 tests.

    Below MANY_SIGNS prompts, where there are too few different signs, and above MANY all this is the paired t
    test. Of few prompts its small p values rest on differences that are normal. Of many they need only that
    no handful of prompts makes up most of the variance; the share of signs would be nearly the same. Where
    all prompts differ by the same amount, p is the sign test's 2 / 2^prompts.

    Args:
        sums, counts: [clusters, columns], of differences, as in `mean_intervals`.
    """
    found = moments(sums, counts)
    m = found.clusters
    with np.errstate(divide="ignore", invalid="ignore"):
        t = found.mean / found.error
        effect = t / np.sqrt(m) * _hedges(m - 1)
    p, reach = two_sided(t, m), student(m)
    # By size, which signs do not change: a test is exact only if its signs do not depend on the data's. Equal
    # sizes stand in the order of their signs, so that names have no say; either side may be the baseline.
    towards = np.where(found.mean < 0, -sums, sums)
    for part, totals, drawn in batches(found, towards, counts, MANY_SIGNS, MANY, order_by=np.abs(sums)):
        prompts = totals.shape[1]
        _, *others = shifts(prompts)
        sizes = flipped(totals, drawn)
        if prompts <= EXACT:
            sizes = np.hstack([sizes, *(flipped(totals * shift, drawn) for shift in others)])
        # Where values are few, as of 0 and 1, t statistics are equal up to rounding.
        least = size(t[part, None], m[part, None]) - ROUNDING
        reached, number = (sizes >= least).sum(1), sizes.shape[1]
        p[part] = reached / number
        rank = number - 1 - int(number * LEVEL)
        sizes.partition(rank, axis=1)
        reach[part] = of_size(sizes[:, rank] + ROUNDING, m[part])
        if prompts > EXACT and (far := reached < FAR).any():
            more = sum((flipped(totals[far] * shift, drawn[far]) >= least[far]).sum(1) for shift in others)
            p[part[far]] = (reached[far] + more) / (SIGNS * (1 + len(others)))
    low, high = found.mean - reach * found.error, found.mean + reach * found.error
    still = (found.error == 0) & (m > 1)
    p = np.where(still, np.where(found.mean == 0, 1.0, 2 * 0.5**m), p)
    effect = np.where(still, np.where(found.mean == 0, 0.0, np.nan), effect)
    columns = (found.mean, low, high, found.n, p, effect, prompts_needed(effect))
    rows = zip(*(column.tolist() for column in columns), strict=True)
    return [
        Difference(mean, lowest, highest, int(n), p, effect, needed)
        for mean, lowest, highest, n, p, effect, needed in rows
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

    critical, shift = student(prompts), np.abs(effect) * np.sqrt(prompts)
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


def _totals(values: Floats, clusters: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """Sums and counts of scored values, [clusters, 1]."""
    numbers = {cluster: number for number, cluster in enumerate(dict.fromkeys(clusters))}
    sums, counts = np.zeros((len(numbers), 1)), np.zeros((len(numbers), 1))
    for value, cluster in zip(values.tolist(), clusters, strict=True):
        if not math.isnan(value):
            sums[numbers[cluster]] += value
            counts[numbers[cluster]] += 1
    return sums, counts


def _hedges(degrees: Floats) -> Any:
    """What makes a standardised mean difference unbiased (Hedges 1981, doi:10.3102/10769986006002107)."""
    from scipy.special import gammaln

    safe = np.where(degrees > 1, degrees, np.nan)
    return np.exp(gammaln(safe / 2) - gammaln((safe - 1) / 2)) / np.sqrt(safe / 2)
