"""Student's t distribution: critical values and p values."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from cfg_lab.analysis.stats.clustered_means import Floats

SIGNIFICANCE_LEVEL = 0.05
"""Level of all two-sided tests. Confidence intervals have the matching level, 95 %."""

MAX_PROMPTS_FOR_RESAMPLING = 1000
"""Intervals and tests of more prompts use Student's t, which gives nearly the same result faster."""


def critical_t(prompts: Floats, level: float = SIGNIFICANCE_LEVEL) -> Floats:
    """The critical value of |t|: |t| exceeds it with probability `level`.

    The degrees of freedom are prompts - 1. The result is NaN for fewer than two prompts.
    """
    from scipy.special import stdtrit  # imported here because the import takes a third of a second

    return np.asarray(stdtrit(np.where(prompts > 1, prompts - 1, np.nan), 1 - level / 2), np.float64)


def t_test_p(t: Floats, prompts: Floats) -> Floats:
    """Two-sided p value of each t statistic, with prompts - 1 degrees of freedom.

    The result is NaN for fewer than two prompts.
    """
    from scipy.special import stdtr

    degrees = np.where(prompts > 1, prompts - 1, np.nan)
    return np.asarray(2 * cast("Any", stdtr)(degrees, -np.abs(t)), np.float64)
