"""Power of the paired t test, and the number of prompts that a study needs."""

from __future__ import annotations

from typing import Any

import numpy as np

from cfg_lab.analysis.stats.clustered_means import Floats
from cfg_lab.analysis.stats.student_t import SIGNIFICANCE_LEVEL, critical_t

TARGET_POWER = 0.80
"""Power that a planned study must have: the probability of finding the effect."""

MAX_PROMPTS_FOR_EXACT_POWER = 1000
"""From this number of prompts on, the number is computed by an approximation."""


def t_test_power(effect: Floats, prompts: Floats) -> Any:
    """Probability that a two-sided paired t test at the 5 % level finds an effect.

    Args:
        effect: Cohen's d_z, the mean difference divided by the standard deviation of the prompts'
            differences.
        prompts: number of prompts, at least 2.
    """
    from scipy.special import nctdtr

    critical, noncentrality = critical_t(prompts), np.abs(effect) * np.sqrt(prompts)
    return 1 - nctdtr(prompts - 1, noncentrality, critical) + nctdtr(prompts - 1, noncentrality, -critical)


def prompts_needed(effect: Floats) -> Floats:
    """Smallest number of prompts, at least 2, with which the power is at least 80 %.

    The number is infinite if the effect is 0, and NaN if the effect is NaN. Numbers below 1,000 are exact.
    Larger numbers use Guenther's approximation (1981, doi:10.2307/2683010).

    Args:
        effect: Cohen's d_z, as in `t_test_power`.
    """
    from scipy.special import ndtri

    quantile = ndtri(1 - SIGNIFICANCE_LEVEL / 2)
    with np.errstate(divide="ignore"):
        guess = np.ceil(((quantile + ndtri(TARGET_POWER)) / effect) ** 2 + quantile**2 / 2)
    prompts = np.maximum(guess, 2)
    exact = prompts < MAX_PROMPTS_FOR_EXACT_POWER
    number, d_z = prompts[exact], effect[exact]
    while (too_many := (number > 2) & (t_test_power(d_z, np.maximum(number - 1, 2)) >= TARGET_POWER)).any():
        number = number - too_many
    while (too_few := t_test_power(d_z, number) < TARGET_POWER).any():
        number = number + too_few
    prompts[exact] = number
    return prompts
