"""What is known about each column of scores: its meaning, which values are good, and its bounds.

Tables, figures and the page read stored scores and do not construct the metrics. So they look up a column
here, by its name. The packaged metrics are found by their files in this folder. A results folder describes
the columns of other metrics. These columns become known when the folder is read.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, cast

from cfg_lab.metrics.column_info import Bounds, ColumnInfo, Direction

_declared: dict[str, ColumnInfo] = {}
"""Columns of metrics that are not packaged."""


def better(column: str) -> Direction | None:
    """Which values of a column are good, "higher" or "lower"; None if neither is good or nothing is known."""
    return column_info(column).better


def bounds(column: str) -> Bounds:
    """The least and the greatest possible mean of a column; -inf and inf if the bounds are not known."""
    return column_info(column).bounds


def meaning(column: str) -> str:
    """What a column measures, as one phrase; "" if the meaning is not known."""
    return column_info(column).meaning


def column_info(column: str) -> ColumnInfo:
    """What is known about a column. For an unknown column: an empty text, no direction, no bounds."""
    return packaged_info(column) or _declared.get(column) or ColumnInfo()


def declare(columns: Mapping[str, ColumnInfo]) -> None:
    """Add descriptions of the columns of metrics that are not packaged with cfg_lab.

    The descriptions are kept as long as this process runs. They do not change the columns of packaged
    metrics. If a name is declared twice, the later description is used.
    """
    _declared.update(columns)


def packaged_info(column: str) -> ColumnInfo | None:
    """What a metric of cfg_lab declares about a column; None if no metric of cfg_lab gives the column."""
    columns = packaged_columns()
    if column in columns:
        return columns[column]
    return next((info for pattern, info in columns.items() if fnmatchcase(column, pattern)), None)


@lru_cache
def packaged_columns() -> dict[str, ColumnInfo]:
    """The columns of all metrics of cfg_lab: column -> description.

    A column is a name, or a pattern such as "topic_*".
    """
    columns: dict[str, ColumnInfo] = {}
    for path in sorted(Path(__file__).parent.glob("[!_]*.py")):
        module = import_module(f"cfg_lab.metrics.{path.stem}")
        for member in vars(module).values():
            if isinstance(member, type) and member.__module__ == module.__name__:
                columns |= _class_columns(member)
    return columns


def _class_columns(metric: type) -> Mapping[str, ColumnInfo]:
    """The columns that a metric class describes: name or pattern -> description.

    If `columns` is an attribute of the class, `columns` is returned. If `columns` depends on the arguments of
    a metric, the attribute `column_patterns` of the class is returned.
    """
    columns: Any = getattr(metric, "columns", None)
    if not isinstance(columns, Mapping):
        columns = getattr(metric, "column_patterns", {})
    return cast("Mapping[str, ColumnInfo]", columns)
