"""Results on disk: shards that are whole or not there, under content-addressed ids.

    results/<name>/
        config.yaml  environment.json   what ran last in this folder
        cells/<cell>.parquet            a cell: its settings, and which completions it is made of
        completions/*.parquet           a unit of work each
        scores/*.parquet                values by (text, scorer, column)
        metrics/<scorer>.json           what metrics of the user's own declare about their columns
        costs/*.json                    what decoding took, one a run and model
        summary.parquet                 a row a cell
        tracked/<cell>                  what the tracker was shown last

A file is written beside its place, fsynced and renamed, so a killed sweep loses at most the unit in flight,
and sweeps in one folder at once do each other no harm: they write different files, or the same content.
"""

from __future__ import annotations

import json
import os
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cfg_lab.errors import InputError, StoreError
from cfg_lab.study.columns import CELL_SCHEMA, COMPLETION_SCHEMA, HIDDEN, OLD_NAMES, SCORE_SCHEMA
from cfg_lab.study.costs import FIELDS

IDENTITY_VERSION = 2
"""Part of every cell's identity; raised when equal configs come to mean other texts or other ids."""


class Store:
    """One results folder. Nothing is created before the first write."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def check_writable(self) -> None:
        """Raise InputError unless the folder exists or can be made, and files can be written in it."""
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
        for stale in self.root.rglob(".*.tmp"):  # left by sweeps that were killed
            if time.time() - stale.stat().st_mtime > 3600:
                stale.unlink(missing_ok=True)

    def check_version(self) -> None:
        """Raise InputError where cells come from a version of the lab that named the same cells otherwise.

        Such a folder can be read, scored, shown and tracked as before. A sweep would decode its texts again
        and put every cell beside itself.
        """
        for path in self._shards("cells"):
            metadata = pq.read_schema(path).metadata or {}
            if metadata.get(b"identity_version") != str(IDENTITY_VERSION).encode():
                raise InputError(
                    f"name={self.root.name!r}: {self.root} holds results of another version of the lab; "
                    "they can be read and scored, but not added to; choose another name"
                )

    # Writing

    def add_completions(self, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Keep finished completions, rows of the schema COMPLETION_SCHEMA."""
        return self._add("completions", COMPLETION_SCHEMA, rows)

    def add_scores(self, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Keep scores, rows of the schema SCORE_SCHEMA."""
        return self._add("scores", SCORE_SCHEMA, rows)

    def write_cell(self, cell: str, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Path:
        """Keep what a cell is made of, rows of the schema CELL_SCHEMA."""
        metadata = {"settings": json.dumps(settings), "identity_version": str(IDENTITY_VERSION)}
        schema = CELL_SCHEMA.with_metadata(metadata)
        path = self.root / "cells" / f"{cell}.parquet"
        return self._write(path, pa.Table.from_pylist(list(rows), schema=schema))

    def write_summary(self, summary: pd.DataFrame) -> Path:
        table = pa.Table.from_pandas(summary, preserve_index=False)
        return self._write(self.root / "summary.parquet", table)

    def write_text(self, name: str, text: str) -> Path:
        return self._write(self.root / name, text.encode())

    def write_cost(self, cost: Mapping[str, Any]) -> Path:
        """Keep what decoding took so far, fields of `cfg_lab.costs.DecodingCost`; again for the same run."""
        run = blake2b(f"{cost['started']} {cost['model']} {os.getpid()}".encode(), digest_size=8).hexdigest()
        return self.write_text(f"costs/{run}.json", json.dumps(cost, indent=1))

    def _add(self, folder: str, schema: pa.Schema, rows: Sequence[Mapping[str, Any]]) -> Path:
        table = pa.Table.from_pylist(list(rows), schema=schema)
        name = blake2b(repr([list(row.values()) for row in rows]).encode(), digest_size=10).hexdigest()
        return self._write(self.root / folder / f"{name}.parquet", table)

    def _write(self, path: Path, content: pa.Table | bytes) -> Path:
        """Whole or not at all."""
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
                os.fsync(folder)  # the new name survives a power cut too
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
        """What `write_text` wrote, None if nothing."""
        path = self.root / name
        return path.read_text() if path.is_file() else None

    def costs(self) -> list[dict[str, Any]]:
        """What decoding took: a record a run and model, in the order in which they were started."""
        costs: list[dict[str, Any]] = []
        for path in (self.root / "costs").glob("[!.]*.json"):
            try:
                record = json.loads(path.read_text())
                costs.append({name: record[name] for name in FIELDS})
            except (ValueError, KeyError, TypeError, OSError) as error:
                raise StoreError(f"{path} is damaged ({error!r}); delete it: nothing else is lost") from error
        return sorted(costs, key=lambda cost: str(cost["started"]))

    def planned(self) -> int:
        """How many texts all cells ask for."""
        return sum(pq.read_metadata(path).num_rows for path in self._shards("cells"))

    def begun(self) -> tuple[pd.DataFrame, pd.Series[bool]]:
        """Rows of all cells, and which of them are decoded.

        Raises:
            InputError: the folder holds no results, or nothing of them is decoded yet.
        """
        cells = self.cells()
        if cells.empty:
            raise InputError(f"{str(self.root)!r} holds no results; a sweep writes them to results_root/name")
        decoded = cells["completion"].isin(self.completion_ids())
        if not decoded.any():
            raise InputError(f"nothing in {str(self.root)!r} is decoded yet; run its sweep first")
        return cells, decoded

    def completion_ids(self) -> set[str]:
        """Ids of everything that is already decoded."""
        return {
            str(value) for value in self._read("completions", COMPLETION_SCHEMA, ["id"])["id"].to_pylist()
        }

    def completions(self) -> pd.DataFrame:
        """A row a completion, each id once."""
        table = (
            self._read("completions", COMPLETION_SCHEMA).to_pandas().reindex(columns=COMPLETION_SCHEMA.names)
        )
        return table.drop_duplicates("id", ignore_index=True)

    def scored(self) -> set[tuple[str, str]]:
        """(text, scorer) pairs that have scores."""
        table = self._read("scores", SCORE_SCHEMA, ["text", "scorer"])
        texts, scorers = (map(str, table[name].to_pylist()) for name in ("text", "scorer"))
        return set(zip(texts, scorers, strict=True))

    def scores(self) -> pd.DataFrame:
        """A row a text, a column a score; where several scorers gave a column, the one written last."""
        table = self._read("scores", SCORE_SCHEMA).to_pandas()
        latest = table.drop_duplicates(["text", "column"], keep="last")
        return latest.pivot(index="text", columns="column", values="value")

    def cells(self, wanted: Iterable[str] | None = None) -> pd.DataFrame:
        """A row a text of each cell, the cell's settings as columns."""
        chosen = None if wanted is None else set(wanted)
        frames: list[pd.DataFrame] = []
        for path in self._shards("cells"):
            if chosen is not None and path.stem not in chosen:
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
        tables = [self._table(path, columns) for path in self._shards(folder)]
        empty = schema.empty_table() if columns is None else schema.empty_table().select(columns)
        # KVBuffer that older files do not have are null.
        return pa.concat_tables([empty, *tables], promote_options="default")

    def _shards(self, folder: str) -> list[Path]:
        """Oldest first, so that what was written last wins."""
        return sorted(
            (self.root / folder).glob("[!.]*.parquet"), key=lambda path: (path.stat().st_mtime_ns, path.name)
        )

    def _table(self, path: Path, columns: list[str] | None = None) -> pa.Table:
        try:
            table = pq.read_table(path, columns=columns, partitioning=None)  # pyright: ignore[reportArgumentType]
            renamed = table.rename_columns([OLD_NAMES.get(name, name) for name in table.column_names])
            return renamed.replace_schema_metadata(table.schema.metadata)
        except (pa.ArrowException, OSError) as error:
            raise StoreError(
                f"{path} is damaged or cut short ({str(error).splitlines()[0]}). Nothing else is lost: "
                "delete this file and run the same command again, which makes anew only what it held"
            ) from error


def join(store: Store, cells: pd.DataFrame) -> pd.DataFrame:
    """The rows of cells with their completions and scores; rows not decoded yet are left out."""
    joined = cells.merge(store.completions(), left_on="completion", right_on="id")
    scores = store.scores()
    alone = scores.reindex(joined["score_id"]).reset_index(drop=True)
    together = scores.reindex(together_ids(joined)).reset_index(drop=True)
    return joined.drop(columns=list(HIDDEN)).join(alone.combine_first(together), rsuffix="_metric")


def together_ids(rows: pd.DataFrame) -> pd.Series[str]:
    """What the scores of texts beside the others of their cell are kept under: one id a row.

    Content-addressed: equal texts of equal prompts make equal ids, and another text in the cell makes others.
    """
    found: list[pd.Series[str]] = []
    for _, cell in rows.groupby("cell", sort=False):
        prompts, ids = cell["prompt_id"].astype(str), cell["score_id"].astype(str)
        lines = prompts + "|" + ids
        whole = blake2b("\n".join(sorted(lines)).encode(), digest_size=8).hexdigest()
        own = [blake2b(f"{prompt}|{whole}".encode(), digest_size=8).hexdigest() for prompt in prompts]
        found.append(ids + "@" + pd.Series(own, cell.index))
    return pd.concat(found).reindex(rows.index) if found else pd.Series(dtype=str)
