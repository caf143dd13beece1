"""The texts that the page shows: all of them, or of a very large study the same few of every cell.

Statistics never depend on this choice. They are computed over all texts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from cfg_lab.decoding.trace import DISTRIBUTIONS, TRACE_FIELDS
from cfg_lab.report.axes import PROMPT_KEY
from cfg_lab.study.columns import COMPLETION_SCHEMA
from cfg_lab.study.formats import count
from cfg_lab.study.parquet_files import dataset_of, read_files
from cfg_lab.study.store import Store

MOST_TEXTS = 20_000
"""Up to this number of texts, the page shows all."""

SAMPLE_TEXTS = 4_000
"""About this number of texts is shown of a study with more."""

MOST_TRACED_ROWS = 50_000
"""Rows of the files that are opened for the traces of a page with a token view of the usual size."""

TRACE_COLUMNS = (
    "pieces",
    *(f"trace_{name}" for name in TRACE_FIELDS),
    *(f"alternatives_{name}" for name in DISTRIBUTIONS),
)
"""The columns of a token view."""

Traces = Callable[[Sequence[str]], pd.DataFrame]
"""Ids of completions, the most important first -> the rows with their TRACE_COLUMNS, by id.

Some ids can be missing.
"""


@dataclass(frozen=True, kw_only=True, eq=False)
class ShownTexts:
    """Texts to show on a page.

    Attributes:
        rows: one row per text: the columns of the results, with text, finish_reason and tokens.
        traces: reads the traces of some of the texts.
        sentence: says which texts the page shows, as plain text; "" if it shows all.
    """

    rows: pd.DataFrame
    traces: Traces
    sentence: str = ""

    @classmethod
    def of_frame(cls, results: pd.DataFrame) -> ShownTexts:
        """All texts of a frame that holds their traces."""

        def traces(ids: Sequence[str]) -> pd.DataFrame:
            columns = [name for name in TRACE_COLUMNS if name in results]
            return results.drop_duplicates("completion").set_index("completion")[columns].loc[list(ids)]

        return cls(rows=results, traces=traces)


def read_shown_texts(
    store: Store, results: pd.DataFrame, most_traced_rows: int = MOST_TRACED_ROWS
) -> ShownTexts:
    """Choose the texts of a page, and read them.

    Args:
        store: the results folder.
        results: one row per text, without the columns of completions.
        most_traced_rows: rows of the files that are opened for traces. A file is always read as a whole.

    Raises:
        StoreError: a results file is damaged.
    """
    rows = results[chosen_rows(results)]
    texts = _completions(store, rows["completion"].unique(), ["text", "finish_reason", "tokens"])
    shown = rows.join(texts, on="completion")
    reader = _TraceReader(store, most_traced_rows)
    return ShownTexts(rows=shown, traces=reader.read, sentence=_sentence(store, results, rows))


def chosen_rows(results: pd.DataFrame) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Choose the texts to show: which rows, [texts].

    Up to MOST_TEXTS, all are chosen. Otherwise the same prompts and samples are chosen in all cells that have
    them, so that texts can be compared:

    1. Prompts are divided by the first cell that has them, so that every task and prompt set is represented.
    2. Of each part, the same share of its pairs of prompt and sample is chosen, at least one pair: the first
       sample of evenly spaced prompts. If the share allows more, it is the first samples of all prompts.

    The choice depends on the order of prompts and cells, and on nothing else.
    """
    if len(results) <= MOST_TEXTS:
        return np.ones(len(results), bool)
    prompt = results.groupby(PROMPT_KEY, sort=False).ngroup().to_numpy()
    _, first_row = np.unique(prompt, return_index=True)
    cell, _ = pd.factorize(results["cell"])
    part_of_prompt = cell[first_row]
    # A pair of sample and prompt as one number, which sorts by sample first.
    pair = pd.factorize(results["sample"], sort=True)[0] * len(first_row) + prompt
    pairs = np.unique(pair)
    part_of_pair = part_of_prompt[pairs % len(first_row)]
    share = SAMPLE_TEXTS / len(results)
    chosen = [_spaced(pairs[part_of_pair == part], len(first_row), share) for part in np.unique(part_of_pair)]
    return np.isin(pair, np.concatenate(chosen))


def _spaced(pairs: np.ndarray[Any, Any], prompts: int, share: float) -> np.ndarray[Any, Any]:
    """Choose a share of sorted pairs, at least one."""
    wanted = max(1, round(share * len(pairs)))
    first_samples = pairs[pairs // prompts == pairs[0] // prompts]
    if wanted >= len(first_samples):
        return pairs[:wanted]
    return first_samples[((np.arange(wanted) + 0.5) * len(first_samples) / wanted).astype(int)]


def _sentence(store: Store, results: pd.DataFrame, rows: pd.DataFrame) -> str:
    if len(rows) == len(results):
        return ""
    per_cell = rows["cell"].value_counts()
    least, most = int(per_cell.min()), int(per_cell.max())
    each = count(most, "text") if least == most else f"{least} to {count(most, 'text')}"
    return (
        f"This page shows {len(rows):,} of {len(results):,} texts: {each} of each cell, of the same prompts. "
        f"All statistics are over all texts. python -m cfg_lab.export {store.root} writes all texts."
    )


class _TraceReader:
    """Reads traces. Opens files only as long as they have at most `most_rows` rows together."""

    def __init__(self, store: Store, most_rows: int) -> None:
        self.store, self.most_rows = store, most_rows
        self.opened: set[str] = set()
        self.rows = 0

    def read(self, ids: Sequence[str]) -> pd.DataFrame:
        """As `Traces`."""
        return _completions(self.store, ids, TRACE_COLUMNS, self._chosen_files)

    def _chosen_files(self, paths: Sequence[Path], ids: Sequence[str]) -> list[Path]:
        """The files to open: those of the first ids, until they have too many rows."""
        rank = pa.array(ids, pa.large_string())
        first_rank: dict[str, int] = {}
        for batch in dataset_of(paths, COMPLETION_SCHEMA).scanner(columns=["id"]).scan_batches():
            ranks = pc.index_in(batch.record_batch.column(0), value_set=rank).drop_null()
            if len(ranks):
                path, least = str(cast("Any", batch.fragment).path), pc.min(ranks).as_py()
                first_rank[path] = min(least, first_rank.get(path, least))
        for path in sorted(first_rank, key=lambda path: (first_rank[path], path)):
            size = pq.read_metadata(path).num_rows
            if path not in self.opened and (not self.opened or self.rows + size <= self.most_rows):
                self.opened.add(path)
                self.rows += size
        return [path for path in paths if str(path) in self.opened and str(path) in first_rank]


def _completions(
    store: Store,
    ids: Sequence[str],
    columns: Sequence[str],
    choose: Callable[[Sequence[Path], Sequence[str]], list[Path]] = lambda paths, _: list(paths),
) -> pd.DataFrame:
    """Columns of completions by id. `choose` says which files are read.

    Unlike `Store.completions`, rows with other ids are dropped while a file is read. So little memory is
    needed if the ids are spread over many files.
    """

    def read(paths: list[Path]) -> pa.Table:
        condition = pc.field("id").isin(pa.array(ids, pa.large_string()))
        return dataset_of(choose(paths, ids), COMPLETION_SCHEMA).to_table(["id", *columns], filter=condition)

    frame = read_files(store.root / "completions", read).to_pandas()
    return frame.drop_duplicates("id").set_index("id")
