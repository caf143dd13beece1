"""Joins cells, completions and scores of a results folder to one frame."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from difflib import get_close_matches
from hashlib import blake2b
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cfg_lab.errors import InputError
from cfg_lab.study.cell_table import CellTable
from cfg_lab.study.columns import CELL_SCHEMA, COMPLETION_SCHEMA, HIDDEN, SHOWN
from cfg_lab.study.store import Store

ALWAYS = ("prompt_id", "prompt", "sample", "completion", "model_name", "positive_ids", "negative_ids")
"""Columns that every results frame has, as it has `cell` and the settings.

The tables and figures of `cfg_lab.analysis` need these columns to find equal prompts and unguided cells.
"""


def joined_results(
    store: Store, columns: Sequence[str] | None = None, cells: Collection[str] | None = None
) -> pd.DataFrame:
    """One row per decoded text: its cell, prompt, settings, completion and scores.

    Args:
        store: the results folder.
        columns: names of columns to read, beside `cell`, the settings and those of ALWAYS; None reads all.
        cells: ids of the cells to read; None reads all.

    Raises:
        InputError: the folder has no results, none of the texts is decoded, or there is no such cell or
            column.
        StoreError: a file is damaged; the message names it.
    """
    table = store.cell_table(cells, _chosen(CELL_SCHEMA.names, columns, ("completion", "score_id")))
    _check_cells(cells, table, store)
    scores = store.score_matrix(columns)
    if columns is not None:
        _check_columns(columns, [*SHOWN, *map(str, table.settings), *scores.columns], store)
    planned: Any = table.rows["completion"]
    completions = store.completion_table(
        _chosen(COMPLETION_SCHEMA.names, columns, ("id",)),
        None if cells is None else planned.unique().to_pylist(),
    )
    rows = cast("Any", pc.index_in(planned, value_set=completions["id"]))
    store.check_decoded(planned=len(rows), decoded=len(rows) - rows.null_count)
    frame = (table.filter(rows.is_valid()) if rows.null_count else table).to_pandas()
    texts = _rows_of(completions.drop_columns("id"), rows.drop_null().combine_chunks())
    if columns is None and not any(map(np.size, texts["choices"].dropna())):
        texts = texts.drop(columns="choices")  # only a benchmark has given answers
    values = scores.of(frame["score_id"])
    if scores.has_sets:
        values = np.where(np.isnan(values), scores.of(set_score_ids(frame)), values)
    taken = {*SHOWN, *table.settings}
    names = [f"{name}_metric" if name in taken else name for name in scores.columns]
    parts = [frame, texts, pd.DataFrame(values, columns=pd.Index(names, dtype="str"))]
    return pd.concat(parts, axis=1).drop(columns=list(HIDDEN), errors="ignore")


def _rows_of(table: pa.Table, rows: Any) -> pd.DataFrame:
    """Rows of a table as a frame. Rows that occur several times share their lists."""
    nested = [field.name for field in cast("Any", table.schema) if pa.types.is_list(field.type)]
    lists = table.select(nested).to_pandas().take(rows.to_numpy()).reset_index(drop=True)
    others = table.drop_columns(nested).take(rows).to_pandas()
    return pd.concat([lists, others], axis=1)[table.column_names]


def _chosen(names: Sequence[str], columns: Sequence[str] | None, needed: Collection[str]) -> list[str]:
    """The names that were asked for or are needed, in their order; all if `columns` is None."""
    return [name for name in names if columns is None or name in {*columns, *ALWAYS, *needed}]


def _check_cells(cells: Collection[str] | None, table: CellTable, store: Store) -> None:
    unknown = sorted({*(cells or ())} - set(table.settings["cell"]))
    if unknown:
        known = list(store.cell_table(columns=[]).settings["cell"])
        raise InputError(
            f"cells: there is no cell {unknown[0]!r} in {str(store.root)!r}{_nearest(unknown[0], known)}"
        )


def _check_columns(columns: Sequence[str], known: Sequence[str], store: Store) -> None:
    for name in columns:
        if name not in known:
            names = [*known, *store.score_columns()]
            raise InputError(
                f"columns: there is no column {name!r} in {str(store.root)!r}{_nearest(name, names)}"
            )


def _nearest(name: str, names: Sequence[str]) -> str:
    """A question that names what a user may have meant, or all names if none resembles `name`."""
    if nearest := get_close_matches(name, names, 3):
        return f" (did you mean {' or '.join(nearest)}?)"
    return f"; it has {', '.join(dict.fromkeys(names)) or 'none'}"


def set_score_ids(rows: pd.DataFrame) -> pd.Series[str]:
    """For each row, the id under which scores of a whole cell are stored.

    Some metrics score all texts of a cell at once, and store one value per text under these ids. An id
    depends on every text of the cell: it changes when a text is added to the cell or replaced. Cells with
    the same prompts and texts have the same ids, and so share their scores.

    Args:
        rows: rows of `Store.cells()`.
    """
    ids_by_cell: list[pd.Series[str]] = []
    for _, cell in rows.groupby("cell", sort=False):
        prompts, ids = cell["prompt_id"].astype(str), cell["score_id"].astype(str)
        lines = prompts + "|" + ids
        cell_hash = blake2b("\n".join(sorted(lines)).encode(), digest_size=8).hexdigest()
        suffixes = [
            blake2b(f"{prompt}|{cell_hash}".encode(), digest_size=8).hexdigest() for prompt in prompts
        ]
        ids_by_cell.append(ids + "@" + pd.Series(suffixes, cell.index))
    return pd.concat(ids_by_cell).reindex(rows.index) if ids_by_cell else pd.Series(dtype=str)
