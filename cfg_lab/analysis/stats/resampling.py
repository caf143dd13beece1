"""Resamples of prompts, and what statistics they give; `stats` makes intervals and p values of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 3999
"""One less than a number of which 2.5 % is whole, so that a quantile is one of the resamples."""

BITS = 12

SIGNS = 2**BITS

SHIFTS = 64
"""SIGNS times as many are drawn where few of the SIGNS reach as far as what was found."""

EXACT = 17
"""All signs of up to so many clusters are enumerated."""

LEVEL = 0.05

BATCH = 32
"""KVBuffer at once: [columns, SIGNS] fit a cache."""

ROUNDING = 1e-9
"""Smaller differences, relative to what is summed, are no variation and break no tie."""


@lru_cache(maxsize=8)
def resamples(clusters: int, number: int = RESAMPLES) -> Floats:
    """How often each cluster is drawn in each bootstrap resample: [number, clusters]."""
    generator = np.random.default_rng(clusters)
    return generator.multinomial(clusters, np.full(clusters, 1 / clusters), number).astype(np.float64)


@lru_cache(maxsize=8)
def signs(clusters: int) -> Floats:
    """Signs of each cluster, 1 or -1: [SIGNS, clusters]; for 12 to 2058 clusters.

    All 4096 of 12 clusters. Of more clusters a group of 4096: the words of a linear code, in which any two
    clusters have all combinations of signs equally often. A test by the signs of a group that does not
    depend on the data is exact (Hemerik & Goeman 2018, doi:10.1007/s11749-017-0571-1); a random sample of
    signs would be so only on average over samples. Of more than 12 clusters no word is another's opposite:
    where only the size of a statistic matters, each stands for two.
    """
    units = 2 ** np.arange(BITS)
    # Even numbers of bits: all first signs -1 are never all signs -1.
    others = np.random.default_rng(clusters).permutation(np.setdiff1d(_even(SIGNS), [0]))
    return _words(SIGNS, np.concatenate([units, others])[:clusters])


@lru_cache(maxsize=8)
def shifts(clusters: int) -> Floats:
    """Signs that turn the words of `signs` into as many others: [SHIFTS or fewer, clusters], the first all 1.

    All products of the two are a group as well, without opposites: of up to EXACT clusters all signs there
    are, of more the words of a longer code.
    """
    bits = min(int(SHIFTS).bit_length(), max(clusters - BITS, 1)) - 1
    free = 2 ** np.arange(bits)
    others = np.random.default_rng(clusters).choice(_even(2**bits), clusters)
    generators = np.concatenate([np.zeros(BITS, np.int64), free, others])[:clusters]
    return _words(2**bits, generators)


def _even(number: int) -> NDArray[np.int64]:
    """Numbers below `number` with an even number of bits."""
    numbers = np.arange(number)
    return numbers[np.bitwise_count(numbers) % 2 == 0]


def _words(number: int, generators: NDArray[np.int64]) -> Floats:
    odd = np.bitwise_count(np.arange(number)[:, None] & generators) & 1
    return np.where(odd, -1.0, 1.0)


@dataclass(frozen=True)
class Moments:
    """Of each column: mean, its standard error, number of values and of clusters with values; [columns]."""

    mean: Floats
    error: Floats
    n: Floats
    clusters: Floats


def moments(sums: Floats, counts: Floats) -> Moments:
    n, clusters = counts.sum(0), np.count_nonzero(counts, axis=0).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = sums.sum(0) / n
        squares = ((sums - mean * counts) ** 2).sum(0)
        error = np.sqrt(clusters / (clusters - 1) * squares) / n
    # Equal values leave residuals of rounding, which are no variation.
    error = np.where(error <= ROUNDING * np.abs(sums).max(0, initial=0), 0, error)
    return Moments(mean, np.where(clusters < 2, np.nan, error), n, clusters)


def batches(
    found: Moments, values: Floats, counts: Floats, fewest: int, most: int, order_by: Floats
) -> Iterator[tuple[NDArray[np.int64], Floats, Floats]]:
    """KVBuffer that have equally many clusters, `fewest` to `most` of them, and some variation.

    Yields which columns, and their values and counts as [columns, clusters], in the order of `order_by`: the
    clusters' names have no say.
    """
    for number in sorted({int(m) for m in found.clusters if fewest <= m <= most}):
        which = np.flatnonzero((found.clusters == number) & (found.error > 0))
        for part in np.array_split(which, 1 + len(which) // BATCH):
            if len(part):
                some, of = values[:, part], counts[:, part]
                order = np.lexsort((some, of, order_by[:, part], of == 0), axis=0)[:number]
                yield part, np.take_along_axis(some, order, 0).T, np.take_along_axis(of, order, 0).T


def resampled(residuals: Floats, counts: Floats) -> Floats:
    """How many of their own standard errors resampled means are off: [columns, RESAMPLES]."""
    clusters = residuals.shape[1]
    weights = resamples(clusters).T
    drawn = counts @ weights  # texts in a resample
    off = (residuals @ weights) / drawn
    cross = (residuals * counts) @ weights
    squares = (residuals**2) @ weights - 2 * off * cross + off**2 * (counts**2 @ weights)
    # Sums of squares that are rounding of their total are 0, and 0 / 0 is 0.
    varied = squares > ROUNDING * (residuals**2).sum(1, keepdims=True)
    error = np.sqrt(clusters / (clusters - 1) * np.where(varied, squares, 0)) / drawn
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(off / error, copy=False, nan=0.0, posinf=np.inf, neginf=-np.inf)


def flipped(sums: Floats, counts: Floats) -> Floats:
    """`size` of the t statistics of means with flipped signs: [columns, SIGNS]."""
    clusters = sums.shape[1]
    flips = signs(clusters).T
    off, total = sums @ flips, (sums**2).sum(1, keepdims=True)
    if np.ptp(counts, axis=1).any():
        n = counts.sum(1, keepdims=True)
        lengths = 1 / clusters + (counts**2).sum(1, keepdims=True) / n**2
        total = total + off * (lengths * off - 2 / n * ((sums * counts) @ flips))
    return off**2 / (clusters * total)


def size(t: Floats, clusters: Floats) -> Floats:
    """In [0, 1], rises with |t|: t^2 / (t^2 + clusters - 1), the share of the mean in the sum of squares.

    Rounding is small beside 1 whatever t, as it is not in t where clusters hardly vary.
    """
    return t**2 / (t**2 + clusters - 1)


def of_size(size: Floats, clusters: Floats) -> Floats:
    """The |t| of that size."""
    return np.sqrt((clusters - 1) * size / (1 - size))


def student(clusters: Floats, level: float = LEVEL) -> Floats:
    """What |t| exceeds with a chance of `level`, one degree of freedom fewer than clusters; NaN below two."""
    from scipy.special import stdtrit  # a third of a second, only where an interval is asked for

    return np.asarray(stdtrit(np.where(clusters > 1, clusters - 1, np.nan), 1 - level / 2), np.float64)


def two_sided(t: Floats, clusters: Floats) -> Floats:
    """The chance of a |t| as large; NaN below two clusters."""
    from scipy.special import stdtr

    degrees = np.where(clusters > 1, clusters - 1, np.nan)
    return np.asarray(2 * cast("Any", stdtr)(degrees, -np.abs(t)), np.float64)
