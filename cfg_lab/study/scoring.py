"""Scoring stored texts: find what a metric has not scored yet, score it, and summarise the cells.

The model that generated the texts is not needed: metrics read texts from the results folder.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from rich.console import Console

from cfg_lab.analysis import summary
from cfg_lab.analysis.frame import PLAIN_SETTINGS
from cfg_lab.analysis.stats.clustered_means import Ints
from cfg_lab.errors import InputError
from cfg_lab.metrics import Metric, columns_of, needs_whole_cell, scorer_key
from cfg_lab.metrics.text import Text
from cfg_lab.study.columns import CELL_SCHEMA, COMPLETION_SCHEMA, TEXT_COLUMNS, text_of
from cfg_lab.study.declared_columns import declare_stored_columns, write_declared_columns
from cfg_lab.study.joined_results import joined_results, set_score_ids
from cfg_lab.study.progress import ProgressBar
from cfg_lab.study.store import Store

RESERVED_COLUMNS = {"cell", "texts", *PLAIN_SETTINGS, *CELL_SCHEMA.names, *COMPLETION_SCHEMA.names}
"""Names that results and their summary use for columns which are not metrics."""

_TEXTS_PER_CALL = 32
"""Batch size of metrics that score each text by itself: small, so that a crash loses little work."""

_TEXTS_PER_BLOCK = 50_000
"""Number of texts that are in memory together."""

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
    check_columns(metrics)
    for metric in metrics:
        declared, scored = list(columns_of(metric)), list(metric.score([]))
        if declared != scored:
            raise InputError(
                f"metrics: {type(metric).__name__} declares the columns {', '.join(declared)} and gives "
                f"{', '.join(scored) or 'none'}; they must be equal and in the same order"
            )


def check_columns(metrics: Sequence[Metric]) -> None:
    """Check the names of the columns that metrics declare. No model is loaded.

    Raises:
        InputError: a column has a name that results use for something else.
    """
    for metric in metrics:
        for column in columns_of(metric):
            if column in RESERVED_COLUMNS or "." in column or column.endswith(("_low", "_high", "_n")):
                raise InputError(
                    f"metrics: {type(metric).__name__} gives a column {column!r}; results use that name "
                    "themselves, as they do what ends in _low, _high or _n"
                )


def main_columns(metrics: Sequence[Metric]) -> list[str]:
    """The name of each metric's first column. Tables show this column for the metric."""
    return [next(iter(columns_of(metric))) for metric in metrics]


@dataclass(frozen=True, kw_only=True, eq=False)
class _MissingScores:
    """Texts that a metric has not scored yet.

    Attributes:
        metric: the metric.
        positions: positions of the texts in the rows to score, [texts].
        id_column: column of the rows with the ids under which the scores are stored.
        texts_per_call: number of texts in each call of the metric.
    """

    metric: Metric
    positions: Ints
    id_column: str
    texts_per_call: int


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

    Raises:
        InputError: see `prepare_metrics`.
    """
    return score_rows(store, metrics, store.cells(cells), console)


def score_rows(store: Store, metrics: Sequence[Metric], rows: pd.DataFrame, console: Console) -> int:
    """Score the decoded texts among some rows that a metric has not scored yet, and store the scores.

    A metric that has scored all these texts loads nothing.

    Args:
        store: the results folder.
        metrics: the metrics to score with. A metric that scores all texts of a cell at once needs all rows of
            the cell.
        rows: one row per text, with the column `cell` and the columns of CELL_SCHEMA, as `Store.cells` has.
        console: where to show progress.

    Returns:
        As `score_missing`.

    Raises:
        InputError: see `prepare_metrics`.
    """
    check_columns(metrics)
    rows = _decoded_rows(store, metrics, rows)
    blocks = _missing_scores(store, metrics, rows)
    total = sum(len(missing.positions) for block in blocks for missing in block)
    unscored = {id(missing.metric) for block in blocks for missing in block}
    prepare_metrics([metric for metric in metrics if id(metric) in unscored])
    write_declared_columns(store, metrics)
    if not total:
        return 0
    unwritten: list[dict[str, Any]] = []
    last_write_time = time.monotonic()
    with ProgressBar(console, "scoring", total, "texts") as bar:
        try:
            for metric, ids, texts in _calls(store, rows, blocks):
                columns = metric.score(texts)
                unwritten += [
                    {"text": text, "scorer": scorer_key(metric), "column": column, "value": value}
                    for column, values in columns.items()
                    for text, value in zip(ids, values, strict=True)
                ]
                bar.advance(len(ids), note=type(metric).__name__)
                waited = time.monotonic() - last_write_time
                if len(unwritten) >= _SCORES_PER_FILE or waited > _SECONDS_BETWEEN_WRITES:
                    store.add_scores(unwritten)
                    unwritten, last_write_time = [], time.monotonic()
        finally:
            if unwritten:  # also after an interruption
                store.add_scores(unwritten)
    return total


def unscored_cells(store: Store, metrics: Sequence[Metric], cells: Collection[str]) -> list[str]:
    """Ids of the cells with decoded texts that a metric has not scored yet."""
    rows = _decoded_rows(store, metrics, store.cells(cells))
    blocks = _missing_scores(store, metrics, rows)
    positions = [missing.positions for block in blocks for missing in block]
    return list(dict.fromkeys(rows["cell"].iloc[np.concatenate(positions)])) if positions else []


def _decoded_rows(store: Store, metrics: Sequence[Metric], rows: pd.DataFrame) -> pd.DataFrame:
    """The rows whose texts are decoded, without settings, and with the ids of scores of a whole cell."""
    decoded = store.completion_table(["id"], rows["completion"])["id"]
    rows = rows.loc[_is_in(rows["completion"], decoded), ["cell", *CELL_SCHEMA.names]]
    return rows.assign(set_score_id=set_score_ids(rows)) if any(map(needs_whole_cell, metrics)) else rows


def _missing_scores(
    store: Store, metrics: Sequence[Metric], rows: pd.DataFrame
) -> list[list[_MissingScores]]:
    """Find the scores that are missing. Equal texts are scored once.

    Returns:
        Blocks of missing scores. The texts of a block fit into memory together.
    """
    # A metric that scores a cell at once needs all texts of the cell, so a block has whole cells.
    cell_of_row, cells = pd.factorize(rows["cell"])
    block_of_cell = np.cumsum(np.bincount(cell_of_row, minlength=len(cells))) // _TEXTS_PER_BLOCK
    blocks: dict[int, list[_MissingScores]] = {int(block): [] for block in block_of_cell}
    id_columns = ["set_score_id" if needs_whole_cell(metric) else "score_id" for metric in metrics]
    scored_texts = {name: store.scored_texts(rows[name]) for name in set(id_columns)}
    for metric, id_column in zip(metrics, id_columns, strict=True):
        whole_cells = needs_whole_cell(metric)
        scored = scored_texts[id_column].get(scorer_key(metric), pa.array([], pa.string()))
        is_missing = ~_is_in(rows[id_column], scored)
        is_first = ~rows[id_column].duplicated().to_numpy()
        if whole_cells:
            # Cells with the same texts share their scores.
            groups = [
                positions
                for positions in _positions_of(cell_of_row)
                if is_missing[positions].any() and is_first[positions].any()
            ]
        else:
            groups = _positions_of(np.where(is_missing & is_first, block_of_cell[cell_of_row], -1))
        for positions in groups:
            size = len(positions) if whole_cells else _TEXTS_PER_CALL
            missing = _MissingScores(
                metric=metric, positions=positions, id_column=id_column, texts_per_call=size
            )
            blocks[int(block_of_cell[cell_of_row[positions[0]]])].append(missing)
    return [blocks[block] for block in sorted(blocks)]


def _positions_of(numbers: Ints) -> list[Ints]:
    """Positions of each number in a list of numbers, for the numbers from 0 on."""
    order = np.argsort(numbers, kind="stable")
    starts = np.flatnonzero(np.diff(numbers[order], prepend=-1))
    return [group for group in np.split(order, starts) if len(group) and numbers[group[0]] >= 0]


def _is_in(ids: pd.Series[str], known_ids: Any) -> NDArray[np.bool_]:
    """Whether each id is one of the known ids, [ids]."""
    known_ids = known_ids.cast(pa.large_string())
    return pc.is_in(pa.array(ids, pa.large_string()), value_set=known_ids).to_numpy(zero_copy_only=False)


def _calls(
    store: Store, rows: pd.DataFrame, blocks: Sequence[Sequence[_MissingScores]]
) -> Iterator[tuple[Metric, list[str], list[Text]]]:
    """The calls of metrics: the metric, the ids under which scores are stored, and the texts."""
    for block in blocks:
        if not block:
            continue
        positions = np.unique(np.concatenate([missing.positions for missing in block]))
        ids = rows["completion"].iloc[positions].unique()
        completions = store.completions(TEXT_COLUMNS, ids).set_index("id")
        for missing in block:
            for start in range(0, len(missing.positions), missing.texts_per_call):
                batch = rows.iloc[missing.positions[start : start + missing.texts_per_call]]
                yield missing.metric, batch[missing.id_column].tolist(), _texts(batch, completions)


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
    settings = [str(name) for name in store.cell_table(columns=[]).settings if name != "cell"]
    metrics = [name for name in columns if name in texts]
    summary_of_cells = summary(texts, metrics, settings)
    store.write_summary(summary_of_cells)
    return summary_of_cells
