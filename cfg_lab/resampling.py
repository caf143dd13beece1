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

LEVEL = 0.05

ROUNDING = 1e-9
"""Smaller differences, relative to what is summed, are no variation and break no tie."""


@lru_cache(maxsize=8)
def resamples(clusters: int, number: int = RESAMPLES) -> Floats:
    """How often each cluster is drawn in each bootstrap resample: [number, clusters]."""
    generator = np.random.default_rng(clusters)
    return generator.multinomial(clusters, np.full(clusters, 1 / clusters), number).astype(np.float64)


@lru_cache(maxsize=8)
def signs(clusters: int) -> Floats:
    """Random signs of each cluster, 1 or -1: [RESAMPLES, clusters]."""
    return np.random.default_rng(clusters).choice([-1.0, 1.0], (RESAMPLES, clusters))


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
    found: Moments, values: Floats, counts: Floats, fewest: int, most: int
) -> Iterator[tuple[NDArray[np.int64], Floats, Floats]]:
    """Columns that have equally many clusters, `fewest` to `most` of them, and some variation.

    Yields which columns, and their values and counts as [columns, clusters], in an order in which the
    clusters' names have no say.
    """
    for number in sorted({int(m) for m in found.clusters if fewest <= m <= most}):
        which = np.flatnonzero((found.clusters == number) & (found.error > 0))
        for part in np.array_split(which, 1 + len(which) // 256):  # [columns, RESAMPLES] fit a cache
            if len(part):
                some, of = values[:, part], counts[:, part]
                order = np.lexsort((of, some, of == 0), axis=0)[:number]
                yield part, np.take_along_axis(some, order, 0).T, np.take_along_axis(of, order, 0).T


def resampled(residuals: Floats, counts: Floats) -> Floats:
    """How many of their own standard errors resampled means are off: [columns, RESAMPLES]."""
    clusters = residuals.shape[1]
    weights = resamples(clusters).T
    drawn = counts @ weights  # texts in a resample
    off = (residuals @ weights) / drawn
    cross = (residuals * counts) @ weights
    squares = (residuals**2) @ weights - 2 * off * cross + off**2 * (counts**2 @ weights)
    return _in_errors(off, squares, (residuals**2).sum(1, keepdims=True), drawn, clusters)


def flipped(sums: Floats, counts: Floats) -> Floats:
    """How many of their own standard errors means with flipped signs are from 0: [columns, RESAMPLES]."""
    clusters = sums.shape[1]
    flips, n = signs(clusters).T, counts.sum(1, keepdims=True)
    off = (sums @ flips) / n
    total = (sums**2).sum(1, keepdims=True)
    squares = total - 2 * off * ((sums * counts) @ flips) + off**2 * (counts**2).sum(1, keepdims=True)
    return _in_errors(off, squares, total, n, clusters)


def _in_errors(off: Floats, squares: Floats, total: Floats, n: Floats, clusters: int) -> Floats:
    """off / standard error; 0 / 0 is 0, and sums of squares that are rounding of `total` are 0."""
    error = np.sqrt(clusters / (clusters - 1) * np.where(squares > ROUNDING * total, squares, 0)) / n
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(off / error, copy=False, nan=0.0, posinf=np.inf, neginf=-np.inf)


def student(clusters: Floats, level: float = LEVEL) -> Floats:
    """What |t| exceeds with a chance of `level`, one degree of freedom fewer than clusters; NaN below two."""
    from scipy.special import stdtrit  # a third of a second, only where an interval is asked for

    return np.asarray(stdtrit(np.where(clusters > 1, clusters - 1, np.nan), 1 - level / 2), np.float64)


def two_sided(t: Floats, clusters: Floats) -> Floats:
    """The chance of a |t| as large; NaN below two clusters."""
    from scipy.special import stdtr

    degrees = np.where(clusters > 1, clusters - 1, np.nan)
    return np.asarray(2 * cast("Any", stdtr)(degrees, -np.abs(t)), np.float64)
