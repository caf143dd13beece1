"""A results folder on disk.

    results/<name>/
        config.yaml, environment.json   config, command, versions and machine of the last run
        cells/<cell>.parquet            one file per cell: its settings, and one row per text
        completions/*.parquet           decoded texts, one row each
        scores/*.parquet                values by text, metric and column
        metrics/<scorer>.json           descriptions of the columns of a metric that is not part of the lab
        costs/*.json                    cost of decoding, one file per run and model
        summary.parquet                 one row per cell
        tracked/<run>                   the destinations that trackers have logged a run to

<scorer> is the key of a metric. <run> is the id of a cell, or "overview" for the study as a whole. A file of
completions or scores is named by a hash of its content.

Every file is first written under a temporary name, then fsynced and renamed. A killed sweep therefore loses
at most the work that it had not written yet. Several sweeps can use one folder at the same time: they write
different files, or the same content.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from cfg_lab.errors import InputError, StoreError
from cfg_lab.study.cell_table import CellTable
from cfg_lab.study.columns import CELL_SCHEMA, COMPLETION_SCHEMA, SCORE_SCHEMA
from cfg_lab.study.costs import COST_FIELDS
from cfg_lab.study.parquet_files import (
    damaged,
    dataset_of,
    files_of,
    files_with,
    has_one_of,
    read_columns,
    read_files,
    write_file,
)
from cfg_lab.study.score_table import ScoreMatrix, ScoreTable

IDENTITY_VERSION = 2
"""Version of the rules that give cells their ids.

Raise this number when a config gets another id than before, or when an id stands for other texts than before.
The texts of an id change when a default of a class in a config changes, because ids leave out arguments that
have their default value.
"""


class Store:
    """Reads and writes one results folder. The folder is created by the first write."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def check_writable(self) -> None:
        """Create the folder if needed, and delete temporary files that killed sweeps left in it.

        Raises:
            InputError: the folder cannot be created, or files cannot be written to it.
        """
        probe = self.root / f".{secrets.token_hex(4)}.tmp"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise InputError(
                f"results_root/name is {str(self.root)!r}, where nothing can be written ({error.strerror}); "
                "choose another results_root"
            ) from error
        for temporary_file in self.root.rglob(".*.tmp"):
            with suppress(FileNotFoundError):  # another sweep has just renamed it
                if time.time() - temporary_file.stat().st_mtime > 3600:  # a younger one may be in use
                    temporary_file.unlink()

    def check_version(self) -> None:
        """Check that new cells can be added to the cells in the folder. Writes nothing.

        A folder with cells of another IDENTITY_VERSION can still be loaded, scored, reported and tracked. A
        sweep into it is refused: it would decode the same texts again under other ids.

        Raises:
            InputError: the folder has cells of another version.
            StoreError: a cell's file is damaged.
        """
        for path in files_of(self.root / "cells"):
            try:
                metadata = pq.read_schema(path).metadata or {}
            except (pa.ArrowException, OSError) as error:
                raise damaged(path, error) from error
            expected = _identity_version(json.loads(metadata.get(b"settings", b"{}")))
            if metadata.get(b"identity_version") != expected.encode():
                raise InputError(
                    f"name={self.root.name!r}: {self.root} holds results of another version of the lab; "
                    "they can be read and scored, but not added to; choose another name"
                )

    # Writing

    def add_completions(self, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Write a file of decoded texts. Rows have the columns of COMPLETION_SCHEMA."""
        return self._add("completions", COMPLETION_SCHEMA, rows)

    def add_scores(self, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Write a file of scores. Rows have the columns of SCORE_SCHEMA."""
        return self._add("scores", SCORE_SCHEMA, rows)

    def write_cell(self, cell: str, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Path:
        """Write a cell: its settings, and one row with the columns of CELL_SCHEMA per text."""
        metadata = {"settings": json.dumps(settings), "identity_version": _identity_version(settings)}
        schema = CELL_SCHEMA.with_metadata(metadata)
        path = self.root / "cells" / f"{cell}.parquet"
        return write_file(path, pa.Table.from_pylist(list(rows), schema=schema))

    def write_summary(self, summary: pd.DataFrame) -> Path:
        """Write summary.parquet."""
        table = pa.Table.from_pandas(summary, preserve_index=False)
        return write_file(self.root / "summary.parquet", table)

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file. `name` is its path inside the folder."""
        return self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> Path:
        """Write a file. `name` is its path inside the folder."""
        return write_file(self.root / name, content)

    def write_cost(self, cost: Mapping[str, Any]) -> Path:
        """Write the values of a `DecodingCost`. A later call of the same run replaces the file."""
        run = blake2b(
            f"{cost['started']} {cost['model']} {platform.node()} {os.getpid()}".encode(), digest_size=8
        ).hexdigest()
        return self.write_text(f"costs/{run}.json", json.dumps(cost, indent=1))

    def _add(self, folder: str, schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> Path:
        table = pa.Table.from_pylist(list(rows), schema=schema)
        name = blake2b(repr([list(row.values()) for row in rows]).encode(), digest_size=10).hexdigest()
        return write_file(self.root / folder / f"{name}.parquet", table)

    # Reading

    def read_text(self, name: str) -> str | None:
        """The content of a text file, None if there is no such file."""
        path = self.root / name
        return path.read_text(encoding="utf-8") if path.is_file() else None

    def costs(self) -> list[dict[str, Any]]:
        """What decoding cost: the values of one `DecodingCost` per run and model, the oldest first.

        Raises:
            StoreError: a file is damaged.
        """
        costs: list[dict[str, Any]] = []
        for path in (self.root / "costs").glob("[!.]*.json"):
            try:
                cost = json.loads(path.read_text(encoding="utf-8"))
                costs.append({name: cost[name] for name in COST_FIELDS})
            except (ValueError, KeyError, TypeError, OSError) as error:
                raise StoreError(f"{path} is damaged ({error!r}); delete it: nothing else is lost") from error
        return sorted(costs, key=lambda cost: str(cost["started"]))

    def planned_text_count(self) -> int:
        """Number of texts in all cells, decoded or not."""
        return sum(pq.read_metadata(path).num_rows for path in files_of(self.root / "cells"))

    def cells_and_decoded(self) -> tuple[pd.DataFrame, pd.Series[bool]]:
        """The rows of `cells`, and for each row whether its text is decoded.

        Raises:
            InputError: the folder has no cells, or none of their texts is decoded yet.
        """
        cells = self.cells()
        self.check_decoded(len(cells), len(cells))
        decoded = cells["completion"].isin(self.completion_ids())
        self.check_decoded(len(cells), int(decoded.sum()))
        return cells, decoded

    def check_decoded(self, planned: int, decoded: int) -> None:
        """Check that there are results.

        Args:
            planned: number of texts in the cells.
            decoded: number of these texts that are decoded.

        Raises:
            InputError: one of the numbers is 0.
        """
        if not planned:
            raise InputError(f"{str(self.root)!r} holds no results; a sweep writes them to results_root/name")
        if not decoded:
            raise InputError(f"nothing in {str(self.root)!r} is decoded yet; run its sweep first")

    def cells(self, ids: Collection[str] | None = None) -> pd.DataFrame:
        """One row per text of the cells. Columns: those of CELL_SCHEMA, `cell`, and the settings of the cell.

        Args:
            ids: ids of the cells to read; None reads all.
        """
        return self.cell_table(ids).to_pandas()

    def cell_table(
        self, ids: Collection[str] | None = None, columns: Sequence[str] = CELL_SCHEMA.names
    ) -> CellTable:
        """The texts of the cells, and the settings of each cell once.

        Args:
            ids: ids of the cells to read; None reads all.
            columns: the columns of CELL_SCHEMA to read.
        """
        requested = None if ids is None else set(ids)

        def read(paths: list[Path]) -> CellTable:
            chosen = [path for path in paths if requested is None or path.stem in requested]
            return CellTable.read(chosen, columns)

        return read_files(self.root / "cells", read)

    def dataset(self) -> ds.FileSystemDataset:
        """The decoded texts as a `pyarrow.dataset`, which reads nothing before it is asked for rows.

        Its columns are those of COMPLETION_SCHEMA. `id` is the column `completion` of `cells`. An id can
        occur more than once, always with the same values. The dataset lists the files that are there now: if
        they are merged later, make it anew.
        """
        return dataset_of(files_of(self.root / "completions"), COMPLETION_SCHEMA)

    def completion_ids(self) -> set[str]:
        """Ids of all decoded texts."""
        return set(self.completion_table(["id"])["id"].to_numpy())

    def completions(
        self, columns: Sequence[str] = COMPLETION_SCHEMA.names, ids: Collection[str] | None = None
    ) -> pd.DataFrame:
        """Decoded texts, one row per id.

        Args:
            columns: the columns of COMPLETION_SCHEMA to read. The nested columns (alternatives_…, pieces,
                trace_…) are nearly all of a folder.
            ids: ids of the texts to read; None reads all. Only the files that hold these texts are read.
        """
        table = self.completion_table([*dict.fromkeys(["id", *columns])], ids)
        first_rows = pc.index_in(table["id"], value_set=table["id"]).to_numpy()
        rows = np.flatnonzero(first_rows == np.arange(len(table)))
        if len(rows) < len(table):  # several sweeps have decoded the same text
            table = table.take(rows)
        return table.select(list(columns)).to_pandas()

    def completion_table(self, columns: Sequence[str], ids: Collection[str] | None = None) -> pa.Table:
        """As `completions`, as an Arrow table in which an id can occur more than once.

        Strings have the type `large_string`.
        """

        def read(paths: list[Path]) -> pa.Table:
            if ids is None:
                return read_columns(paths, COMPLETION_SCHEMA, columns)
            holding = files_with(paths, COMPLETION_SCHEMA, "id", ids)
            return read_columns(holding, COMPLETION_SCHEMA, columns, has_one_of("id", ids))

        return read_files(self.root / "completions", read)

    def scored(self) -> set[tuple[str, str]]:
        """All pairs (text id, scorer key) for which scores are stored. A scorer key identifies a metric."""
        return {(text, scorer) for scorer, texts in self.scored_texts().items() for text in texts.tolist()}

    def scored_texts(self, texts: Collection[str] | None = None) -> dict[str, Any]:
        """Scorer key of each metric -> ids of the texts that the metric has scored, as an Arrow array.

        Args:
            texts: ids of the texts to look for; None looks for all texts.
        """
        return ScoreTable.read(self.root / "scores", ["text", "scorer"], texts).texts_by_scorer()

    def score_columns(self) -> list[str]:
        """Names of all columns of metrics that have stored scores, in the order of the alphabet."""
        return sorted(ScoreTable.read(self.root / "scores", ["column"]).names("column"))

    def scores(self, columns: Collection[str] | None = None) -> pd.DataFrame:
        """Scores: one row per text id, and one column per column of a metric. Both are sorted.

        If several metrics gave the same column for a text, the value that was written last is used.

        Args:
            columns: the columns of metrics to read; None reads all.
        """
        return self.score_matrix(columns).to_pandas()

    def score_matrix(self, columns: Collection[str] | None = None) -> ScoreMatrix:
        """As `scores`, as a matrix."""
        return ScoreTable.read(self.root / "scores", ["text", "column", "value"]).matrix(columns)


def _identity_version(settings: Mapping[str, Any]) -> str:
    """The IDENTITY_VERSION of a cell with these settings; one more for a cell with stop strings.

    In version 2 the tokens of a stop string counted as tokens of the text.
    """
    return str(IDENTITY_VERSION + (settings.get("stop", "[]") != "[]"))
