"""What a trial gave: the means of the columns of the objectives, and whether the limits are kept."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, cast

import pandas as pd

from cfg_lab.analysis import summary
from cfg_lab.search.objectives import Objectives
from cfg_lab.search.trials import Evaluation
from cfg_lab.study.formats import count

Row = Mapping[str, Any]
"""The row of a cell in a summary, see `cfg_lab.analysis.summary`."""


def rows_by_cell(results: pd.DataFrame, columns: Sequence[str]) -> dict[str, Row]:
    """The rows of the summary by the id of the cell. A column that the results do not have is NaN."""
    missing = {column: math.nan for column in columns if column not in results}
    rows = cast("list[dict[str, Any]]", summary(results.assign(**missing), columns, []).to_dict("records"))
    return {str(row["cell"]): row for row in rows}


def evaluation_of(objectives: Objectives, row: Row, plain: Row, seconds: float = 0.0) -> Evaluation:
    """The evaluation of a cell: failed if a mean is unknown, or if most texts have no score.

    Args:
        row: the row of the cell.
        plain: the row of plain decoding on the same prompts.
        seconds: time that the cell took.
    """
    columns, cell = objectives.columns, str(row["cell"])
    for column in columns:
        for name, one_row in (("", row), ("plain decoding: ", plain)):
            scored, texts = int(one_row[f"{column}_n"]), int(one_row["texts"])
            if not math.isfinite(one_row[column]) or 2 * scored < texts:
                failure = f"{name}{column} has a score for {scored} of {count(texts, 'text')}"
                return Evaluation(failure=failure, cell=cell, seconds=seconds)
    means, of_plain = (
        # Scores differ in their last digits with the texts that are scored beside them.
        {column: float(f"{one_row[column]:.6g}") for column in columns}
        for one_row in (row, plain)
    )
    violations = objectives.violations(means, of_plain)
    return Evaluation(means=means, violations=violations, cell=cell, seconds=seconds)
