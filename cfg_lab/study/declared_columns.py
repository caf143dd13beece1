"""Stores descriptions of metric columns in the results folder, for metrics that are not part of the lab.

    metrics/<scorer>.json    {"metric": its repr, "columns": {name: {"meaning": …, "better": …, …}}}

<scorer> is the key under which the scores of a metric are stored. The page and the figures do not load the
metrics, so they take the descriptions from these files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from cfg_lab.errors import InputError, StoreError
from cfg_lab.metrics import ColumnInfo, Metric, columns_of, scorer_key
from cfg_lab.metrics.known_columns import declare, packaged_info
from cfg_lab.study.store import Store


def write_declared_columns(store: Store, metrics: Sequence[Metric]) -> None:
    """Write the descriptions that metrics declare for their columns.

    Columns of the lab's own metrics are left out.
    """
    for metric in metrics:
        columns = {
            name: _as_json(info) for name, info in columns_of(metric).items() if packaged_info(name) is None
        }
        if columns:
            name = f"metrics/{scorer_key(metric)}.json"
            content = json.dumps({"metric": repr(metric), "columns": columns}, indent=1) + "\n"
            if store.read_text(name) != content:
                store.write_text(name, content)


def declare_stored_columns(store: Store) -> None:
    """Read the descriptions of columns from a results folder, and make them known to this process.

    Raises:
        StoreError: a file is damaged. The message names the file.
    """
    paths = (store.root / "metrics").glob("[!.]*.json")
    for path in sorted(paths, key=lambda path: (path.stat().st_mtime_ns, path.name)):  # the newest file wins
        try:
            columns: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["columns"]
            declare({name: _from_json(info) for name, info in columns.items()})
        except (ValueError, KeyError, TypeError, AttributeError, OSError, InputError) as error:
            raise StoreError(f"{path} is damaged ({error!r}); delete it: nothing else is lost") from error


def _as_json(info: ColumnInfo) -> dict[str, Any]:
    """A description as strict JSON data. JSON has no infinity, so an infinite bound becomes null."""
    return asdict(info) | {"bounds": [end if math.isfinite(end) else None for end in info.bounds]}


def _from_json(info: dict[str, Any]) -> ColumnInfo:
    low, high = info["bounds"]
    bounds = (-math.inf if low is None else float(low), math.inf if high is None else float(high))
    values: dict[str, Any] = {**info, "bounds": bounds}
    return ColumnInfo(**values)
