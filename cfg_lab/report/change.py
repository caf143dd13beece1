"""Changes: the difference of a metric between each guided cell and its baseline.

A baseline is the cell that another cell is compared with, usually a cell without guidance. The comparisons of
all aims and prices form the main family: one Holm correction covers all comparisons of the family. A
difference is called significant if its p value is below 5 % after the correction. If p is below 5 % only
before the correction, the difference is called a lead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from cfg_lab import analysis
from cfg_lab.errors import InputError
from cfg_lab.report.axes import Cells, row_dicts
from cfg_lab.report.roles import Roles

Verdict = Literal["better", "worse", "different", "lead", "not_significant", "unknown"]
"""Outcome of one comparison.

"better", "worse" and "different" are significant. "different" is used for metrics that have no better
direction. A "lead" is significant before Holm's correction, but not after it.
"""

SIGNIFICANCE_LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class Change:
    """The difference of one metric between one cell and its baseline.

    Attributes:
        metric: name of the metric.
        cell, baseline: numbers of the two cells, which are their positions in `Cells.ids`.
        mean, baseline_mean: mean of the metric in each of the two cells.
        difference: mean over prompts of the paired difference, cell minus baseline.
        low, high: ends of the 95 % interval of the difference.
        p, p_holm: two-sided p value before and after Holm's correction; NaN if unknown.
        effect: Cohen's d_z: the difference divided by the standard deviation of the prompts' differences; NaN
            if unknown.
        needed: number of prompts that would detect a difference of this size with 80 % power at the 5 %
            level; NaN if unknown.
    """

    metric: str
    cell: int
    baseline: int
    mean: float
    baseline_mean: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    effect: float
    needed: float

    @property
    def is_improvement(self) -> bool:
        """Whether the difference points in the direction that is better for this metric."""
        return (self.difference > 0) == (analysis.better(self.metric) == "higher")

    def swapped(self) -> Change:
        """Return the comparison with the two cells exchanged: the baseline is compared with the cell."""
        return replace(
            self,
            cell=self.baseline,
            baseline=self.cell,
            mean=self.baseline_mean,
            baseline_mean=self.mean,
            difference=-self.difference,
            low=-self.high,
            high=-self.low,
            effect=-self.effect,
        )

    @property
    def verdict(self) -> Verdict:
        """Whether the difference is significant, and in which direction."""
        if not math.isfinite(self.p_holm):
            return "unknown"
        if self.p_holm < SIGNIFICANCE_LEVEL:
            if analysis.better(self.metric) is None:
                return "different"
            return "better" if self.is_improvement else "worse"
        return "lead" if self.p < SIGNIFICANCE_LEVEL else "not_significant"


@dataclass(frozen=True, kw_only=True)
class Comparisons:
    """All guided cells compared with their baselines, in every metric.

    Attributes:
        primary: the changes of aims and prices, called the main family. One Holm correction covers all of
            them.
        others: the changes of all other metrics. A second Holm correction covers these changes.
    """

    primary: tuple[Change, ...]
    others: tuple[Change, ...]

    def of(self, metric: str) -> list[Change]:
        """Return the changes of one metric: one per cell that is compared with a baseline."""
        return [change for change in self.primary + self.others if change.metric == metric]


def compare_with_baselines(
    results: pd.DataFrame, summary: pd.DataFrame, cells: Cells, roles: Roles
) -> Comparisons:
    """Compare every guided cell with its baseline; the result is empty if no cell has a baseline."""
    means = {str(row["cell"]): row for row in row_dicts(summary)}
    families: list[tuple[Change, ...]] = []
    for metrics in (roles.primary, roles.others):
        try:
            table = analysis.comparisons(results, metrics=list(metrics))
        except InputError:  # no cell has a baseline
            return Comparisons(primary=(), others=())
        families.append(changes_of(table, means, cells))
    return Comparisons(primary=families[0], others=families[1])


def changes_of(
    table: pd.DataFrame, means: Mapping[str, Mapping[str, Any]], cells: Cells
) -> tuple[Change, ...]:
    """Return each row of a table of comparisons as a `Change`.

    Args:
        table: from `cfg_lab.analysis.comparisons`.
        means: cell id -> row of the summary.
        cells: all cells.
    """
    index = cells.index
    numbers = ("difference", "low", "high", "p", "p_holm", "effect", "needed")
    return tuple(
        Change(
            metric=str(row["metric"]),
            cell=index[str(row["cell"])],
            baseline=index[str(row["baseline"])],
            mean=float(means[str(row["cell"])][row["metric"]]),
            baseline_mean=float(means[str(row["baseline"])][row["metric"]]),
            **{name: math.nan if row[name] is None else float(row[name]) for name in numbers},
        )
        for row in row_dicts(table)
        if row["baseline"] in index
    )
