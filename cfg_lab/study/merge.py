"""Merges small files of a results folder into large ones, while other processes read and write the folder.

A sweep with many workers writes thousands of small files. Each costs time whenever the folder is read.

Steps, for completions and then for scores:

1. List the files, the oldest first. Delete files whose rows are in a merged file already: an earlier merge
   was killed before it had deleted them.
2. Form groups of small files that are neighbours in this list.
3. Write the rows of a group to one new file under a temporary name. It lists the names of its originals.
4. Give the new file the time of its newest original, so that what was written last still counts, then fsync
   and rename it.
5. Only then delete the originals, the newest first: so the order of texts stays the same meanwhile.

Nothing is lost, because a row is deleted only after a complete file with this row has its name. If a merge is
killed, or if two merges run at once, rows can be in several files. Readers drop such duplicates. Readers that
listed the originals before they were deleted read the folder again (see `parquet_files.read_files`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cfg_lab.errors import StoreError
from cfg_lab.study.columns import COMPLETION_SCHEMA, SCORE_SCHEMA
from cfg_lab.study.parquet_files import (
    damaged,
    draft_of,
    not_written,
    read_columns,
    read_files,
    rename_durably,
)
from cfg_lab.study.store import Store

ROWS_OF_COMPLETIONS = 50_000
"""Files with fewer texts are small. A merged file has at least this many texts, if there are enough."""

ROWS_OF_SCORES = 1_000_000
"""Files with fewer scores are small, as with ROWS_OF_COMPLETIONS."""

_ROWS_IN_MEMORY = 2048
"""Number of texts that are collected before they are written: some 30 MB with alternatives."""

_ORIGINALS = b"merged_from"
"""Metadata of a merged file: the names of its originals, as a JSON list."""


@dataclass(frozen=True, kw_only=True)
class _File:
    path: Path
    rows: int
    originals: tuple[str, ...]

    @classmethod
    def read(cls, path: Path) -> _File:
        metadata = pq.read_metadata(path)
        originals: list[str] = json.loads((metadata.metadata or {}).get(_ORIGINALS, b"[]"))
        return cls(path=path, rows=metadata.num_rows, originals=tuple(originals))


def merge_small_files(store: Store) -> int:
    """Merge the small files of completions and scores into large ones.

    Results are the same before, after and meanwhile. Other processes can read, write and merge at the same
    time.

    Args:
        store: the results folder.

    Returns:
        Number of files that were deleted because their rows are in a merged file.

    Raises:
        StoreError: a file is damaged, or the merged file cannot be written. The originals are still there.
    """
    return _merge(store.root / "completions", COMPLETION_SCHEMA, ROWS_OF_COMPLETIONS) + _merge(
        store.root / "scores", SCORE_SCHEMA, ROWS_OF_SCORES
    )


def _merge(folder: Path, schema: pa.Schema, enough_rows: int) -> int:
    """Merge the small files of one folder, and return the number of deleted files."""
    files = read_files(folder, lambda paths: list(map(_File.read, paths)))
    merged_already = {name for file in files for name in file.originals}
    deleted = _delete([file.path for file in files if file.path.name in merged_already])
    remaining = [file for file in files if file.path.name not in merged_already]
    for group in _groups(remaining, enough_rows):
        try:
            _write_merged(group, schema)
        except FileNotFoundError:  # another merge has an original of the group, and has written its rows
            continue
        deleted += _delete([file.path for file in group])
    return deleted


def _groups(files: Sequence[_File], enough_rows: int) -> Iterator[list[_File]]:
    """Neighbouring small files that are merged into one. Files between them would change what is newest."""
    group: list[_File] = []
    for file in files:
        if file.rows < enough_rows:
            group.append(file)
        if file.rows >= enough_rows or sum(member.rows for member in group) >= enough_rows:
            if len(group) > 1:
                yield group
            group = []
    if len(group) > 1:
        yield group


def _write_merged(group: Sequence[_File], schema: pa.Schema) -> None:
    """Write the rows of a group of files to one file.

    Raises:
        FileNotFoundError: a file of the group is gone. Nothing was written.
        StoreError: a file is damaged, or there is no room for the new file. Nothing was written.
    """
    names = [file.path.name for file in group]
    # Merges of the same files write the same file.
    name = blake2b("\n".join(sorted(names)).encode(), digest_size=10).hexdigest()
    path = group[0].path.with_name(f"{name}.parquet")
    draft = draft_of(path)
    try:
        with draft.open("wb") as opened:
            metadata = {_ORIGINALS: json.dumps(names)}
            with pq.ParquetWriter(opened, schema.with_metadata(metadata), compression="zstd") as writer:
                for table in _tables(group, schema):
                    writer.write_table(table, row_group_size=len(table))
            opened.flush()
            os.fsync(opened.fileno())
        newest = max(file.path.stat().st_mtime_ns for file in group)
        os.utime(draft, ns=(newest, newest))
        rename_durably(draft, path)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise not_written(path, error) from error
    finally:
        draft.unlink(missing_ok=True)


def _tables(group: Sequence[_File], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of a group of files in tables that fit into memory."""
    tables: list[pa.Table] = []
    for file in group:
        try:
            table = read_columns([file.path], schema, schema.names).cast(schema)
        except FileNotFoundError:
            raise
        except (pa.ArrowException, OSError) as error:
            raise damaged(file.path, error) from error
        if len(table) != file.rows:
            raise StoreError(f"{file.path} changed while it was merged; run the same command again")
        tables.append(table)
        if sum(map(len, tables)) >= _ROWS_IN_MEMORY:
            yield pa.concat_tables(tables)
            tables = []
    if tables:
        yield pa.concat_tables(tables)


def _delete(paths: Sequence[Path]) -> int:
    """Delete files, the last first. Some may be gone already. Returns how many were there."""
    deleted = 0
    for path in reversed(paths):
        try:
            path.unlink()
            deleted += 1
        except FileNotFoundError:  # another merge was faster
            pass
    return deleted
