"""The cells of a results folder: their order, the settings that tell them apart, and their names."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pandas as pd

from cfg_lab import analysis

MISSING = "\N{EM DASH}"

PROMPT = ["prompt_id", "prompt"]
"""What tells prompts apart: two sets may use the same ids for other texts."""


@dataclass(frozen=True)
class Axis:
    """A setting that varies.

    Attributes:
        key: its column, "guidance.scale".
        name: how the page calls it, "scale".
        values: the different ones, sorted where they are numbers, else in the order they came.
        numeric: whether all of them are numbers.
    """

    key: str
    name: str
    values: tuple[Any, ...]
    numeric: bool


@dataclass(frozen=True)
class Cells:
    """All cells, in the order of the sweep.

    Attributes:
        ids: of each cell.
        axes: the settings that vary.
        points: of each cell, for each axis the index of its value.
    """

    ids: tuple[str, ...]
    axes: tuple[Axis, ...]
    points: tuple[tuple[int, ...], ...]

    @property
    def labels(self) -> list[str]:
        """What tells each cell from the others: "negatives own, scale 2"."""
        return [
            ", ".join(
                f"{axis.name} {value_text(axis.values[index])}"
                for axis, index in zip(self.axes, point, strict=True)
            )
            or f"cell {cell}"
            for cell, point in zip(self.ids, self.points, strict=True)
        ]


def cells_of(results: pd.DataFrame) -> Cells:
    """The cells of results, a row a text."""
    firsts = results.drop_duplicates("cell")
    values = {key: [_plain(value) for value in firsts[key]] for key in analysis.varying(results)}
    names = _short_names(list(values))
    axes: list[Axis] = []
    columns: list[list[int]] = []
    for key in values:
        axis, indices = _axis(key, names[key], values[key])
        axes.append(axis)
        columns.append(indices)
    ids = tuple(map(str, firsts["cell"]))
    points = tuple(zip(*columns, strict=True)) if columns else ((),) * len(ids)
    return Cells(ids=ids, axes=tuple(axes), points=points)


def value_text(value: Any) -> str:
    """A setting's value as a person writes it: 2 for 2.0."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def constant_settings(results: pd.DataFrame, settings: Sequence[str], cells: Cells) -> Mapping[str, str]:
    """Settings that are the same in all cells."""
    varying = {axis.key for axis in cells.axes}
    firsts = results.drop_duplicates("cell")
    return {
        key: value_text(_plain(firsts[key].iloc[0]))
        for key in settings
        if key in firsts and key not in varying and len(set(map(str, firsts[key]))) == 1
    }


def _axis(key: str, name: str, values: Sequence[Any]) -> tuple[Axis, list[int]]:
    present = [value for value in values if value != MISSING]
    numeric = bool(present) and all(isinstance(value, float) for value in present)
    unique = list(dict.fromkeys(values))
    if numeric:
        unique.sort(key=lambda value: (value == MISSING, value if value != MISSING else 0.0))
    place = {value: number for number, value in enumerate(unique)}
    return Axis(key, name, tuple(unique), numeric), [place[value] for value in values]


def _plain(value: Any) -> Any:
    """A hashable value: numbers as float, missing as a dash, all else as text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, numbers.Real):
        return float(value) if value == value else MISSING  # NaN differs from itself
    if value is None or value is pd.NA:
        return MISSING
    return str(value)


def _short_names(keys: Sequence[str]) -> dict[str, str]:
    """Dotted keys by their last part, where no other key has the same."""
    lasts = [key.rsplit(".", 1)[-1] for key in keys]
    return {key: last if lasts.count(last) == 1 else key for key, last in zip(keys, lasts, strict=True)}


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as plain dicts."""
    return cast("list[dict[str, Any]]", frame.to_dict("records"))


def prompts_of(results: pd.DataFrame) -> pd.DataFrame:
    """The different prompts, in the order in which they come."""
    return results.drop_duplicates(PROMPT)
