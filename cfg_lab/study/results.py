"""Results of a sweep as a pandas frame."""

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
from cfg_lab.study.store import Store, join


class Results(pd.DataFrame):
    """A row a text. A notebook shows its cells, with means and intervals; what is made of it (a slice, a
    query, a copy) is a plain DataFrame and shown as one."""

    @property
    def _constructor(self) -> Callable[..., pd.DataFrame]:
        return pd.DataFrame

    def _repr_html_(self) -> str:
        if not {"cell", "prompt_id", "prompt", "sample"} <= set(self.columns):  # they were taken out in place
            return self.copy().to_html(max_rows=10, notebook=True)
        columns = escape(", ".join(_folded(self)))
        return f"{results_html(summary(self))}<p>{count(len(self), 'text')}, one a row; columns {columns}</p>"


def load_results(path: str | Path) -> Results:
    """Results of a sweep: a row for each cell, prompt and sample.

    KVBuffer: `cell`; the settings as configs name them ("model", "negatives", "guidance.scale", "seed", …);
    `prompt_id`, `prompt`, `prompt_negative` (the phrases to steer away from), `sample`; all fields of the
    completion (`text`, `finish_reason`, `tokens`, the `trace_…` lists); and a column a metric, NaN where
    unscored.

    Raises:
        InputError: the folder holds no results, or none of their texts is decoded yet.
        StoreError: a file in it is damaged; names the file.
    """
    store = Store(path)
    cells, _ = store.begun()
    declare_stored_columns(store)
    return Results(join(store, cells))


def _folded(results: pd.DataFrame) -> list[str]:
    """Names of the columns, kinds of which there are many as one with their number."""
    settings, metrics = set(settings_of(results)), set(metrics_of(results))

    def kind(name: str) -> str:
        if name in settings:
            return "settings"
        if name in metrics:
            return "metrics"
        return next((f"{one}…" for one in ("trace_", "alternatives_") if name.startswith(one)), name)

    kinds = Counter(kind(name) for name in map(str, results.columns))
    return [f"{number} {name}" if number > 1 else name for name, number in kinds.items()]
