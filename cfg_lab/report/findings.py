"""Findings: how guidance changed each aim of a study, and how certain that is.

An aim is a metric that guidance is meant to improve. A price is a metric that guidance can make worse. A
baseline is the cell that another cell is compared with, usually a cell without guidance.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from cfg_lab import analysis
from cfg_lab.analysis.frame import SCALE, TASK
from cfg_lab.metrics.known_columns import column_info
from cfg_lab.report.axes import MISSING, Cells, row_dicts, value_text
from cfg_lab.report.change import Change, Comparisons, changes_of
from cfg_lab.report.roles import Roles


@dataclass(frozen=True, kw_only=True)
class Neighbour:
    """A comparison of the best guided cell with a neighbour.

    A neighbour is a cell that differs from the best guided cell in one setting other than the scale.

    Attributes:
        setting: name of the setting that differs, such as "negatives".
        value: value of this setting in the neighbour, such as "empty".
        change: the best guided cell compared with the neighbour. The p_holm of this change is corrected
            twice. First, Holm's correction covers the comparisons with all neighbours. Second, Bonferroni's
            correction multiplies p by (number of guided cells that are compared) * (number of aims), because
            the best cell was chosen among these guided cells.
    """

    setting: str
    value: str
    change: Change


@dataclass(frozen=True, kw_only=True)
class Finding:
    """How guidance changed one aim. In a benchmark of several tasks, each task has its own findings.

    Attributes:
        metric: name of the aim.
        best: number of the cell with the best mean, guided or not; None if no cell is scored.
        best_mean: mean of the metric in that cell.
        change: the best guided cell compared with its baseline; None if no cell has a baseline.
        prices: changes of the price metrics in the best guided cell.
        neighbours: comparisons of the best guided cell with each cell that differs from it in one setting
            other than the scale, such as the negatives or the guidance rule.
        compute: (operations per text in the best guided cell) / (operations per text in its baseline); NaN if
            operations were not counted.
        better, worse: numbers of the guided cells that are significantly better or worse than their baseline.
        unscored: numbers of the cells without a score of this metric. They are not compared.
        edge: "largest" if the best guided cell has the largest scale of all guided cells, "smallest" if it
            has the smallest scale, else "".
        guided: number of guided cells that are compared.
        reference_mean: mean, in the best guided cell, of the column that the aim is compared with (see
            `ColumnInfo.reference`); NaN if there is none.
        task: the task whose cells are compared; "" unless the study has several tasks.
    """

    metric: str
    best: int | None
    best_mean: float
    change: Change | None
    prices: tuple[Change, ...]
    neighbours: tuple[Neighbour, ...]
    compute: float
    better: tuple[int, ...]
    worse: tuple[int, ...]
    unscored: tuple[int, ...]
    edge: str
    guided: int
    reference_mean: float = math.nan
    task: str = ""

    @property
    def guidance_is_best(self) -> bool:
        """Whether the cell with the best mean is a guided cell."""
        return self.change is not None and self.best == self.change.cell


def findings(
    results: pd.DataFrame, summary: pd.DataFrame, cells: Cells, roles: Roles, comparisons: Comparisons
) -> list[Finding]:
    """Return one finding per task and aim. An aim is a metric that guidance is meant to improve.

    Means of different tasks are never compared, because they are over different prompts. Cells with scale 0
    are the texts of the negative itself (`Cells.of_negative`), so none of them is the best guided cell.
    """
    rows = row_dicts(summary)
    all_findings: list[Finding] = []
    for task, cells_of_task in tasks_of(results).items():
        of_task = results[results["cell"].isin(cells_of_task)]
        rows_of_task = [row for row in rows if str(row["cell"]) in cells_of_task]
        all_findings += [
            replace(_finding(metric, of_task, rows_of_task, cells, roles, comparisons), task=task)
            for metric in roles.aims
        ]
    return all_findings


def tasks_of(results: pd.DataFrame) -> dict[str, set[str]]:
    """Return the ids of the cells of each task. If there are not several tasks, "" has all cells."""
    if TASK not in results or results[TASK].nunique() < 2:
        return {"": set(map(str, results["cell"]))}
    return {
        str(task): set(map(str, cells))
        for task, cells in results.groupby(TASK, sort=False)["cell"].unique().items()
    }


def _finding(
    metric: str,
    results: pd.DataFrame,
    rows: Sequence[dict[str, Any]],
    cells: Cells,
    roles: Roles,
    comparisons: Comparisons,
) -> Finding:
    """Return the finding of one aim in some cells.

    Args:
        metric: the aim.
        results: the texts of these cells.
        rows: their rows of the summary.
        cells: all cells of the study.
        roles: the metrics by their role.
        comparisons: the comparisons of all cells.
    """
    sign = 1 if analysis.better(metric) == "higher" else -1
    index, of_negative = cells.index, cells.of_negative
    scored = {index[str(row["cell"])]: float(row[metric]) for row in rows if math.isfinite(row[metric])}
    means = {cell: mean for cell, mean in scored.items() if cell not in of_negative}
    changes = [change for change in comparisons.of(metric) if change.cell in means]
    baselines = {change.baseline for change in changes}
    # If means are equal, the baseline counts as the best: guidance that changes nothing has not won.
    best = max(means, key=lambda cell: (sign * means[cell], cell in baselines, -cell), default=None)
    change = max(changes, key=lambda change: sign * change.mean, default=None)
    in_best_guided = [
        other for other in comparisons.primary + comparisons.others if change and other.cell == change.cell
    ]
    compute = [
        cost.mean / cost.baseline_mean
        for cost in in_best_guided
        if cost.metric == "gflop" and cost.baseline_mean > 0
    ]
    choices = len(changes) * len(roles.aims)
    reference = column_info(metric).reference
    references = [
        float(row[reference])
        for row in rows
        if change and reference in row and index[str(row["cell"])] == change.cell
    ]
    return Finding(
        metric=metric,
        best=best,
        best_mean=math.nan if best is None else means[best],
        change=change,
        prices=tuple(other for price in roles.prices for other in in_best_guided if other.metric == price),
        neighbours=_neighbours(change, choices, results, rows, cells) if change else (),
        compute=next(iter(compute), math.nan),
        better=tuple(change.cell for change in changes if change.verdict == "better"),
        worse=tuple(change.cell for change in changes if change.verdict == "worse"),
        unscored=tuple(sorted({index[str(row["cell"])] for row in rows} - {*scored})),
        edge=_edge(cells, change.cell) if change else "",
        guided=len(changes),
        reference_mean=next(iter(references), math.nan),
    )


def _edge(cells: Cells, cell: int) -> str:
    """Return "largest" or "smallest" if a cell has the largest or smallest scale of all guided cells, else
    "".

    "largest" means that a larger scale, which was not tried, may be better. "smallest" means that a smaller
    scale may be better.
    """
    for number, axis in enumerate(cells.axes):
        if axis.key == SCALE and axis.numeric:
            others = cells.unguided | cells.of_negative
            guided = [point for index, point in enumerate(cells.points) if index not in others]
            scales = {axis.values[point[number]] for point in guided} - {MISSING}
            if len(scales) > 1:
                scale = axis.values[cells.points[cell][number]]
                return {max(scales): "largest", min(scales): "smallest"}.get(scale, "")
    return ""


def _neighbours(
    change: Change, choices: int, results: pd.DataFrame, rows: Sequence[dict[str, Any]], cells: Cells
) -> tuple[Neighbour, ...]:
    """Compare a guided cell with each cell that differs from it in exactly one setting other than the scale.

    Args:
        change: a change of the guided cell.
        choices: factor of Bonferroni's correction: (number of guided cells that are compared) * (number of
            aims).
        results: all results, one row per text.
        rows: rows of the summary.
        cells: all cells.
    """
    single_differences: dict[str, tuple[str, str]] = {}
    means = {str(row["cell"]): row for row in rows}
    for cell, point in zip(cells.ids, cells.points, strict=True):
        if cell not in means:  # a cell of another task
            continue
        differences = [
            (axis, index)
            for axis, index, index_of_best in zip(cells.axes, point, cells.points[change.cell], strict=True)
            if index != index_of_best
        ]
        if len(differences) == 1 and differences[0][0].key != SCALE:
            axis, index = differences[0]
            single_differences[cell] = axis.name, value_text(axis.values[index])
    if not single_differences:
        return ()
    best = cells.ids[change.cell]
    compared = results[results["cell"].isin([best, *single_differences])]
    changes = changes_of(analysis.comparisons(compared, [change.metric], baseline=best), means, cells)
    neighbours: list[Neighbour] = []
    for other in changes:
        if math.isfinite(other.difference):
            setting, value = single_differences[cells.ids[other.cell]]
            # min returns NaN if NaN comes first, so that an unknown p stays unknown
            corrected = replace(other.swapped(), p_holm=min(choices * other.p_holm, 1.0))
            neighbours.append(Neighbour(setting=setting, value=value, change=corrected))
    return tuple(neighbours)
