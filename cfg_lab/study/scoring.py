"""Scoring stored texts: find what a metric has not scored yet, score it, and summarise the cells.

The model that generated the texts is not needed: metrics read texts from the results folder.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from rich.console import Console

from cfg_lab.analysis import summary
from cfg_lab.analysis.frame import PLAIN_SETTINGS
from cfg_lab.errors import InputError
from cfg_lab.metrics import Metric, columns_of, needs_whole_cell, scorer_key
from cfg_lab.metrics.text import Text
from cfg_lab.study.columns import CELL_SCHEMA, COMPLETION_SCHEMA, text_of
from cfg_lab.study.declared_columns import declare_stored_columns, write_declared_columns
from cfg_lab.study.joined_results import joined_results, set_score_ids
from cfg_lab.study.progress import ProgressBar
from cfg_lab.study.store import Store

RESERVED_COLUMNS = {"cell", "texts", *PLAIN_SETTINGS, *CELL_SCHEMA.names, *COMPLETION_SCHEMA.names}
"""Names that results and their summary use for columns which are not metrics."""

_TEXTS_PER_CALL = 32
"""Batch size of metrics that score each text by itself: small, so that a crash loses little work."""

_SCORES_PER_FILE = 2048
"""Number of unwritten scores after which scores are written."""

_SECONDS_BETWEEN_WRITES = 15
"""Longest time between two writes of scores."""


def prepare_metrics(metrics: Sequence[Metric]) -> None:
    """Load what metrics need, so that a missing model or package is noticed before hours of decoding.

    Raises:
        InputError: a model or package is missing, a metric gives other columns than it declares, or a column
            of a metric has a name that results use for something else.
    """
    for metric in metrics:
        declared, scored = list(columns_of(metric)), list(metric.score([]))
        if declared != scored:
            raise InputError(
                f"metrics: {type(metric).__name__} declares the columns {', '.join(declared)} and gives "
                f"{', '.join(scored) or 'none'}; they must be equal and in the same order"
            )
        for column in declared:
            if column in RESERVED_COLUMNS or "." in column or column.endswith(("_low", "_high", "_n")):
                raise InputError(
                    f"metrics: {type(metric).__name__} gives a column {column!r}; results use that name "
                    "themselves, as they do what ends in _low, _high or _n"
                )


def main_columns(metrics: Sequence[Metric]) -> list[str]:
    """The name of each metric's first column. Tables show this column for the metric."""
    return [next(iter(columns_of(metric))) for metric in metrics]


@dataclass(frozen=True, eq=False)
class _ScoringCall:
    """One call of a metric, with the texts to score.

    Attributes:
        metric: the metric.
        rows: rows of `Store.cells()`, one per text to score.
        ids: for each row, the id under which the scores of the text are stored.
    """

    metric: Metric
    rows: pd.DataFrame
    ids: Sequence[str]


def score_missing(
    store: Store, metrics: Sequence[Metric], console: Console, cells: Collection[str] | None = None
) -> int:
    """Score the decoded texts that a metric has not scored yet, and store the scores.

    Args:
        store: the results folder.
        metrics: the metrics to score with.
        console: where to show progress.
        cells: ids of the cells to score; None means all cells of the folder.

    Returns:
        Number of texts that were scored, summed over metrics: a text scored by two metrics counts twice.
    """
    return score_rows(store, metrics, store.cells(cells), console)


def score_rows(store: Store, metrics: Sequence[Metric], rows: pd.DataFrame, console: Console) -> int:
    """Score the decoded texts among some rows that a metric has not scored yet, and store the scores.

    Args:
        store: the results folder.
        metrics: the metrics to score with. A metric that scores all texts of a cell at once needs all rows of
            the cell.
        rows: one row per text, with the column `cell` and the columns of CELL_SCHEMA, as `Store.cells` has.
        console: where to show progress.

    Returns:
        As `score_missing`.
    """
    write_declared_columns(store, metrics)
    rows = rows[rows["completion"].isin(store.completion_ids())]
    calls = list(_missing_calls(store, metrics, rows))
    total = sum(len(call.ids) for call in calls)
    if not total:
        return 0
    completions = store.completions().set_index("id")
    unwritten: list[dict[str, Any]] = []
    last_write_time = time.monotonic()
    with ProgressBar(console, "scoring", total, "texts") as bar:
        try:
            for call in calls:
                columns = call.metric.score(_texts(call.rows, completions))
                unwritten += [
                    {"text": text, "scorer": scorer_key(call.metric), "column": column, "value": value}
                    for column, values in columns.items()
                    for text, value in zip(call.ids, values, strict=True)
                ]
                bar.advance(len(call.ids), note=type(call.metric).__name__)
                waited = time.monotonic() - last_write_time
                if len(unwritten) >= _SCORES_PER_FILE or waited > _SECONDS_BETWEEN_WRITES:
                    store.add_scores(unwritten)
                    unwritten, last_write_time = [], time.monotonic()
        finally:
            if unwritten:  # also after an interruption
                store.add_scores(unwritten)
    return total


def _missing_calls(store: Store, metrics: Sequence[Metric], rows: pd.DataFrame) -> Iterator[_ScoringCall]:
    """The calls of metrics that are needed to compute all missing scores. Equal texts are scored once."""
    scored = store.scored()
    distinct = rows.drop_duplicates("score_id")
    rows = rows.assign(set_score_id=set_score_ids(rows))
    for metric in metrics:
        key = scorer_key(metric)
        if needs_whole_cell(metric):
            yielded_ids: set[str] = set()  # cells with the same texts share their scores
            for _, cell in rows.groupby("cell", sort=False):
                ids = [str(text_id) for text_id in cell["set_score_id"]]
                if not yielded_ids.issuperset(ids) and any((text_id, key) not in scored for text_id in ids):
                    yield _ScoringCall(metric, cell, ids)
                yielded_ids.update(ids)
        else:
            missing = distinct[[(str(text_id), key) not in scored for text_id in distinct["score_id"]]]
            for start in range(0, len(missing), _TEXTS_PER_CALL):
                batch = missing.iloc[start : start + _TEXTS_PER_CALL]
                yield _ScoringCall(metric, batch, [str(text_id) for text_id in batch["score_id"]])


def _texts(rows: pd.DataFrame, completions: pd.DataFrame) -> list[Text]:
    """The texts that a metric scores, one per row of `rows`. Their content comes from `completions`."""
    cell_rows: list[dict[str, Any]] = rows.to_dict("records")  # pyright: ignore[reportAssignmentType]
    completion_rows: list[dict[str, Any]] = (
        completions.loc[rows["completion"]].reset_index().to_dict("records")  # pyright: ignore[reportAssignmentType]
    )
    return [text_of(cell, completion) for cell, completion in zip(cell_rows, completion_rows, strict=True)]


def summarise(store: Store) -> pd.DataFrame:
    """Write summary.parquet, and return the summary.

    The summary has one row per cell, with mean, interval and n of every metric. n is the number of
    scored texts.
    """
    declare_stored_columns(store)
    columns = store.score_columns()
    texts = joined_results(store, columns)
    settings = [name for name in store.cell_table(columns=[]).settings if name != "cell"]
    metrics = [name for name in columns if name in texts]
    summary_of_cells = summary(texts, metrics, settings)
    store.write_summary(summary_of_cells)
    return summary_of_cells
