"""The cells of results: what tells them apart, what was measured, which of their texts are pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cfg_lab.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SETTING_GROUPS = ("model", "prompts", "negatives", "guidance", "sampling")
"""Config groups that make a cell. Each is a setting, and so is everything below it: "guidance.scale"."""

PLAIN_SETTINGS = (*SETTING_GROUPS, "seed", "samples", "max_new_tokens", "stop", "top")
"""Settings whose names have no dot. Every name with a dot is a setting too."""

SCALE = "guidance.scale"


def settings_of(results: pd.DataFrame) -> list[str]:
    """Names of all settings, in the order of columns."""
    return [name for name in map(str, results.columns) if name in PLAIN_SETTINGS or "." in name]


def metrics_of(results: pd.DataFrame) -> list[str]:
    """Names of the metrics: columns of numbers that are neither settings nor the sample's number."""
    other = {*settings_of(results), "sample"}
    return [
        name
        for name in map(str, results.columns)
        if name not in other and pd.api.types.is_numeric_dtype(results[name])
    ]


def unguided_cells(results: pd.DataFrame) -> set[str]:
    """Ids of the cells whose requests ran no negative at any step."""
    counts = results["negative_ids"].map(len)
    most = counts.groupby(results["cell"].astype(str)).max()
    return {str(cell) for cell in most.index[most == 0]}


def known_metrics(results: pd.DataFrame, metrics: Sequence[str] | None) -> list[str]:
    """The metrics asked for, by default all.

    Raises:
        InputError: there is none of that name.
    """
    there = metrics_of(results)
    for name in metrics or ():
        if name not in there:
            raise InputError(
                f"there is no metric {name!r} in these results; they have {', '.join(there) or 'none'}"
            )
    return there if metrics is None else list(metrics)


def varying(results: pd.DataFrame) -> list[str]:
    """Names of the settings that differ between cells, in the order of columns.

    A setting that the choice of its group decides says nothing more and is left out: "negatives.template",
    where each of the negatives has its own.
    """
    cells = settings_by_cell(results).values()
    differ = [name for name in settings_of(results) if len({cell[name] for cell in cells}) > 1]

    def decided(name: str) -> bool:
        group = name.partition(".")[0]
        if group == name or group not in differ:
            return False
        return len({(cell[group], cell[name]) for cell in cells}) == len({cell[group] for cell in cells})

    return [name for name in differ if not decided(name)]


def settings_by_cell(results: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """All settings of each cell, in the order in which cells appear; None for what a cell does not have."""
    names = settings_of(results)
    first = results.drop_duplicates("cell")
    columns = [[_plain(value) for value in first[name].tolist()] for name in names]
    rows = zip(*columns, strict=True) if names else [()] * len(first)
    return {
        str(cell): dict(zip(names, row, strict=True)) for cell, row in zip(first["cell"], rows, strict=True)
    }


def short(name: str) -> str:
    """A setting's name without its group, "scale" for "guidance.scale"."""
    group, _, last = name.rpartition(".")
    return f"{group} {last}" if last == "name" else last.replace("_", " ")


def written(value: Any) -> str:
    """A setting's value as a command line has it: 1 for 1.0."""
    return f"{value:g}" if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


@dataclass(frozen=True)
class Pairs:
    """Texts aligned between cells: a row is the same prompt and sample, so also the same noise, in all.

    Attributes:
        cells: their ids, in the order in which they appear.
        texts: how many each cell has.
        column, row: of each row of the results: which cell, and which prompt and sample.
        starts: the first row of each prompt; rows of a prompt are neighbours.
        rows: how many there are.
    """

    cells: list[str]
    texts: Ints
    column: Ints
    row: Ints
    starts: Ints
    rows: int

    @classmethod
    def of(cls, results: pd.DataFrame) -> Pairs:
        column, cells = pd.factorize(results["cell"])
        # Prompt sets can use the same ids, so a prompt is its id and its text; order by name, not by file.
        keys: Any = pd.MultiIndex.from_frame(results[["prompt_id", "prompt", "sample"]])
        row, texts = keys.factorize(sort=True)
        prompts, _ = texts.droplevel(2).factorize()
        return cls(
            cells=[str(cell) for cell in cells],
            texts=np.bincount(column, minlength=len(cells)).astype(np.int64),
            column=column.astype(np.int64),
            row=row.astype(np.int64),
            starts=np.flatnonzero(np.diff(prompts, prepend=-1)).astype(np.int64),
            rows=len(texts),
        )

    def values(self, metric: pd.Series[Any]) -> Floats:
        """A column of the results as [rows, cells]; NaN where a cell has no such text or no score."""
        values = np.full((self.rows, len(self.cells)), np.nan)
        values[self.row, self.column] = metric.to_numpy(np.float64)
        return values

    def by_prompt(self, values: Floats) -> tuple[Floats, Floats]:
        """Sums and counts of the values that are not NaN, [prompts, columns], of values [rows, columns]."""
        scored = ~np.isnan(values)
        sums = np.add.reduceat(np.where(scored, values, 0.0), self.starts, axis=0)
        return sums, np.add.reduceat(scored.astype(np.float64), self.starts, axis=0)


def _plain(value: Any) -> Any:
    """A value that compares and hashes: None for NaN, text for lists."""
    if isinstance(value, (list, tuple, dict, np.ndarray)):
        return repr(cast("object", value))
    if value is None or value is pd.NA or value != value:
        return None
    return cast("Any", value).item() if isinstance(value, np.generic) else value
