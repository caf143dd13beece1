"""Loads the results of a sweep as a pandas frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from html import escape
from pathlib import Path

import pandas as pd
from pyarrow.dataset import FileSystemDataset

from cfg_lab.analysis import metrics_of, summary
from cfg_lab.analysis.frame import settings_of
from cfg_lab.study.declared_columns import declare_stored_columns
from cfg_lab.study.formats import count
from cfg_lab.study.joined_results import joined_results
from cfg_lab.study.notebook_html import results_html
from cfg_lab.study.store import Store


class Results(pd.DataFrame):
    """Results of a sweep, one row per text. A notebook shows means and intervals of each cell, not rows.

    The result of a pandas operation (a slice, a query, a copy) is a plain DataFrame, and a notebook shows its
    rows as usual.
    """

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        if not {"cell", "prompt_id", "prompt", "sample"} <= set(
            self.columns
        ):  # columns were dropped in place
            return self.copy().to_html(max_rows=10, notebook=True)
        columns = escape(", ".join(_column_kinds(self)))
        texts = count(len(self), "text")
        return f"{results_html(summary(self))}<p>{texts}, one per row; columns {columns}</p>"


def load_results(
    path: str | Path, columns: Sequence[str] | None = None, cells: Collection[str] | None = None
) -> Results:
    """Load the results of a sweep: one row per cell, prompt and sample.

    Columns:
        cell: id of the cell.
        model, negatives, guidance.scale, seed, …: the settings, named as in the config.
        prompt_id, prompt, prompt_negative: id and text of the prompt, and the phrases to steer away from.
        sample: number of the sample, from 0.
        completion: id of the decoded text.
        text, finish_reason, tokens, trace_…, …: all fields of the completion.
        perplexity, …: the columns of all metrics, NaN where a text has no score.

    Args:
        path: the results folder.
        columns: names of the columns to load; None loads all. The columns trace_…, alternatives_… and pieces
            are nearly all of a large folder. `cell`, `prompt_id`, `prompt`, `sample`, `completion`,
            `model_name`, `positive_ids`, `negative_ids` and the settings are always loaded, so that tables
            and figures are the same as with all columns.
        cells: ids of the cells to load; None loads all. Settings that none of these cells has are left out.

    Raises:
        InputError: the folder has no results, none of its texts is decoded yet, or it has no such column or
            cell.
        StoreError: a file is damaged; the message names it.
    """
    store = Store(path)
    results = joined_results(store, columns, cells)
    declare_stored_columns(store)
    return Results(results)


def open_dataset(path: str | Path) -> FileSystemDataset:
    """The decoded texts of a results folder as a `pyarrow.dataset`, which reads only what it is asked for.

    Use it for texts that do not fit into memory: `dataset.to_table(columns=…, filter=…)` reads some rows, and
    `dataset.to_batches(columns=…)` reads one part after another. The column `id` holds what `load_results`
    calls `completion`; settings, prompts and scores are not in the dataset. An id can occur more than once,
    if several sweeps decoded the same text; its rows are then equal.

    Args:
        path: the results folder.

    Raises:
        InputError: the folder has no decoded texts.
    """
    store = Store(path)
    dataset = store.dataset()
    store.check_decoded(store.planned_text_count(), len(dataset.files))
    return dataset


def _column_kinds(results: pd.DataFrame) -> list[str]:
    """Describe the columns of results as a list of short texts.

    Settings, metrics, and the columns trace_… and alternatives_… are only counted, as in "12 settings". All
    other columns are listed by name.
    """
    settings, metrics = set(settings_of(results)), set(metrics_of(results))

    def kind(name: str) -> str:
        if name in settings:
            return "settings"
        if name in metrics:
            return "metrics"
        return next((f"{prefix}…" for prefix in ("trace_", "alternatives_") if name.startswith(prefix)), name)

    kinds = Counter(kind(name) for name in map(str, results.columns))
    return [f"{number} {name}" if number > 1 else name for name, number in kinds.items()]
