"""Reads the rows of an export in their final order, with bounded memory.

Files of completions hold the texts of all cells in the order in which they were decoded. The rows of an
export are in the order of the cells. So the texts are sorted on disk:

1. The final rows are divided into windows. The completions of a window fit in memory.
2. Each file of completions is read once. Its texts are appended to the temporary files of the windows that
   use them. A text that several cells share can be in several windows.
3. The windows are read one after another. Each becomes rows by joining its completions with the columns of
   cells, the settings and the scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from cfg_lab.errors import InputError, StoreError
from cfg_lab.export.columns import ExportColumns, export_columns, setting_array
from cfg_lab.export.folder import not_written
from cfg_lab.study.cell_table import CellTable
from cfg_lab.study.columns import CELL_SCHEMA, COMPLETION_SCHEMA
from cfg_lab.study.joined_results import set_score_ids
from cfg_lab.study.parquet_files import read_columns, read_files
from cfg_lab.study.progress import ProgressBar
from cfg_lab.study.store import Store

Ints = np.ndarray[Any, np.dtype[np.int64]]

WINDOW_BYTES = 400_000_000
"""Size of the completions of one window in memory."""

_ROWS_PER_READ = 5_000
"""Rows of files that are read together: enough for all threads, few enough for memory."""

_LEAST_ROW = 1_000
"""Size in memory of the other columns of one row: prompt, settings and scores."""

_DISTINCT = "number of the text"  # a column of the temporary files; no column of results has spaces


@dataclass(frozen=True, kw_only=True)
class SortedWindow:
    """A range of rows of an export whose completions fit in memory.

    Attributes:
        rows: the range.
        file: temporary file with the completions of these rows, in any order; None if no column is needed.
    """

    rows: slice
    file: Path | None


@dataclass(frozen=True, kw_only=True, eq=False)
class ExportRows:
    """The rows of an export, before their completions are read.

    Attributes:
        store: the results folder.
        columns: the columns to write.
        cells: the decoded texts of the cells with their ids, in the order of the rows of the export.
        texts: ids of the distinct texts, in the order of their first row.
        text_of_row: for each row the position of its text in `texts`, [rows].
        scores: for each written column of scores its values, [rows].
    """

    store: Store
    columns: ExportColumns
    cells: CellTable
    texts: pa.Array[Any]
    text_of_row: Ints
    scores: dict[str, np.ndarray[Any, np.dtype[np.float64]]]

    def __len__(self) -> int:
        return len(self.text_of_row)

    @property
    def schema(self) -> pa.Schema:
        """The columns with their types. Strings have 32 bit offsets, as the `datasets` library has them."""
        types: dict[str, pa.DataType] = {
            field.name: field.type for field in (*cast("Any", CELL_SCHEMA), *cast("Any", COMPLETION_SCHEMA))
        }
        types["cell"] = pa.string()
        types |= {name: setting_array(self.cells.settings[name]).type for name in self.columns.settings}
        types |= dict.fromkeys(self.columns.metrics, pa.float64())
        return pa.schema([(name, types[name]) for name in self.columns.names])

    def sorted_on_disk(self, scratch: Path, console: Console) -> list[SortedWindow]:
        """Read all completions, and sort them into windows of rows.

        Args:
            scratch: an empty folder for temporary files. They hold the completions once more, compressed.
            console: where to show progress.

        Raises:
            StoreError: a results file is damaged.
        """
        names = [name for name in self.columns.of_completions if name in self.columns.names]
        ranges = _ranges(len(self), self._bytes_per_row(names))
        windows = [
            SortedWindow(rows=rows, file=scratch / str(number) if names else None)
            for number, rows in enumerate(ranges)
        ]
        if names:
            with ProgressBar(console, "reading", len(self.texts), "texts") as bar:
                self._sort_completions(names, windows, bar)
        return windows

    def _bytes_per_row(self, names: Sequence[str]) -> int:
        """Size in memory of the columns of completions of one row, from the rows of the first file."""
        if not names:
            return _LEAST_ROW

        def read(paths: list[Path]) -> pa.Table:
            return read_columns(paths[:1], COMPLETION_SCHEMA, names)

        table = read_files(self.store.root / "completions", read)
        return max(_LEAST_ROW, table.nbytes // max(1, len(table)))

    def _sort_completions(
        self, names: Sequence[str], windows: Sequence[SortedWindow], bar: ProgressBar
    ) -> None:
        """Write the completions of each window to its temporary file, in any order."""
        used = np.zeros((len(windows), len(self.texts)), bool)
        for number, window in enumerate(windows):
            used[number, self.text_of_row[window.rows]] = True
        types: dict[str, Any] = {name: COMPLETION_SCHEMA.field(name).type for name in names}
        schema = pa.schema(types | {_DISTINCT: pa.int64()})
        advanced = 0

        def read(paths: list[Path]) -> None:
            nonlocal advanced
            bar.advance(-advanced)  # the files were merged meanwhile, so reading begins again
            advanced = 0
            missing = np.ones(len(self.texts), bool)
            options = pa.ipc.IpcWriteOptions(compression="lz4")
            with ExitStack() as opened:
                writers = [
                    opened.enter_context(pa.ipc.new_stream(str(window.file), schema, options=options))
                    for window in windows
                ]
                for group in _groups(paths):
                    table = read_columns(group, COMPLETION_SCHEMA, ["id", *names])
                    distinct = pc.index_in(table["id"], value_set=self.texts).fill_null(-1).to_numpy()
                    _, first = np.unique(distinct, return_index=True)  # a text can be in several files
                    first = first[distinct[first] >= 0]
                    first = np.sort(first[missing[distinct[first]]])
                    missing[distinct[first]] = False
                    table = _with_numbers(table.select(list(names)), schema, distinct)
                    try:
                        for number, writer in enumerate(writers):
                            chosen = first[used[number, distinct[first]]]
                            if len(chosen):
                                writer.write_table(table.take(chosen))
                    except OSError as error:  # `read_files` would take it for a damaged file of results
                        raise not_written(error) from error
                    advanced += len(first)
                    bar.advance(len(first))

        read_files(self.store.root / "completions", read)

    def table(self, window: SortedWindow) -> pa.Table:
        """The finished rows of a window. Deletes its temporary file.

        Raises:
            StoreError: a sweep has changed the cells meanwhile.
        """
        rows, file = window.rows, window.file
        cell_of_row = np.repeat(np.arange(len(self.cells.counts)), self.cells.counts)[rows]
        arrays: dict[str, Any] = {
            "cell": pa.array(self.cells.settings["cell"], pa.string()).take(cell_of_row)
        }
        for name in self.columns.settings:
            if name in self.columns.names:
                arrays[name] = setting_array(self.cells.settings[name]).take(cell_of_row)
        for name, values in self.scores.items():
            arrays[name] = pa.array(
                values[rows], from_pandas=True
            )  # NaN, which is "not scored", becomes null
        arrays |= self._cell_columns(rows, np.unique(cell_of_row))
        if file is not None:
            with pa.memory_map(str(file)) as source:
                completions = pa.ipc.open_stream(source).read_all()
            position = np.full(len(self.texts), -1)
            position[completions[_DISTINCT].to_numpy()] = np.arange(len(completions))
            chosen = completions.take(position[self.text_of_row[rows]])
            arrays |= {name: chosen[name] for name in chosen.column_names if name != _DISTINCT}
            file.unlink()
        schema = self.schema
        return pa.Table.from_arrays(
            [_cast(arrays[field.name], field.type) for field in cast("Any", schema)], schema=schema
        )

    def _cell_columns(self, rows: slice, cells: Ints) -> dict[str, Any]:
        """The columns of the files of cells, for the rows of a window."""
        names = [name for name in self.columns.of_cells if name in self.columns.names]
        ids = set(self.cells.settings["cell"].iloc[cells])
        table = self.store.cell_table(ids, [*dict.fromkeys([*names, "completion"])]).rows
        ends = np.cumsum(self.cells.counts)
        start = int(ends[cells[0]] - self.cells.counts[cells[0]])
        texts = _taken(self.texts, np.unique(self.text_of_row[start : ends[cells[-1]]]))
        table = table.filter(pc.is_in(table["completion"], value_set=texts))
        table = table.slice(rows.start - start, rows.stop - rows.start)
        expected = _taken(self.texts, self.text_of_row[rows])
        if not table["completion"].combine_chunks().equals(expected):
            raise StoreError(
                f"a sweep has changed cells of {str(self.store.root)!r} during this export; "
                "run the same command again when the sweep has finished"
            )
        return {name: table[name] for name in names}


def export_rows(
    store: Store, requested: Sequence[str] | None = None, cells: Sequence[str] | None = None
) -> ExportRows:
    """Find the rows of an export.

    Args:
        store: the results folder.
        requested: names of columns, as in `export_columns`.
        cells: ids of the cells to export; None takes all.

    Raises:
        InputError: the folder has no results, none is decoded, or there is no such cell or column.
        StoreError: a results file is damaged.
    """
    store.check_decoded(store.planned_text_count(), 1)
    table = store.cell_table(cells, ["prompt_id", "completion", "score_id"])
    present = set(table.settings["cell"])
    for cell in cells or ():
        if cell not in present:
            raise InputError(
                f"--cells: {str(store.root)!r} has no cell {cell!r}; summary.parquet lists their ids"
            )
    decoded = store.completion_table(["id"])["id"]
    store.check_decoded(len(table.rows), len(table.rows))
    planned = len(table.rows)
    is_decoded: Any = pc.is_in(table.rows["completion"], value_set=decoded.combine_chunks())
    table = table.filter(is_decoded)
    store.check_decoded(planned, len(table.rows))
    settings = [name for name in table.settings.columns if name != "cell"]
    metrics = store.score_columns()
    columns = export_columns(settings, metrics, requested)
    written = [
        (metric, name) for metric, name in zip(metrics, columns.metrics, strict=True) if name in columns.names
    ]
    encoded = cast("Any", table.rows["completion"].combine_chunks()).dictionary_encode()
    return ExportRows(
        store=store,
        columns=columns,
        cells=table,
        texts=encoded.dictionary,
        text_of_row=encoded.indices.to_numpy().astype(np.int64),
        scores=_scores(store, table, dict(written)),
    )


def _scores(
    store: Store, table: CellTable, names: dict[str, str]
) -> dict[str, np.ndarray[Any, np.dtype[np.float64]]]:
    """The values of columns of scores for each row. `names` is column of a metric -> name in the export."""
    if not names:
        return {}
    matrix = store.score_matrix(list(names))
    rows = table.rows.select(["prompt_id", "score_id"]).to_pandas()
    values = matrix.of(rows["score_id"])
    if matrix.has_sets:
        cells = np.repeat(table.settings["cell"].to_numpy(), table.counts)
        values = np.where(np.isnan(values), matrix.of(set_score_ids(rows.assign(cell=cells))), values)
    return {names[column]: values[:, number] for number, column in enumerate(matrix.columns)}


def _ranges(rows: int, bytes_per_row: int) -> list[slice]:
    """Divide rows into ranges of about equal length."""
    count = max(1, round(rows * bytes_per_row / WINDOW_BYTES))
    ends = np.linspace(0, rows, count + 1).astype(int).tolist()
    return [slice(start, end) for start, end in pairwise(ends)]


def _groups(paths: Sequence[Path]) -> Iterator[list[Path]]:
    """Divide files into groups of about _ROWS_PER_READ rows."""
    group: list[Path] = []
    rows = 0
    for path in paths:
        group.append(path)
        rows += pq.read_metadata(path).num_rows
        if rows >= _ROWS_PER_READ:
            yield group
            group, rows = [], 0
    if group:
        yield group


def _with_numbers(table: pa.Table, schema: pa.Schema, distinct: Ints) -> pa.Table:
    """Add the column _DISTINCT, and convert all columns to the types of `schema`."""
    return table.append_column(_DISTINCT, pa.array(distinct, pa.int64())).cast(schema)


def _taken(values: pa.Array[Any], positions: Ints) -> Any:
    return cast("Any", values).take(pa.array(positions))


def _cast(values: Any, type_: pa.DataType) -> Any:
    return values if values.type == type_ else values.cast(type_)
