"""Loads the results of a sweep as a pandas frame."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from html import escape
from pathlib import Path

import pandas as pd

from cfg_lab.analysis import metrics_of, summary
from cfg_lab.analysis.frame import settings_of
from cfg_lab.study.declared_columns import declare_stored_columns
from cfg_lab.study.formats import count
from cfg_lab.study.notebook_html import results_html
from cfg_lab.study.store import Store, join_completions_and_scores


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


def load_results(path: str | Path) -> Results:
    """Load the results of a sweep: one row per cell, prompt and sample.

    Columns:
        cell: id of the cell.
        model, negatives, guidance.scale, seed, …: the settings, named as in the config.
        prompt_id, prompt, prompt_negative: id and text of the prompt, and the phrases to steer away from.
        sample: number of the sample, from 0.
        text, finish_reason, tokens, trace_…, …: all fields of the completion.
        perplexity, …: the columns of all metrics, NaN where a text has no score.

    Args:
        path: the results folder.

    Raises:
        InputError: the folder has no results, or none of its texts is decoded yet.
        StoreError: a file is damaged; the message names it.
    """
    store = Store(path)
    cells, _ = store.cells_and_decoded()
    declare_stored_columns(store)
    return Results(join_completions_and_scores(store, cells))


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
