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
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cfg_lab.errors import InputError, StoreError, reason_of
from cfg_lab.study.columns import CELL_SCHEMA, COMPLETION_SCHEMA, HIDDEN, OLD_NAMES, SCORE_SCHEMA
from cfg_lab.study.costs import COST_FIELDS

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
        for path in self._files("cells"):
            try:
                metadata = pq.read_schema(path).metadata or {}
            except (pa.ArrowException, OSError) as error:
                raise _damaged(path, error) from error
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
        return self._write(path, pa.Table.from_pylist(list(rows), schema=schema))

    def write_summary(self, summary: pd.DataFrame) -> Path:
        """Write summary.parquet."""
        table = pa.Table.from_pandas(summary, preserve_index=False)
        return self._write(self.root / "summary.parquet", table)

    def write_text(self, name: str, text: str) -> Path:
        """Write a text file. `name` is its path inside the folder."""
        return self.write_bytes(name, text.encode())

    def write_bytes(self, name: str, content: bytes) -> Path:
        """Write a file. `name` is its path inside the folder."""
        return self._write(self.root / name, content)

    def write_cost(self, cost: Mapping[str, Any]) -> Path:
        """Write the values of a `DecodingCost`. A later call of the same run replaces the file."""
        run = blake2b(
            f"{cost['started']} {cost['model']} {platform.node()} {os.getpid()}".encode(), digest_size=8
        ).hexdigest()
        return self.write_text(f"costs/{run}.json", json.dumps(cost, indent=1))

    def _add(self, folder: str, schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> Path:
        table = pa.Table.from_pylist(list(rows), schema=schema)
        name = blake2b(repr([list(row.values()) for row in rows]).encode(), digest_size=10).hexdigest()
        return self._write(self.root / folder / f"{name}.parquet", table)

    def _write(self, path: Path, content: pa.Table | bytes) -> Path:
        """Write a file completely or not at all."""
        draft = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with draft.open("wb") as opened:
                if isinstance(content, bytes):
                    opened.write(content)
                else:
                    pq.write_table(content, opened, compression="zstd")
                opened.flush()
                os.fsync(opened.fileno())
            draft.rename(path)
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)  # the new name survives a power failure too
            finally:
                os.close(folder)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise StoreError(
                f"could not write {path}: {error.strerror or error}. What was finished before is kept: "
                "make room, then run the same command again"
            ) from error
        return path

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
        return sum(pq.read_metadata(path).num_rows for path in self._files("cells"))

    def cells_and_decoded(self) -> tuple[pd.DataFrame, pd.Series[bool]]:
        """The rows of `cells`, and for each row whether its text is decoded.

        Raises:
            InputError: the folder has no cells, or none of their texts is decoded yet.
        """
        cells = self.cells()
        if cells.empty:
            raise InputError(f"{str(self.root)!r} holds no results; a sweep writes them to results_root/name")
        decoded = cells["completion"].isin(self.completion_ids())
        if not decoded.any():
            raise InputError(f"nothing in {str(self.root)!r} is decoded yet; run its sweep first")
        return cells, decoded

    def completion_ids(self) -> set[str]:
        """Ids of all decoded texts."""
        return {
            str(value) for value in self._read("completions", COMPLETION_SCHEMA, ["id"])["id"].to_pylist()
        }

    def completions(self) -> pd.DataFrame:
        """All decoded texts, one row per id, with the columns of COMPLETION_SCHEMA."""
        table = (
            self._read("completions", COMPLETION_SCHEMA).to_pandas().reindex(columns=COMPLETION_SCHEMA.names)
        )
        return table.drop_duplicates("id", ignore_index=True)

    def scored(self) -> set[tuple[str, str]]:
        """All pairs (text id, scorer key) for which scores are stored. A scorer key identifies a metric."""
        table = self._read("scores", SCORE_SCHEMA, ["text", "scorer"])
        texts, scorers = (map(str, table[name].to_pylist()) for name in ("text", "scorer"))
        return set(zip(texts, scorers, strict=True))

    def scores(self) -> pd.DataFrame:
        """All scores: one row per text id, and the columns of all metrics.

        If several metrics gave the same column for a text, the value that was written last is used.
        """
        table = self._read("scores", SCORE_SCHEMA).to_pandas()
        latest = table.drop_duplicates(["text", "column"], keep="last")
        return latest.pivot(index="text", columns="column", values="value")

    def cells(self, ids: Iterable[str] | None = None) -> pd.DataFrame:
        """One row per text of the cells. Columns: those of CELL_SCHEMA, `cell`, and the settings of the cell.

        Args:
            ids: ids of the cells to read; None reads all.
        """
        requested = None if ids is None else set(ids)
        frames: list[pd.DataFrame] = []
        for path in self._files("cells"):
            if requested is not None and path.stem not in requested:
                continue
            table = self._table(path)
            settings: dict[str, Any] = json.loads(table.schema.metadata[b"settings"])
            frame = table.to_pandas().reindex(columns=CELL_SCHEMA.names).assign(cell=path.stem)
            frames.append(frame.assign(**{key: [value] * len(frame) for key, value in settings.items()}))
        return (
            pd.concat(frames, ignore_index=True)
            if frames
            else pd.DataFrame(columns=["cell", *CELL_SCHEMA.names])
        )

    def _read(self, folder: str, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
        tables = [self._table(path, columns) for path in self._files(folder)]
        empty = schema.empty_table() if columns is None else schema.empty_table().select(columns)
        # Columns that older files do not have are null.
        return pa.concat_tables([empty, *tables], promote_options="default")

    def _files(self, folder: str) -> list[Path]:
        """The Parquet files of a subfolder, the oldest first."""
        return sorted(
            (self.root / folder).glob("[!.]*.parquet"), key=lambda path: (path.stat().st_mtime_ns, path.name)
        )

    def _table(self, path: Path, columns: list[str] | None = None) -> pa.Table:
        try:
            table = pq.read_table(path, columns=columns, partitioning=None)  # pyright: ignore[reportArgumentType]
            renamed = table.rename_columns([OLD_NAMES.get(name, name) for name in table.column_names])
            return renamed.replace_schema_metadata(table.schema.metadata)
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error) from error


def _identity_version(settings: Mapping[str, Any]) -> str:
    """The IDENTITY_VERSION of a cell with these settings; one more for a cell with stop strings.

    In version 2 the tokens of a stop string counted as tokens of the text.
    """
    return str(IDENTITY_VERSION + (settings.get("stop", "[]") != "[]"))


def _damaged(path: Path, error: Exception) -> StoreError:
    return StoreError(
        f"{path} is damaged or cut short ({reason_of(error)}). Nothing else is lost: "
        "delete this file and run the same command again, which makes anew only what it held"
    )


def join_completions_and_scores(store: Store, cells: pd.DataFrame) -> pd.DataFrame:
    """The rows of `cells` with a decoded text. Columns of the text's completion and scores are added.

    Args:
        cells: rows of `store.cells()`.
    """
    joined = cells.merge(store.completions(), left_on="completion", right_on="id")
    scores = store.scores()
    single = scores.reindex(joined["score_id"]).reset_index(drop=True)
    of_sets = scores.reindex(set_score_ids(joined)).reset_index(drop=True)
    if not any(map(np.size, joined["choices"].dropna())):
        joined = joined.drop(columns="choices")  # only a benchmark has given answers
    return joined.drop(columns=list(HIDDEN)).join(single.combine_first(of_sets), rsuffix="_metric")


def set_score_ids(rows: pd.DataFrame) -> pd.Series[str]:
    """For each row, the id under which scores of a whole cell are stored.

    Some metrics score all texts of a cell at once, and store one value per text under these ids. An id
    depends on every text of the cell: it changes when a text is added to the cell or replaced. Cells with
    the same prompts and texts have the same ids, and so share their scores.

    Args:
        rows: rows of `Store.cells()`.
    """
    ids_by_cell: list[pd.Series[str]] = []
    for _, cell in rows.groupby("cell", sort=False):
        prompts, ids = cell["prompt_id"].astype(str), cell["score_id"].astype(str)
        lines = prompts + "|" + ids
        cell_hash = blake2b("\n".join(sorted(lines)).encode(), digest_size=8).hexdigest()
        suffixes = [
            blake2b(f"{prompt}|{cell_hash}".encode(), digest_size=8).hexdigest() for prompt in prompts
        ]
        ids_by_cell.append(ids + "@" + pd.Series(suffixes, cell.index))
    return pd.concat(ids_by_cell).reindex(rows.index) if ids_by_cell else pd.Series(dtype=str)
