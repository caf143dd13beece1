"""The analysis of a study: everything that the page and the console say about its results."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import pandas as pd

from cfg_lab import analysis
from cfg_lab.analysis.frame import distinct_prompts
from cfg_lab.report.axes import Cells, cells_of
from cfg_lab.report.change import Comparisons, compare_with_baselines
from cfg_lab.report.conclusion import conclusion
from cfg_lab.report.findings import Finding, findings, tasks_of
from cfg_lab.report.record import Record
from cfg_lab.report.roles import Roles, roles_of
from cfg_lab.report.scope import Scope


@dataclass(frozen=True, kw_only=True, eq=False)
class StudyAnalysis:
    """The results of a study with its cells, comparisons and findings.

    Attributes:
        results: one row per text, from `cfg_lab.load_results`.
        record: how the study was run.
        cells: all cells, and the settings that differ between them.
        roles: the metrics by their role.
        unscored: names of the metrics without any score.
        summary: means and intervals of all scored metrics, one row per cell.
        comparisons: all guided cells compared with their baselines.
        findings: one finding per aim, the most important aim first. They are about the cells of the held-out
            half of the prompts, if the results have cells of both halves: the others served to choose.
        scope: size of what the findings are about.
        is_held_out: whether the results have cells of both halves.
        searches: the results of the searches of the folder, see `cfg_lab.search.trials.results_of`.
    """

    results: pd.DataFrame
    record: Record
    cells: Cells
    roles: Roles
    unscored: tuple[str, ...]
    summary: pd.DataFrame
    comparisons: Comparisons
    findings: tuple[Finding, ...]
    scope: Scope
    is_held_out: bool = False
    searches: tuple[Mapping[str, Any], ...] = ()

    @property
    def distinct_prompts(self) -> int:
        """Number of distinct prompts of all results."""
        return _prompt_count(self.results)

    @property
    def metrics(self) -> list[str]:
        """Names of all scored metrics: first aims, then prices, then all others."""
        return [*self.roles.aims, *self.roles.prices, *self.roles.others]

    @property
    def conclusion(self) -> tuple[str, ...]:
        """What guidance did to the first aim, as lines of plain text; no line if the study has no aim.

        A benchmark of several tasks has one line per task.
        """
        of_first_aim = [finding for finding in self.findings if finding.metric == self.findings[0].metric]
        if len(of_first_aim) == 1:
            return conclusion(of_first_aim[0], self.scope)
        return tuple(
            f"{finding.task}: {conclusion(finding, self.scope.of_task(finding.task))[0]}"
            for finding in of_first_aim
        )


def analyse_study(
    results: pd.DataFrame, record: Record, searches: Sequence[Mapping[str, Any]] = ()
) -> StudyAnalysis:
    """Compare the cells of a study, and say what guidance did to each aim.

    Args:
        results: one row per text, from `cfg_lab.load_results`.
        record: how the study was run.
        searches: the results of the searches of the folder.
    """
    measured = analysis.metrics_of(results)
    unscored = tuple(name for name in measured if not results[name].notna().any())
    cells, roles = cells_of(results), roles_of([name for name in measured if name not in unscored])
    metrics = [*roles.aims, *roles.prices, *roles.others]
    summary = analysis.summary(results, metrics=metrics).reset_index(drop=True)
    reported = _reported(results)
    rest = results[~results["cell"].isin(reported["cell"])]
    parts = [
        compare_with_baselines(part, summary, cells, roles) for part in (reported, rest) if not part.empty
    ]
    comparisons = Comparisons(
        primary=tuple(chain.from_iterable(part.primary for part in parts)),
        others=tuple(chain.from_iterable(part.others for part in parts)),
    )
    of_reported = summary[summary["cell"].isin(reported["cell"])]
    return StudyAnalysis(
        results=results,
        record=record,
        cells=cells,
        roles=roles,
        unscored=unscored,
        summary=summary,
        comparisons=comparisons,
        findings=tuple(findings(reported, of_reported, cells, roles, comparisons)),
        scope=Scope(
            labels=tuple(cells.labels),
            unguided=len(cells.unguided),
            prompts=_prompt_count(reported),
            texts=len(results),
            planned=max(record.planned, len(results)),
            comparisons=sum(math.isfinite(change.p) for change in parts[0].primary),
            prompts_of_tasks=_prompts_of_tasks(results),
        ),
        is_held_out=len(rest) > 0,
        searches=tuple(searches),
    )


def _reported(results: pd.DataFrame) -> pd.DataFrame:
    """Return the texts that findings are about: those of the held-out half, if there are both halves."""
    if "prompts.half" not in results or not {"selection", "held_out"} <= set(
        results["prompts.half"].unique()
    ):
        return results
    return results[results["prompts.half"] == "held_out"]


def _prompts_of_tasks(results: pd.DataFrame) -> dict[str, int]:
    """Return the number of distinct prompts of each task, if a benchmark has several tasks."""
    tasks = tasks_of(results)
    if len(tasks) == 1:
        return {}
    return {task: _prompt_count(results[results["cell"].isin(cells)]) for task, cells in tasks.items()}


def _prompt_count(results: pd.DataFrame) -> int:
    return int(distinct_prompts(results).max()) + 1
