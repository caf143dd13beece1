"""Intervals mean what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t, ttest_1samp

from cfg_lab.stats import mean_interval


def test_one_value_a_cluster_is_students_interval() -> None:
    values = np.random.default_rng(0).normal(2, 3, 25)
    expected = ttest_1samp(values, 0).confidence_interval(0.95)
    found = mean_interval(values.tolist(), range(25))
    assert (found.low, found.high, found.n) == (pytest.approx(expected.low), pytest.approx(expected.high), 25)


def test_copies_of_a_text_add_no_evidence() -> None:
    values = np.random.default_rng(1).normal(0, 1, 12)
    once = mean_interval(values.tolist(), range(12))
    thrice = mean_interval(np.repeat(values, 3).tolist(), np.repeat(range(12), 3).tolist())
    assert (thrice.low, thrice.high) == (pytest.approx(once.low), pytest.approx(once.high))
    assert thrice.n == 36


def test_unscored_values_are_left_out_and_not_counted() -> None:
    found = mean_interval([1.0, math.nan, 3.0], ["a", "b", "c"])
    assert (found.mean, found.n) == (2.0, 2)
    assert found.low == pytest.approx(2 - t.ppf(0.975, 1) * 1)
    assert str(mean_interval([math.nan], ["a"])) == "nan [nan, nan], n=0"
    alone = mean_interval([5.0, 6.0], ["a", "a"])
    assert (alone.mean, alone.n) == (5.5, 2)
    assert math.isnan(alone.low)


def test_nominal_95_percent_covers_95_percent() -> None:
    """16 prompts of unequal numbers of texts, alike within a prompt, skewed between prompts."""
    generator = np.random.default_rng(2)
    covered, trials = 0, 2000
    for _ in range(trials):
        sizes = generator.integers(1, 5, 16)
        prompts = np.repeat(np.arange(16), sizes)
        values = generator.normal(0, 1, 16)[prompts] + generator.normal(0, 0.5, len(prompts))
        interval = mean_interval(values.tolist(), prompts.tolist())
        covered += interval.low <= 0 <= interval.high
    assert 0.93 <= covered / trials <= 0.97
