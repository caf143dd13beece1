"""Results on disk: shards that are whole or not there, under content-addressed ids.

    results/<name>/
        config.yaml  environment.json   what ran last in this folder
        cells/<cell>.parquet            a cell: its settings, and which completions it is made of
        completions/*.parquet           a unit of work each
        scores/*.parquet                values by (text, scorer, column)
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

from cfg_lab.costs import FIELDS
from cfg_lab.records import InputError


class StoreError(RuntimeError):
    """A file of the store cannot be read or written; the message names it and says what to do."""


TRACE = ("guided", "positive", "negative", "entropy", "divergence", "scale")
DISTRIBUTIONS = ("guided", "positive", "negative")
_TOKEN = pa.struct([("token", pa.int32()), ("piece", pa.string()), ("log_prob", pa.float32())])
_PROMPT = ("negative", "attribute", "system", "reference")
COMPLETIONS = pa.schema(
    [
        ("id", pa.string()),
        ("model_name", pa.string()),
        ("model_fingerprint", pa.string()),
        ("positive_ids", pa.list_(pa.int32())),
        ("negative_ids", pa.list_(pa.list_(pa.int32()))),
        ("negative_weights", pa.list_(pa.float64())),
        ("negative_models", pa.list_(pa.string())),  # fingerprints; null is the model itself
        ("text", pa.string()),
        ("others", pa.list_(pa.string())),  # texts of the next best beams
        ("finish_reason", pa.string()),
        ("processed", pa.list_(pa.int64())),  # tokens that each branch's model has read, the positive's first
        ("asked", pa.list_(pa.int64())),  # the same had every negative been run to the end
        ("parameters", pa.list_(pa.int64())),  # of each branch's model
        ("tokens", pa.list_(pa.int32())),
        ("stop_token", pa.bool_()),  # whether the last token is one, and not of the text
        ("pieces", pa.list_(pa.string())),  # the text of each token
        *((f"trace_{name}", pa.list_(pa.float32())) for name in TRACE),
        *((f"alternatives_{name}", pa.list_(pa.list_(_TOKEN))) for name in DISTRIBUTIONS),
    ]
)
SCORES = pa.schema(
    [("text", pa.string()), ("scorer", pa.string()), ("column", pa.string()), ("value", pa.float64())]
)
CELL = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("prompt", pa.string()),
        *((f"prompt_{name}", pa.string()) for name in _PROMPT),
        ("sample", pa.int64()),
        ("completion", pa.string()),
        ("score_id", pa.string()),
    ]
)


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

    # Writing

    def add_completions(self, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Keep finished completions, rows of the schema COMPLETIONS."""
        return self._add("completions", COMPLETIONS, rows)

    def add_scores(self, rows: Sequence[Mapping[str, Any]]) -> Path:
        """Keep scores, rows of the schema SCORES."""
        return self._add("scores", SCORES, rows)

    def write_cell(self, cell: str, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Path:
        """Keep what a cell is made of, rows of the schema CELL."""
        schema = CELL.with_metadata({"settings": json.dumps(settings)})
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
        return {str(value) for value in self._read("completions", COMPLETIONS, ["id"])["id"].to_pylist()}

    def completions(self) -> pd.DataFrame:
        """A row a completion, each id once."""
        table = self._read("completions", COMPLETIONS).to_pandas().reindex(columns=COMPLETIONS.names)
        return table.drop_duplicates("id", ignore_index=True)

    def scored(self) -> set[tuple[str, str]]:
        """(text, scorer) pairs that have scores."""
        table = self._read("scores", SCORES, ["text", "scorer"])
        texts, scorers = (map(str, table[name].to_pylist()) for name in ("text", "scorer"))
        return set(zip(texts, scorers, strict=True))

    def scores(self) -> pd.DataFrame:
        """A row a text, a column a score; where several scorers gave a column, the one written last."""
        table = self._read("scores", SCORES).to_pandas()
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
            frame = table.to_pandas().reindex(columns=CELL.names).assign(cell=path.stem)
            frames.append(frame.assign(**{key: [value] * len(frame) for key, value in settings.items()}))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=["cell", *CELL.names])

    def _read(self, folder: str, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
        tables = [self._table(path, columns) for path in self._shards(folder)]
        empty = schema.empty_table() if columns is None else schema.empty_table().select(columns)
        # Columns that older files do not have are null.
        return pa.concat_tables([empty, *tables], promote_options="default")

    def _shards(self, folder: str) -> list[Path]:
        """Oldest first, so that what was written last wins."""
        return sorted(
            (self.root / folder).glob("[!.]*.parquet"), key=lambda path: (path.stat().st_mtime_ns, path.name)
        )

    def _table(self, path: Path, columns: list[str] | None = None) -> pa.Table:
        try:
            return pq.read_table(path, columns=columns, partitioning=None)  # pyright: ignore[reportArgumentType]
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
    hidden = ["id", "score_id", "stop_token", *(f"prompt_{name}" for name in _PROMPT if name != "negative")]
    return joined.drop(columns=hidden).join(alone.combine_first(together), rsuffix="_metric")


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
