"""What the numbers say, metric by metric, and how sure they are: values that sentences are made of.

A difference counts as shown where its p value is below 5 % after Holm's correction over all comparisons of
the main family; below 5 % before it alone, it is a lead; else the prompts could show none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import pandas as pd

from cfg_lab import analysis
from cfg_lab.analysis.frame import SCALE
from cfg_lab.errors import InputError
from cfg_lab.report.axes import MISSING, Cells, records, value_text
from cfg_lab.report.roles import Roles

Verdict = Literal["better", "worse", "changed", "lead", "unclear", "unknown"]
LEVEL = 0.05


@dataclass(frozen=True)
class Change:
    """A metric in a cell beside the same metric in its baseline.

    Attributes:
        cell, baseline: indices into the cells.
        mean, base: of the metric in each.
        difference, low, high: paired, with its 95 % interval.
        p, p_holm: two-sided; after Holm's correction.
        effect: Cohen's d_z, in standard deviations of the prompts' differences; NaN: unknown.
        needed: prompts that would settle a difference of this size (80 % power at 5 %); NaN: unknown.
    """

    metric: str
    cell: int
    baseline: int
    mean: float
    base: float
    difference: float
    low: float
    high: float
    p: float
    p_holm: float
    effect: float
    needed: float

    @property
    def for_the_better(self) -> bool:
        """Whether the difference has the direction that is good."""
        return (self.difference > 0) == (analysis.better(self.metric) == "higher")

    def turned(self) -> Change:
        """The baseline's change beside the cell."""
        return replace(
            self,
            cell=self.baseline,
            baseline=self.cell,
            mean=self.base,
            base=self.mean,
            difference=-self.difference,
            low=-self.high,
            high=-self.low,
            effect=-self.effect,
        )

    @property
    def verdict(self) -> Verdict:
        if not math.isfinite(self.p_holm):
            return "unknown"
        if self.p_holm < LEVEL:
            if analysis.better(self.metric) is None:
                return "changed"
            return "better" if self.for_the_better else "worse"
        return "lead" if self.p < LEVEL else "unclear"


@dataclass(frozen=True)
class Rival:
    """A cell that differs from another in one setting alone, and that is not the scale.

    Attributes:
        setting: its name, "negatives".
        value: the rival's, "empty".
        change: of the other cell beside the rival; p_holm is corrected over its rivals, and by Bonferroni for
            that it was chosen among all guided cells, once for each aim.
    """

    setting: str
    value: str
    change: Change


@dataclass(frozen=True)
class Finding:
    """What guidance did to one aim.

    Attributes:
        metric: the aim.
        best: the cell with the best mean, guided or not; None where no cell is scored.
        best_mean: its mean.
        change: of the best guided cell against its baseline; None where there is no baseline to compare with.
        prices: changes of the price metrics in that same guided cell.
        rivals: cells like it, but for another negative or another rule, say: what is due to these.
        compute: its operations a text as a multiple of its baseline's; NaN where they were not counted.
        better, worse: guided cells in which the metric is shown better or worse than unguided.
        unscored: cells without a score of the metric, which are not compared.
        edge: "largest" or "smallest" where the best guided cell has that scale of all tried, else "".
        guided: how many cells are compared.
    """

    metric: str
    best: int | None
    best_mean: float
    change: Change | None
    prices: tuple[Change, ...]
    rivals: tuple[Rival, ...]
    compute: float
    better: tuple[int, ...]
    worse: tuple[int, ...]
    unscored: tuple[int, ...]
    edge: str
    guided: int

    @property
    def beats_unguided(self) -> bool:
        """Whether the best mean is a guided cell's."""
        return self.change is not None and self.best == self.change.cell


@dataclass(frozen=True)
class Compared:
    """All comparisons of a results folder.

    Attributes:
        primary: the main family, aims and prices; p_holm runs over it.
        others: the remaining metrics, corrected among themselves.
    """

    primary: tuple[Change, ...]
    others: tuple[Change, ...]

    def of(self, metric: str) -> list[Change]:
        return [change for change in self.primary + self.others if change.metric == metric]


def compare(results: pd.DataFrame, summary: pd.DataFrame, cells: Cells, roles: Roles) -> Compared:
    """Every cell beside its unguided baseline; empty where there is none."""
    means = {str(row["cell"]): row for row in records(summary)}
    families: list[tuple[Change, ...]] = []
    for metrics in (roles.primary, roles.others):
        try:
            table = analysis.comparisons(results, metrics=list(metrics))
        except InputError:  # no cell has a baseline
            return Compared((), ())
        families.append(_changes(table, means, cells))
    return Compared(families[0], families[1])


def findings(
    results: pd.DataFrame, summary: pd.DataFrame, cells: Cells, roles: Roles, compared: Compared
) -> list[Finding]:
    """One for each aim, in the order of the results."""
    return [_finding(metric, results, records(summary), cells, roles, compared) for metric in roles.aims]


def _finding(
    metric: str,
    results: pd.DataFrame,
    rows: Sequence[dict[str, Any]],
    cells: Cells,
    roles: Roles,
    compared: Compared,
) -> Finding:
    sign = 1 if analysis.better(metric) == "higher" else -1
    place = {cell: number for number, cell in enumerate(cells.ids)}
    scored = [(place[str(row["cell"])], float(row[metric])) for row in rows if math.isfinite(row[metric])]
    changes = [change for change in compared.of(metric) if math.isfinite(change.mean)]
    unguided = {change.baseline for change in changes}
    # Of equal means the unguided cell's counts: guidance that changes nothing has not won.
    best, best_mean = max(
        scored, key=lambda one: (sign * one[1], one[0] in unguided, -one[0]), default=(None, math.nan)
    )
    top = max(changes, key=lambda change: sign * change.mean, default=None)
    prices = [
        change
        for price in roles.prices
        for change in compared.of(price)
        if top is not None and change.cell == top.cell
    ]
    compute = [
        change.mean / change.base
        for change in compared.of("gflop")
        if top is not None and change.cell == top.cell and change.base > 0
    ]
    return Finding(
        metric=metric,
        best=best,
        best_mean=best_mean,
        change=top,
        prices=tuple(prices),
        rivals=_rivals(top, len(changes) * len(roles.aims), results, rows, cells) if top else (),
        compute=next(iter(compute), math.nan),
        better=tuple(change.cell for change in changes if change.verdict == "better"),
        worse=tuple(change.cell for change in changes if change.verdict == "worse"),
        unscored=tuple(sorted({*range(len(cells.ids))} - {*dict(scored)})),
        edge=_edge(cells, top.cell) if top else "",
        guided=len(changes),
    )


def _edge(cells: Cells, cell: int) -> str:
    """Whether a cell's scale is the largest or smallest of several that guide: the best may lie beyond."""
    for axis, place in zip(cells.axes, cells.points[cell], strict=True):
        if axis.key == SCALE and axis.numeric:
            guiding = [value for value in axis.values if value not in (1, MISSING)]
            if len(guiding) > 1:
                return {max(guiding): "largest", min(guiding): "smallest"}.get(axis.values[place], "")
    return ""


def _rivals(
    top: Change, choices: int, results: pd.DataFrame, rows: Sequence[dict[str, Any]], cells: Cells
) -> tuple[Rival, ...]:
    """A guided cell beside each that differs from it in one setting other than the scale.

    Args:
        top: a change of that cell, which was chosen among so many.
    """
    one_apart: dict[str, tuple[str, str]] = {}
    for other, point in zip(cells.ids, cells.points, strict=True):
        apart = [
            (axis, place)
            for axis, place, own in zip(cells.axes, point, cells.points[top.cell], strict=True)
            if place != own
        ]
        if len(apart) == 1 and apart[0][0].key != SCALE:
            axis, place = apart[0]
            one_apart[other] = axis.name, value_text(axis.values[place])
    if not one_apart:
        return ()
    own = cells.ids[top.cell]
    those = results[results["cell"].isin([own, *one_apart])]
    means = {str(row["cell"]): row for row in rows}
    others = _changes(analysis.comparisons(those, [top.metric], baseline=own), means, cells)
    # min keeps a NaN that comes first: what is unknown stays so
    return tuple(
        Rival(
            *one_apart[cells.ids[change.cell]],
            replace(change.turned(), p_holm=min(choices * change.p_holm, 1.0)),
        )
        for change in others
        if math.isfinite(change.difference)
    )


def _changes(table: pd.DataFrame, means: dict[str, dict[str, Any]], cells: Cells) -> tuple[Change, ...]:
    place = {cell: number for number, cell in enumerate(cells.ids)}
    numbers = ("difference", "low", "high", "p", "p_holm", "effect", "needed")
    return tuple(
        Change(
            metric=str(row["metric"]),
            cell=place[str(row["cell"])],
            baseline=place[str(row["baseline"])],
            mean=float(means[str(row["cell"])][row["metric"]]),
            base=float(means[str(row["baseline"])][row["metric"]]),
            **{name: math.nan if row[name] is None else float(row[name]) for name in numbers},
        )
        for row in records(table)
        if row["baseline"] in place
    )
