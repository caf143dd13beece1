"""The columns of an export: which there are, which are written, and their types."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import pyarrow as pa

from cfg_lab.analysis.frame import TASK
from cfg_lab.errors import InputError
from cfg_lab.study.columns import CELL_COLUMNS, COMPLETION_COLUMNS

ALL = "all"
"""The word that stands for all columns on the command line."""

_PER_TOKEN = ("pieces", "trace_", "alternatives_")
"""Beginnings of the names of columns with one entry per token. They are nearly all of a folder."""


@dataclass(frozen=True, kw_only=True)
class ExportColumns:
    """The columns of an export, in the order in which `load_results` has them.

    Attributes:
        of_cells: columns of the files of cells: prompt, sample and so on.
        settings: the settings.
        of_completions: columns of the files of completions: text, tokens and so on.
        metrics: columns of scores.
        names: the columns to write, in order.
    """

    of_cells: tuple[str, ...]
    settings: tuple[str, ...]
    of_completions: tuple[str, ...]
    metrics: tuple[str, ...]
    names: tuple[str, ...]

    @property
    def all_names(self) -> tuple[str, ...]:
        """All columns that the results have."""
        return (*self.of_cells, "cell", *self.settings, *self.of_completions, *self.metrics)

    @property
    def left_out(self) -> list[str]:
        """The columns that are not written."""
        return [name for name in self.all_names if name not in self.names]


def export_columns(
    settings: Sequence[str], metrics: Sequence[str], requested: Sequence[str] | None
) -> ExportColumns:
    """Choose the columns of an export.

    Args:
        settings: names of all settings of the results.
        metrics: names of all columns of scores.
        requested: names of columns, or ["all"]; None takes all but those with one entry per token.

    Raises:
        InputError: the results have no such column.
    """
    of_cells = tuple(column.name for column in CELL_COLUMNS if column.shown)
    of_completions = tuple(
        column.name
        for column in COMPLETION_COLUMNS
        if column.shown
        and (column.name != "choices" or TASK in settings)  # only a benchmark has given answers
    )
    taken = {*of_cells, "cell", *settings, *of_completions}
    scores = tuple(f"{name}_metric" if name in taken else name for name in metrics)
    everything = (*of_cells, "cell", *settings, *of_completions, *scores)
    if requested is None:
        names = tuple(name for name in everything if not name.startswith(_PER_TOKEN))
    elif list(requested) == [ALL]:
        names = everything
    else:
        names = tuple(dict.fromkeys(requested))
        for name in names:
            if name not in everything:
                raise InputError(
                    f"--columns: there is no column {name!r} in these results; "
                    f"they have {', '.join(everything)}, and {ALL!r} stands for all"
                )
    return ExportColumns(
        of_cells=of_cells,
        settings=tuple(settings),
        of_completions=of_completions,
        metrics=scores,
        names=names,
    )


def setting_array(values: pd.Series[Any]) -> pa.Array[Any]:
    """The values of a setting, one per cell, as an Arrow array of one type.

    Truth values, whole numbers, numbers and texts keep their type. If cells differ in type, all values become
    text: numbers as JSON writes them. A missing value is null.
    """
    plain: list[Any] = [None if _is_missing(value) else _plain(value) for value in values]
    kinds: set[type] = {type(value) for value in plain if value is not None}
    for kind, type_ in ((bool, pa.bool_()), (int, pa.int64()), (str, pa.string())):
        if kinds == {kind}:
            return pa.array(plain, type_)
    if kinds and kinds <= {int, float}:
        if all(value is None or float(value).is_integer() for value in plain) and int in kinds:
            return pa.array([None if value is None else int(value) for value in plain], pa.int64())
        return pa.array([None if value is None else float(value) for value in plain], pa.float64())
    texts = [
        value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for value in plain
    ]
    return pa.array(texts, pa.string())


def _plain(value: Any) -> Any:
    """A value of numpy as a value of Python."""
    return value.item() if hasattr(value, "item") else value


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or (isinstance(value, float) and value != value)
