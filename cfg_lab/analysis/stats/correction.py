"""Correction of p values for the number of tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def holm(p_values: Sequence[float]) -> list[float]:
    """p values after Holm's correction for the number of tests (Holm 1979, jstor.org/stable/4615733).

    The correction controls the family-wise error rate: if every effect with a corrected p below 0.05 is
    called significant, at most 5 % of studies have one or more false positives. This holds for any dependence
    between the tests. NaN stays NaN and does not count as a test.
    """
    p = np.asarray(p_values, np.float64)
    order = np.argsort(p, kind="stable")[: np.count_nonzero(~np.isnan(p))]
    corrected = np.full(len(p), np.nan)
    steps = p[order] * np.arange(len(order), 0, -1)
    corrected[order] = np.minimum(np.maximum.accumulate(steps), 1)
    return corrected.tolist()
