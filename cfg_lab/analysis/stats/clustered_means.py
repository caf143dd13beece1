"""Means of values that are grouped by prompt, with cluster-robust standard errors.

All functions work on many columns at once. A column is one metric of one cell, or one difference of two
cells. The columns are given as two arrays [prompts, columns]: for each prompt the sum of its scored values,
and the number of its scored values.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TOLERANCE = 1e-9
"""Relative differences below this are treated as rounding errors: such values count as equal."""

COLUMNS_PER_BATCH = 32
"""Few enough that 4,096 statistics of each column fit into a processor cache."""


@dataclass(frozen=True, kw_only=True)
class ClusteredMeans:
    """Means of several columns, with their standard errors. Each attribute has the shape [columns].

    Attributes:
        mean: mean over all values of the column, not over the prompts' means.
        standard_error: cluster-robust (Cochran 1977, eq. 6.4); NaN with fewer than two prompts.
        n: number of values.
        prompts: number of prompts that have at least one value.
    """

    mean: Floats
    standard_error: Floats
    n: Floats
    prompts: Floats


def clustered_means(sums: Floats, counts: Floats) -> ClusteredMeans:
    """Mean, standard error, number of values and number of prompts of each column.

    Args:
        sums: sum of each prompt's values, [prompts, columns].
        counts: number of each prompt's values, [prompts, columns].
    """
    n, prompts = counts.sum(0), np.count_nonzero(counts, axis=0).astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = sums.sum(0) / n
        squares = ((sums - mean * counts) ** 2).sum(0)
        error = np.sqrt(prompts / (prompts - 1) * squares) / n
    # Equal values leave residuals that are rounding errors, not variation.
    error = np.where(error <= TOLERANCE * np.abs(sums).max(0, initial=0), 0, error)
    return ClusteredMeans(
        mean=mean, standard_error=np.where(prompts < 2, np.nan, error), n=n, prompts=prompts
    )


def sums_by_prompt(values: Floats, prompts: Sequence[Hashable]) -> tuple[Floats, Floats]:
    """For each prompt the sum of its values and their number, both [prompts, 1]. NaN is left out.

    Args:
        values: one value per text, [texts].
        prompts: the prompt of each value, such as its id.
    """
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    sums, counts = np.zeros((len(numbers), 1)), np.zeros((len(numbers), 1))
    for value, prompt in zip(values.tolist(), prompts, strict=True):
        if not math.isnan(value):
            sums[numbers[prompt]] += value
            counts[numbers[prompt]] += 1
    return sums, counts


@dataclass(frozen=True, kw_only=True)
class ColumnBatch:
    """Columns that all have the same number of prompts, transposed for matrix products.

    Attributes:
        columns: index of each column in the arrays that the batch was made from, [batch].
        values: for each prompt one number, the sum of its values or its residual, [batch, prompts].
        counts: for each prompt the number of its values, [batch, prompts].
    """

    columns: Ints
    values: Floats
    counts: Floats


def column_batches(
    means: ClusteredMeans, values: Floats, counts: Floats, fewest: int, most: int, order_by: Floats
) -> Iterator[ColumnBatch]:
    """Group columns into batches, so that all columns of a batch have the same number of prompts.

    Columns with fewer than `fewest` or more than `most` prompts are left out, and so are columns whose
    values do not vary.

    Args:
        means: means and standard errors of the columns.
        values: [prompts, columns], for each prompt the sum of its values, or its residual.
        counts: number of values of each prompt, [prompts, columns]. Prompts without values are left out.
        order_by: sort key of the prompts, [prompts, columns]. The prompts of each column are sorted by it, so
            results depend neither on the names of the prompts nor on their order in the results.
    """
    for number in sorted({int(prompts) for prompts in means.prompts if fewest <= prompts <= most}):
        selected = np.flatnonzero((means.prompts == number) & (means.standard_error > 0))
        for columns in np.array_split(selected, 1 + len(selected) // COLUMNS_PER_BATCH):
            if len(columns):
                value, count = values[:, columns], counts[:, columns]
                # The last key decides first: prompts without values come last and are cut off.
                order = np.lexsort((value, count, order_by[:, columns], count == 0), axis=0)[:number]
                yield ColumnBatch(
                    columns=columns,
                    values=np.take_along_axis(value, order, 0).T,
                    counts=np.take_along_axis(count, order, 0).T,
                )
