"""The cells of a results folder, with their names and the settings that differ between cells."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from cfg_lab import analysis
from cfg_lab.analysis.frame import SCALE

MISSING = "\N{EM DASH}"
"""Stands for the value of a setting that a cell does not have."""

PROMPT_KEY = ["prompt_id", "prompt"]
"""The columns that identify a prompt: two prompt sets may use the same id for different texts."""


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A setting that differs between cells.

    Attributes:
        key: column name of the setting, such as "guidance.scale".
        name: the setting's name on the page, such as "scale".
        values: the setting's distinct values. Numbers are sorted; other values keep the order of the results.
        numeric: whether all values are numbers. A missing value does not count.
    """

    key: str
    name: str
    values: tuple[Any, ...]
    numeric: bool


@dataclass(frozen=True, kw_only=True)
class Cells:
    """All cells of a study, sorted by their settings.

    Attributes:
        ids: id of each cell.
        axes: the settings that differ between cells.
        points: for each cell one index per axis: the position of the cell's value in `Axis.values`.
        unguided: indices (positions in `ids`) of the cells in which no text was decoded with a negative.
    """

    ids: tuple[str, ...]
    axes: tuple[Axis, ...]
    points: tuple[tuple[int, ...], ...]
    unguided: frozenset[int]

    @property
    def index(self) -> dict[str, int]:
        """Id of each cell -> position of the cell in `ids`."""
        return {cell: number for number, cell in enumerate(self.ids)}

    @property
    def of_negative(self) -> frozenset[int]:
        """Indices of the cells with a negative and scale 0, if others with a negative have another scale.

        Their texts are those of the negative itself, such as an instruction or a base model. They are shown
        beside guided texts, but guidance has not made them.
        """
        with_negative = {*range(len(self.ids))} - self.unguided
        for number, axis in enumerate(self.axes):
            if axis.key == SCALE:
                zeros = {cell for cell in with_negative if axis.values[self.points[cell][number]] == 0}
                return frozenset(zeros if zeros != with_negative else ())
        return frozenset()

    @property
    def labels(self) -> list[str]:
        """The name of each cell: the cell's settings as text, such as "negatives own, scale 2"."""
        return [
            ", ".join(
                f"{axis.name} {value_text(axis.values[index])}"
                for axis, index in zip(self.axes, point, strict=True)
            )
            or f"cell {cell}"
            for cell, point in zip(self.ids, self.points, strict=True)
        ]

    @property
    def curve_axis(self) -> int | None:
        """Index of the axis over which curves are drawn; None if no axis suits.

        This is the axis of the guidance scale if the scale differs between cells. Otherwise it is the axis of
        the first numeric setting with more than two values.
        """
        numeric = [number for number, axis in enumerate(self.axes) if axis.numeric]
        scales = [number for number in numeric if self.axes[number].key == SCALE]
        return next(iter(scales + [n for n in numeric if len(self.axes[n].values) > 2]), None)


def cells_of(results: pd.DataFrame) -> Cells:
    """Return the cells of a results frame, which has one row per text."""
    first_rows = results.drop_duplicates("cell")
    values = {key: [_hashable(value) for value in first_rows[key]] for key in analysis.varying(results)}
    names = _short_names(list(values))
    axes: list[Axis] = []
    columns: list[list[int]] = []
    for key in values:
        axis, indices = _axis(key, names[key], values[key])
        axes.append(axis)
        columns.append(indices)
    ids = list(map(str, first_rows["cell"]))
    points = list(zip(*columns, strict=True)) if columns else [()] * len(ids)
    ordered = sorted(range(len(ids)), key=points.__getitem__)
    unguided = analysis.unguided_cells(results)
    return Cells(
        ids=tuple(ids[cell] for cell in ordered),
        axes=tuple(axes),
        points=tuple(points[cell] for cell in ordered),
        unguided=frozenset(number for number, cell in enumerate(ordered) if ids[cell] in unguided),
    )


def value_text(value: Any) -> str:
    """Write the value of a setting as a user types it: 2 for 2.0."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def constant_settings(results: pd.DataFrame, cells: Cells) -> Mapping[str, str]:
    """Return the settings that have the same value in all cells: column name -> value as text."""
    varying = {axis.key for axis in cells.axes}
    first_rows = results.drop_duplicates("cell")
    return {
        key: value_text(_hashable(first_rows[key].iloc[0]))
        for key in analysis.settings_of(results)
        if key not in varying and len(set(map(str, first_rows[key]))) == 1
    }


def row_dicts(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a frame as dicts from column name to value."""
    return cast("list[dict[str, Any]]", frame.to_dict("records"))


def prompts_of(results: pd.DataFrame) -> pd.DataFrame:
    """Return the first row of each distinct prompt, in the order of the results."""
    return results.drop_duplicates(PROMPT_KEY)


def _axis(key: str, name: str, values: Sequence[Any]) -> tuple[Axis, list[int]]:
    """Return the axis of a setting: its different values. Return also each cell's index into these values."""
    present = [value for value in values if value != MISSING]
    numeric = bool(present) and all(isinstance(value, float) for value in present)
    unique = list(dict.fromkeys(values))
    if numeric:
        unique.sort(key=lambda value: (value == MISSING, value if value != MISSING else 0.0))
    index = {value: number for number, value in enumerate(unique)}
    axis = Axis(key=key, name=name, values=tuple(unique), numeric=numeric)
    return axis, [index[value] for value in values]


def _hashable(value: Any) -> Any:
    """Return a number as float, a missing value as a dash, and everything else as text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, numbers.Real):
        return float(value) if value == value else MISSING  # NaN differs from itself
    if value is None or value is pd.NA:
        return MISSING
    return str(value)


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """Shorten each dotted key to its last part, unless another key ends with the same part."""
    endings = [key.rsplit(".", 1)[-1] for key in keys]
    return {
        key: ending if endings.count(ending) == 1 else key for key, ending in zip(keys, endings, strict=True)
    }
