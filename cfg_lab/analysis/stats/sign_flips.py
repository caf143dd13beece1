"""Paired differences with 95 % confidence intervals and p values, by the sign-flip test over prompts.

Input: for each column, the sum and the number of every prompt's differences (value minus baseline). Steps:

1. Compute the mean difference, its cluster-robust standard error, and their quotient t.
2. Multiply the prompts' sums by a vector of signs and compute t again: one sign flip. Do this for a fixed set
   of sign vectors (see `sign_vectors`), which contains the vector of ones, that is, the data.
   - 12 to 17 prompts: all sign vectors.
   - More prompts: the basic set of 4,096 sign vectors. If fewer than 20 of these sign flips are as extreme as
     the data, use the enlarged set, which is 64 times as large (32 times with 18 prompts).
3. p is the share of sign flips whose |t| is at least as large as that of the data.
4. The critical value is the |t| that the data must exceed for p < 0.05. The interval goes from
   mean - critical value * standard error to mean + critical value * standard error. It therefore excludes 0
   exactly if p < 0.05.

Returned: mean, interval, number of pairs, p, effect size, and the number of prompts that a new study needs.

Why this is valid:
- If guidance changes nothing, values and baseline of a prompt can be exchanged. The difference of the prompt
  then has either sign with equal chance, and the test is exact for any distribution.
- If the distributions of values and baseline differ in more than the mean, for example in skewness, the test
  is in general not exact. It is then the wild cluster bootstrap with the null hypothesis imposed (Cameron,
  Gelbach & Miller 2008, doi:10.1162/rest.90.3.414).
- The test is exact with the basic set alone and with the enlarged set alone. It is also exact if the set is
  chosen as in step 2, because the enlarged set replaces only p values below 20 / 4,096. All other p values
  stay those of the basic set.
- If prompts have differences of the same size (as with metrics of 0 and 1) and not all sign vectors are used,
  p is only an estimate of the p value that all sign vectors would give.

Limits:
- p is at least 2 / 2^prompts with 12 to 19 prompts, and at least 1 / 262,144 with more. No smaller p
  value is extrapolated. A study with few prompts can therefore not make many comparisons: with 12 prompts
  and more than 102 tests, no p value is below 0.05 after Holm's correction.
- With fewer than 12 prompts, the paired t test is used, because there are too few different sign vectors. A
  small p value of the t test is then valid only if the differences are normal.
- With more than 1,000 prompts, the paired t test is used, because the result of the sign-flip test would be
  nearly the same. A p value of the t test is then valid unless a few prompts make up most of the variance.
- If the difference (value minus baseline) is the same for all prompts and is not 0, p is 2 / 2^prompts, as in
  the sign test.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cfg_lab.analysis.stats.clustered_means import (
    TOLERANCE,
    Floats,
    clustered_means,
    column_batches,
    sums_by_prompt,
)
from cfg_lab.analysis.stats.power import prompts_needed
from cfg_lab.analysis.stats.sign_vectors import BASIC_SIZE, FREE_SIGNS, basic_signs, sign_multipliers
from cfg_lab.analysis.stats.student_t import (
    MAX_PROMPTS_FOR_RESAMPLING,
    SIGNIFICANCE_LEVEL,
    critical_t,
    t_test_p,
)

MIN_PROMPTS_FOR_SIGN_FLIPS = FREE_SIGNS
"""With fewer prompts the paired t test is used, because there are too few different sign vectors."""

MAX_PROMPTS_FOR_ALL_SIGN_FLIPS = 17
"""With up to this many prompts all sign vectors are used, so p is exact and does not depend on the set."""

MIN_EXTREME_SIGN_FLIPS = 20
"""If fewer sign flips of the basic set are as extreme as the data, p is computed with the enlarged set."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A mean of paired differences, value minus baseline. A number that cannot be known is NaN.

    Attributes:
        mean: mean over all pairs.
        low, high: ends of the 95 % confidence interval, which excludes 0 exactly if p < 0.05.
        n: number of pairs in which both values are scored.
        p: two-sided p value of the null hypothesis that the mean difference is 0. In [0, 1].
        effect: Cohen's d_z with Hedges' correction for few prompts: the mean divided by the standard
            deviation of the prompts' differences. NaN if the differences do not vary, or with fewer than
            three prompts.
        needed: number of prompts that a new study needs to find this effect with 80 % power, by a paired t
            test at the 5 % level. Infinite if the difference is 0. Three assumptions: the true effect equals
            `effect`, the new study has as many texts per prompt as this one, and it makes this comparison
            alone. If it makes several comparisons and corrects p for their number, it needs more prompts.
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


def paired_difference(
    values: Sequence[float], baseline: Sequence[float], prompts: Sequence[Hashable]
) -> Difference:
    """Mean of paired differences (value minus baseline), with its 95 % interval and p value.

    Args:
        values, baseline: aligned lists: entry i of both has the same prompt, sample and noise. A pair with a
            NaN is left out.
        prompts: the prompt of each pair, such as its id. Duplicates of a prompt must have equal entries.

    Raises:
        ValueError: the lists differ in length.
    """
    differences = np.asarray(values, np.float64) - np.asarray(baseline, np.float64)
    return paired_differences(*sums_by_prompt(differences, prompts))[0]


def paired_differences(sums: Floats, counts: Floats) -> list[Difference]:
    """`paired_difference` of many columns at once. The module's docstring describes the method.

    Args:
        sums: sum of each prompt's differences, [prompts, columns].
        counts: number of each prompt's differences, [prompts, columns]; 0 where a column has none.
    """
    means = clustered_means(sums, counts)
    prompts = means.prompts
    with np.errstate(divide="ignore", invalid="ignore"):
        t = means.mean / means.standard_error
        effect = t / np.sqrt(prompts) * _hedges_correction(prompts - 1)
    p, critical = t_test_p(t, prompts), critical_t(prompts)
    # Exchanging values and baseline must change only the sign of the mean, so every mean is made positive.
    # Prompts are sorted by the size of their sums, which sign flips do not change: the test is exact only if
    # the sign vectors do not depend on the signs in the data.
    turned = np.where(means.mean < 0, -sums, sums)
    fewest, most = MIN_PROMPTS_FOR_SIGN_FLIPS, MAX_PROMPTS_FOR_RESAMPLING
    for batch in column_batches(means, turned, counts, fewest, most, order_by=np.abs(sums)):
        columns = batch.columns
        p[columns], critical[columns] = _sign_flip_test(batch.values, batch.counts, t[columns])
    low, high = means.mean - critical * means.standard_error, means.mean + critical * means.standard_error
    constant = (means.standard_error == 0) & (prompts > 1)
    p = np.where(constant, np.where(means.mean == 0, 1.0, 2 * 0.5**prompts), p)
    effect = np.where(constant, np.where(means.mean == 0, 0.0, np.nan), effect)
    fields = {"mean": means.mean, "low": low, "high": high, "n": means.n.astype(np.int64), "p": p}
    fields |= {"effect": effect, "needed": prompts_needed(effect)}
    rows = zip(*(values.tolist() for values in fields.values()), strict=True)
    return [Difference(**dict(zip(fields, row, strict=True))) for row in rows]


def _sign_flip_test(sums: Floats, counts: Floats, t: Floats) -> tuple[Floats, Floats]:
    """p value and critical |t| of each column, both [columns].

    This function does steps 2 to 4 of the module's docstring.

    Args:
        sums, counts: for each prompt the sum and the number of its differences, [columns, prompts].
        t: t statistics of the data, [columns].
    """
    prompts = sums.shape[1]
    _, *multipliers = sign_multipliers(prompts)
    # Step 2: R^2 of each sign flip, [columns, flips]; it orders sign flips as |t| does.
    flipped = _flipped_r_squared(sums, counts)
    if prompts <= MAX_PROMPTS_FOR_ALL_SIGN_FLIPS:
        flipped = np.hstack([flipped, *(_flipped_r_squared(sums * signs, counts) for signs in multipliers)])
    # Step 3. Metrics with few values, such as 0 and 1, give many t statistics that are equal up to rounding.
    # These ties count as extreme.
    observed = _r_squared(t, prompts)[:, None] - TOLERANCE
    extreme, number = (flipped >= observed).sum(1), flipped.shape[1]
    p = extreme / number
    # Step 4: at most 5 % of the sign flips have a larger R^2 than the sign flip of this rank.
    rank = number - 1 - int(number * SIGNIFICANCE_LEVEL)
    flipped.partition(rank, axis=1)
    critical = _t_from_r_squared(flipped[:, rank] + TOLERANCE, prompts)
    if prompts > MAX_PROMPTS_FOR_ALL_SIGN_FLIPS and (rough := extreme < MIN_EXTREME_SIGN_FLIPS).any():
        further = sum(
            (_flipped_r_squared(sums[rough] * signs, counts[rough]) >= observed[rough]).sum(1)
            for signs in multipliers
        )
        p[rough] = (extreme[rough] + further) / (BASIC_SIZE * (1 + len(multipliers)))
    return p, critical


def _flipped_r_squared(sums: Floats, counts: Floats) -> Floats:
    """R^2 (see `_r_squared`) of every sign flip of the basic set, [columns, BASIC_SIZE].

    Args:
        sums, counts: for each prompt the sum and the number of its differences, [columns, prompts].
    """
    prompts = sums.shape[1]
    signs = basic_signs(prompts).T  # [prompts, BASIC_SIZE]
    total, squares = sums @ signs, (sums**2).sum(1, keepdims=True)
    if np.ptp(counts, axis=1).any():  # unequal counts: the residuals' squares depend on the flip
        n = counts.sum(1, keepdims=True)
        factor = 1 / prompts + (counts**2).sum(1, keepdims=True) / n**2
        squares = squares + total * (factor * total - 2 / n * ((sums * counts) @ signs))
    return total**2 / (prompts * squares)


def _r_squared(t: Floats, prompts: int) -> Floats:
    """The share of the sum of squares that the mean explains, t^2 / (t^2 + prompts - 1), in [0, 1].

    This share, R^2, rises with |t|, so it orders sign flips as |t| does. The rounding error of R^2 is small
    for every t, whereas t itself has a large rounding error if the prompts hardly vary.
    """
    return t**2 / (t**2 + prompts - 1)


def _t_from_r_squared(r_squared: Floats, prompts: int) -> Floats:
    """The absolute value of the t statistic that belongs to an R^2. This is the inverse of `_r_squared`."""
    return np.sqrt((prompts - 1) * r_squared / (1 - r_squared))


def _hedges_correction(degrees: Floats) -> Any:
    """Factor that makes Cohen's d unbiased (Hedges 1981, doi:10.3102/10769986006002107).

    Args:
        degrees: number of degrees of freedom. The factor is NaN if this number is at most 1.
    """
    from scipy.special import gammaln

    valid = np.where(degrees > 1, degrees, np.nan)
    return np.exp(gammaln(valid / 2) - gammaln((valid - 1) / 2)) / np.sqrt(valid / 2)
