"""Scoring what is decoded: what a metric has not scored yet, from the store alone; then means and intervals.

Knows no model, so a finished sweep is scored again without one.
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
from cfg_lab.study.progress import ProgressBar
from cfg_lab.study.store import Store, join, together_ids

TAKEN = {"cell", "texts", *PLAIN_SETTINGS, *CELL_SCHEMA.names, *COMPLETION_SCHEMA.names}
"""KVBuffer of results and their summary that are no metrics."""

_AT_ONCE = 32
"""Texts a call of a metric that scores texts alone: enough for a batch, few enough to lose to a kill."""


def prepare(metrics: Sequence[Metric]) -> None:
    """Load what metrics need, so that what cannot be had is known before hours of decoding.

    Raises:
        InputError: something is missing, a metric gives other columns than it declares, or a metric's column
            has a name that results use for something else.
    """
    for metric in metrics:
        declared, scored = list(columns_of(metric)), list(metric.score([]))
        if declared != scored:
            raise InputError(
                f"metrics: {type(metric).__name__} declares the columns {', '.join(declared)} and gives "
                f"{', '.join(scored) or 'none'}; they must be equal and in the same order"
            )
        for column in declared:
            if column in TAKEN or "." in column or column.endswith(("_low", "_high", "_n")):
                raise InputError(
                    f"metrics: {type(metric).__name__} gives a column {column!r}; results use that name "
                    "themselves, as they do what ends in _low, _high or _n"
                )


def first_columns(metrics: Sequence[Metric]) -> list[str]:
    """Of each metric, the column that stands for it."""
    return [next(iter(columns_of(metric))) for metric in metrics]


@dataclass(frozen=True, eq=False)
class _Unit:
    """One call of a metric: rows of the store's cells, and the ids their scores are kept under."""

    metric: Metric
    rows: pd.DataFrame
    ids: Sequence[str]


def score_missing(
    store: Store, metrics: Sequence[Metric], console: Console, cells: Collection[str] | None = None
) -> int:
    """Score the decoded texts that a metric has not scored yet, and keep the scores.

    Args:
        cells: ids of those to score; None is all of the store.

    Returns:
        How many scores were missing, counted in texts a metric.
    """
    write_declared_columns(store, metrics)
    rows = store.cells(cells)
    rows = rows[rows["completion"].isin(store.completion_ids())]
    units = list(_missing(store, metrics, rows))
    total = sum(len(unit.ids) for unit in units)
    if not total:
        return 0
    stored = store.completions().set_index("id")
    found: list[dict[str, Any]] = []  # not written yet
    written = time.monotonic()
    with ProgressBar(console, "scoring ", total, "texts") as bar:
        try:
            for unit in units:
                columns = unit.metric.score(_texts(unit.rows, stored))
                found += [
                    {"text": text, "scorer": scorer_key(unit.metric), "column": column, "value": value}
                    for column, values in columns.items()
                    for text, value in zip(unit.ids, values, strict=True)
                ]
                bar.advance(len(unit.ids), note=type(unit.metric).__name__)
                if len(found) >= 2048 or time.monotonic() - written > 15:
                    store.add_scores(found)
                    found, written = [], time.monotonic()
        finally:
            if found:  # also where it was interrupted
                store.add_scores(found)
    return total


def _missing(store: Store, metrics: Sequence[Metric], rows: pd.DataFrame) -> Iterator[_Unit]:
    scored = store.scored()
    alone = rows.drop_duplicates("score_id")
    rows = rows.assign(together=together_ids(rows))
    for metric in metrics:
        key = scorer_key(metric)
        if needs_whole_cell(metric):
            seen: set[str] = set()  # cells of the same texts are scored once
            for _, cell in rows.groupby("cell", sort=False):
                ids = [str(one) for one in cell["together"]]
                if not seen.issuperset(ids) and any((one, key) not in scored for one in ids):
                    yield _Unit(metric, cell, ids)
                seen.update(ids)
        else:
            left = alone[[(str(one), key) not in scored for one in alone["score_id"]]]
            for begin in range(0, len(left), _AT_ONCE):
                part = left.iloc[begin : begin + _AT_ONCE]
                yield _Unit(metric, part, [str(one) for one in part["score_id"]])


def _texts(rows: pd.DataFrame, stored: pd.DataFrame) -> list[Text]:
    cells: list[dict[str, Any]] = rows.to_dict("records")  # pyright: ignore[reportAssignmentType]
    completions: list[dict[str, Any]] = stored.loc[rows["completion"]].reset_index().to_dict("records")  # pyright: ignore[reportAssignmentType]
    return [text_of(cell, completion) for cell, completion in zip(cells, completions, strict=True)]


def summarise(store: Store) -> pd.DataFrame:
    """Mean, interval and n of every metric in every cell of the store; written there too."""
    declare_stored_columns(store)
    cells = store.cells()
    texts = join(store, cells)
    settings = [name for name in cells.columns if name not in {"cell", *CELL_SCHEMA.names}]
    metrics = [name for name in store.scores().columns if name in texts]
    found = summary(texts, metrics, settings)
    store.write_summary(found)
    return found
