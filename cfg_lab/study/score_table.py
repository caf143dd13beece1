"""The scores of a results folder, without a Python object for each of millions of rows."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cfg_lab.study.columns import SCORE_SCHEMA
from cfg_lab.study.parquet_files import dataset_of, has_one_of, read_files, read_table


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Rows of the files of scores, the oldest first.

    Attributes:
        rows: columns of SCORE_SCHEMA. Strings are dictionaries, with one dictionary for all rows.
    """

    rows: pa.Table

    @classmethod
    def read(cls, folder: Path, columns: Sequence[str], texts: Collection[str] | None = None) -> ScoreTable:
        """Read columns of all files in a folder.

        Args:
            folder: the folder of scores.
            columns: names of columns of SCORE_SCHEMA.
            texts: ids of the texts whose rows are read; None reads all rows.

        Raises:
            StoreError: a file is damaged; the message names it.
        """
        strings = [name for name in columns if SCORE_SCHEMA.field(name).type == pa.string()]

        def read(paths: list[Path]) -> pa.Table:
            if texts is None:
                return read_table(dataset_of(paths, SCORE_SCHEMA, strings), columns).unify_dictionaries()
            # A dictionary of a file has all texts of the file. So strings are encoded when rows are chosen.
            few = read_table(dataset_of(paths, SCORE_SCHEMA), columns, has_one_of("text", texts))
            for name in strings:
                few = few.set_column(few.column_names.index(name), name, few[name].dictionary_encode())
            return few

        return cls(read_files(folder, read))

    def names(self, column: str) -> list[str]:
        """The different values of a column of strings."""
        return self._codes(column)[1].to_pylist()

    def texts_by_scorer(self) -> dict[str, Any]:
        """Scorer key of each metric -> ids of the texts that the metric has scored."""
        text_of_row, texts = self._codes("text")
        scorer_of_row, scorers = self._codes("scorer")
        is_scored = np.zeros((len(scorers), len(texts)), bool)
        is_scored[scorer_of_row, text_of_row] = True
        return {
            scorer: texts.filter(pa.array(row))
            for scorer, row in zip(scorers.to_pylist(), is_scored, strict=True)
        }

    def matrix(self, columns: Collection[str] | None = None) -> ScoreMatrix:
        """The values that were written last, by text and column. `columns` is as in `Store.scores`."""
        text_of_row, texts = self._codes("text")
        column_of_row, names = self._codes("column")
        requested = sorted(name for name in names.to_pylist() if columns is None or name in columns)
        position = np.array(
            [requested.index(name) if name in requested else -1 for name in names.to_pylist()], np.int64
        )
        row_is_requested = (position >= 0)[column_of_row] if len(position) else slice(0)
        values = np.full((len(texts), len(requested)), np.nan)
        # Of several values for one place, numpy keeps the last.
        values[text_of_row[row_is_requested], position[column_of_row[row_is_requested]]] = self.rows[
            "value"
        ].to_numpy()[row_is_requested]
        return ScoreMatrix(texts=texts, columns=requested, values=values)

    def _codes(self, column: str) -> tuple[np.ndarray[Any, Any], Any]:
        """For each row the number of its value, and the different values as an Arrow array."""
        chunks: list[Any] = self.rows[column].chunks
        if not chunks:
            return np.zeros(0, np.int32), pa.array([], pa.string())
        return np.concatenate([chunk.indices.to_numpy() for chunk in chunks]), chunks[0].dictionary


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoreMatrix:
    """Scores of texts.

    Attributes:
        texts: ids of the texts, an Arrow array.
        columns: names of columns of metrics, sorted.
        values: [texts, columns]; NaN where a text has no score.
    """

    texts: Any
    columns: list[str]
    values: np.ndarray[Any, np.dtype[np.float64]]

    @property
    def has_sets(self) -> bool:
        """Whether metrics of whole cells have stored scores (see `set_score_ids`)."""
        return bool(cast("Any", pc).any(pc.match_substring(self.texts, "@")).as_py())

    def of(self, ids: pd.Series[str]) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The values of texts with given ids, [ids, columns]. NaN where an id has no scores."""
        rows = cast("Any", pc).index_in(pa.array(ids, self.texts.type), value_set=self.texts)
        with_nan = np.vstack([self.values, np.full((1, len(self.columns)), np.nan)])
        return with_nan[rows.fill_null(len(self.texts)).to_numpy()]

    def to_pandas(self) -> pd.DataFrame:
        """The frame of `Store.scores`."""
        index = pd.Index(self.texts.to_pandas(), name="text", dtype="str")
        columns = pd.Index(self.columns, name="column", dtype="str")
        return pd.DataFrame(self.values, index, columns).sort_index()
