"""The cells of a results folder: one row per text, decoded or not, and the settings of each cell once.

A folder can have a million texts in hundreds of cells. So the settings are repeated for every text only in
the last step, and without copies of their strings.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import pyarrow as pa

from cfg_lab.study.columns import CELL_SCHEMA
from cfg_lab.study.parquet_files import dataset_of, read_columns


@dataclass(frozen=True, kw_only=True, eq=False)
class CellTable:
    """Texts of cells, with the settings of each cell.

    Attributes:
        rows: one row per text, with columns of CELL_SCHEMA. The texts of a cell are adjacent.
        settings: one row per cell: the column `cell` with its id, and a column for each setting.
        counts: number of rows of each cell, [cells].
    """

    rows: pa.Table
    settings: pd.DataFrame
    counts: np.ndarray[Any, np.dtype[np.int64]]

    @classmethod
    def read(cls, paths: Sequence[Path], columns: Sequence[str]) -> CellTable:
        """Read the files of cells.

        Args:
            paths: the files, one per cell.
            columns: names of the columns of CELL_SCHEMA to read. Columns that older files do not have are
                null.
        """
        frames = [pd.DataFrame({"cell": pd.Series(dtype="str")})]
        counts: list[int] = []
        for fragment in cast("Any", dataset_of(paths, CELL_SCHEMA)).get_fragments():
            settings: dict[str, Any] = json.loads(fragment.physical_schema.metadata[b"settings"])
            counts.append(fragment.metadata.num_rows)
            cell = {"cell": [Path(fragment.path).stem]}
            frames.append(pd.DataFrame(cell | {key: [value] for key, value in settings.items()}))
        return cls(
            rows=read_columns(paths, CELL_SCHEMA, columns),
            settings=pd.concat(frames[1:] or frames, ignore_index=True),
            counts=np.array(counts, np.int64),
        )

    def filter(self, mask: Any) -> CellTable:
        """The rows where `mask` is true. All cells stay in `settings`."""
        cell_of_row = np.repeat(np.arange(len(self.counts)), self.counts)
        kept = np.bincount(cell_of_row[mask.to_numpy()], minlength=len(self.counts))
        return CellTable(rows=self.rows.filter(mask), settings=self.settings, counts=kept.astype(np.int64))

    def to_pandas(self) -> pd.DataFrame:
        """One row per text: the columns of `rows`, `cell`, and the settings."""
        repeated = {name: _repeated(values, self.counts) for name, values in self.settings.items()}
        return pd.concat([self.rows.to_pandas(), pd.DataFrame(repeated)], axis=1)


def _repeated(values: pd.Series[Any], counts: np.ndarray[Any, Any]) -> Any:
    """Each value as often as `counts` says. Equal strings share their memory."""
    if not isinstance(values.dtype, pd.StringDtype):
        return pd.Series(np.repeat(values.to_numpy(), counts), dtype=values.dtype)
    longest = int(counts.max(initial=0))
    strings = [value if isinstance(value, str) else None for value in values.tolist()]
    repeats = {value: pa.repeat(pa.scalar(value, pa.large_string()), longest) for value in set(strings)}
    chunks = [repeats[value].slice(0, count) for value, count in zip(strings, counts.tolist(), strict=True)]
    return cast("Any", values.dtype).__from_arrow__(pa.chunked_array(chunks, pa.large_string()))
