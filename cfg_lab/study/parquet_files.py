"""Parquet files of a results folder. Many are read as one table; each is written whole or not at all.

Files can be added at any time, and small files are merged into large ones (see `merge`). So a list of files
is complete only if nothing was renamed while it was made, and a file of the list can be gone when it is read.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from pyarrow.fs import LocalFileSystem

from cfg_lab.errors import StoreError, reason_of
from cfg_lab.study.columns import OLD_NAMES, OLD_TYPES

Read = TypeVar("Read")


def files_of(folder: Path) -> list[Path]:
    """The Parquet files of a folder, the oldest first."""
    while True:
        first, names = _names(folder), _names(folder)
        # A merge adds a file, and only then removes others. A list that was made meanwhile can lack both. If
        # no file has vanished between two lists, the second one lacks nothing.
        if first <= names:
            with suppress(FileNotFoundError):  # a file was merged into another one just now
                times = {name: (folder / name).lstat().st_mtime_ns for name in names}
                return [folder / name for name in sorted(names, key=lambda name: (times[name], name))]


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("[!.]*.parquet")}


def read_files(folder: Path, read: Callable[[list[Path]], Read]) -> Read:
    """Call `read` with the Parquet files of a folder, the oldest first, and return its result.

    `read` is called again with the present files if one of them was merged into another one.

    Raises:
        StoreError: a file is damaged; the message names it.
    """
    while True:
        paths = files_of(folder)
        try:
            return read(paths)
        except FileNotFoundError as error:
            if files_of(folder) == paths:  # nothing was merged, so there is a link to a file that is gone
                raise damaged(folder, error) from error
        except (pa.ArrowException, OSError):
            with suppress(FileNotFoundError):
                for path in paths:
                    check_file(path)
                raise


def check_file(path: Path) -> None:
    """Read a Parquet file completely.

    Raises:
        StoreError: the file is damaged.
        FileNotFoundError: the file does not exist.
    """
    try:
        pq.read_table(path, partitioning=None)  # pyright: ignore[reportArgumentType]
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise damaged(path, error) from error


def damaged(path: Path, error: Exception) -> StoreError:
    """The error for a Parquet file that cannot be read."""
    return StoreError(
        f"{path} is damaged or cut short ({reason_of(error)}). Nothing else is lost: "
        "delete this file and run the same command again, which makes anew only what it held"
    )


def dataset_of(
    paths: Sequence[Path], schema: pa.Schema, dictionary_columns: Sequence[str] = ()
) -> ds.FileSystemDataset:
    """A dataset of Parquet files. Nothing is read yet. Columns that a file does not have are null.

    Args:
        paths: the files, in the order of their rows in the dataset.
        schema: the columns.
        dictionary_columns: columns of strings to read as dictionaries, which takes less time and memory if
            values repeat.
    """
    fields: list[Any] = [
        field.with_type(pa.dictionary(pa.int32(), pa.string()))
        if field.name in dictionary_columns
        # Strings of 32 bit offsets would limit a column to 2 GB of text.
        else field.with_type(pa.large_string() if field.type == pa.string() else field.type)
        for field in cast("Any", schema)
    ]
    return ds.FileSystemDataset.from_paths(
        [str(path) for path in paths],
        schema=pa.schema(fields),
        format=ds.ParquetFileFormat(
            read_options=ds.ParquetReadOptions(dictionary_columns=list(dictionary_columns))
        ),
        filesystem=LocalFileSystem(),
    )


def read_columns(
    paths: Sequence[Path], schema: pa.Schema, columns: Sequence[str], rows: pc.Expression | None = None
) -> pa.Table:
    """Read columns of many files as one table. A column can have an older name in older files.

    Args:
        paths: the files, in the order of their rows in the table.
        schema: the present columns of the files.
        columns: names of the columns to read.
        rows: which rows to read; None reads all.
    """
    older = {old: name for old, name in OLD_NAMES.items() if name in columns}
    present: Any = cast("Any", schema)
    older_fields: list[Any] = [
        pa.field(old, OLD_TYPES.get(old) or present.field(name).type) for old, name in older.items()
    ]
    table = read_table(dataset_of(paths, pa.schema([*present, *older_fields])), [*columns, *older], rows)
    for old, name in older.items():
        if table[old].null_count < len(table):
            values = pc.if_else(pc.is_null(table[name]), _as_type(table[old], table[name].type), table[name])
            table = table.set_column(table.column_names.index(name), name, values)
    return table.select(list(columns))


def read_table(dataset: ds.Dataset, columns: Sequence[str], rows: pc.Expression | None = None) -> pa.Table:
    """Read columns of a dataset. `rows` says which rows to read; None reads all."""
    # The system's allocator gives memory back that was needed only for reading: with a million texts in 2,000
    # files, that and the descriptions of all files are half of the memory.
    return dataset.scanner(
        columns=list(columns), filter=rows, memory_pool=pa.system_memory_pool(), cache_metadata=False
    ).to_table()


def has_one_of(column: str, values: Collection[str]) -> pc.Expression:
    """The rows of a dataset that have one of the values in a column of strings."""
    return pc.field(column).isin(pa.array(values, pa.large_string()))


def _as_type(values: Any, type_: pa.DataType) -> Any:
    """Convert a column to its present type. Older files hold one reference or none, not a list."""
    if values.type == type_:
        return values
    return pa.array([None if value is None else [value] for value in values.to_pylist()], type_)


def files_with(paths: Sequence[Path], schema: pa.Schema, column: str, values: Collection[str]) -> list[Path]:
    """The files that have one of the values in a column of strings."""
    scanner = dataset_of(paths, schema).scanner(
        columns=[column], filter=has_one_of(column, values), cache_metadata=False
    )
    batches = cast("Any", scanner).scan_batches()
    names = {batch.fragment.path for batch in batches if batch.record_batch.num_rows}
    return [path for path in paths if str(path) in names]


def write_file(path: Path, content: pa.Table | bytes) -> Path:
    """Write a file completely or not at all, and return its path. Folders are created if needed.

    Raises:
        StoreError: the file cannot be written.
    """
    draft = draft_of(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with draft.open("wb") as opened:
            if isinstance(content, bytes):
                opened.write(content)
            else:
                pq.write_table(content, opened, compression="zstd")
            opened.flush()
            os.fsync(opened.fileno())
        rename_durably(draft, path)
    except OSError as error:
        draft.unlink(missing_ok=True)
        raise not_written(path, error) from error
    return path


def not_written(path: Path, error: OSError) -> StoreError:
    """The error for a file that cannot be written."""
    return StoreError(
        f"could not write {path}: {error.strerror or error}. What was finished before is kept: "
        "make room, then run the same command again"
    )


def draft_of(path: Path) -> Path:
    """A temporary name for a file that is being written."""
    return path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}.tmp")


def rename_durably(draft: Path, path: Path) -> None:
    """Give a finished file its name, so that the name survives a power failure too."""
    draft.rename(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
