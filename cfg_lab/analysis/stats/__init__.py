"""Confidence intervals, tests and power analysis for studies with few prompts.

The prompt is the independent unit of all statistics here: texts of one prompt resemble each other. Each
prompt is one cluster in the sense of cluster-robust statistics. Prompts that duplicate each other count as
one prompt: see `cfg_lab.analysis.frame.distinct_prompts`.

All functions are deterministic. Resamples and sign vectors depend on the number of prompts alone. Results
depend on neither the names nor the order of the prompts. `experiments/coverage` measures how often the
intervals cover the truth and how often the tests err.
"""

from cfg_lab.analysis.stats.correction import holm
from cfg_lab.analysis.stats.intervals import Estimate, mean_interval, mean_intervals
from cfg_lab.analysis.stats.power import prompts_needed, t_test_power
from cfg_lab.analysis.stats.sign_flips import Difference, paired_difference, paired_differences

__all__ = [
    "Difference",
    "Estimate",
    "holm",
    "mean_interval",
    "mean_intervals",
    "paired_difference",
    "paired_differences",
    "prompts_needed",
    "t_test_power",
]
