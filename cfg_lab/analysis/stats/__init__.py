"""Intervals, tests and power: right for few prompts, with the prompt as the independent unit."""

from cfg_lab.analysis.stats.estimates import (
    Difference,
    Estimate,
    holm,
    mean_interval,
    mean_intervals,
    paired_difference,
    paired_differences,
    power,
    prompts_needed,
)

__all__ = [
    "Difference",
    "Estimate",
    "holm",
    "mean_interval",
    "mean_intervals",
    "paired_difference",
    "paired_differences",
    "power",
    "prompts_needed",
]
