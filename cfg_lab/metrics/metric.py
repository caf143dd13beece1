"""What a metric is."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from hashlib import blake2b
from typing import Any, Protocol

from cfg_lab.decoding.identity import canonical
from cfg_lab.errors import InputError
from cfg_lab.metrics.column_info import ColumnInfo
from cfg_lab.metrics.text import Text


class Metric(Protocol):
    """Gives one or more columns of scores. A frozen dataclass.

    Scores are stored under a hash of the metric's arguments (`scorer_key`), so texts are scored again when
    an argument changes. Arguments with `field(repr=False)`, such as the function that loads a model, are not
    hashed.

    Optional class attributes:
        version: an integer, 1 if missing. Raise it when equal arguments come to give other scores: after a
            change of the formula, of a default or of a packaged model. Texts are then scored again.
        whole_cell: True if `score` needs all texts of one cell at once (self-BLEU, Vendi score, MAUVE). Such
            a metric gives one value per text too. A number of one prompt's texts is given to each of them. A
            number of the whole cell is turned into one value per text by `jackknife.pseudo_values`. When
            one text of the cell changes, all its texts are scored again.
        column_patterns: `columns` of a class whose column names depend on its arguments, by pattern
            ("topic_*").
    """

    @property
    def columns(self) -> Mapping[str, ColumnInfo]:
        """The columns that `score` gives, in its order. The first one stands for the metric in short tables.

        A class attribute if the names are fixed, a property if they depend on the arguments. Loads nothing.
        """
        ...

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        """Score texts.

        Called with no texts before anything is decoded. It then loads what it needs, so that a missing
        package or model is noticed at once.

        Returns:
            For each of `columns`, one value per text in their order. NaN for a text that cannot be scored.
        """
        ...


def columns_of(metric: Metric) -> Mapping[str, ColumnInfo]:
    """The columns that a metric declares.

    Raises:
        InputError: it declares none.
    """
    columns: Mapping[str, ColumnInfo] = getattr(metric, "columns", {})
    if not columns:
        raise InputError(
            f"metrics: {type(metric).__name__} declares no columns; give the class an attribute "
            "columns = {'name': ColumnInfo(meaning='what it measures')}"
        )
    return columns


def needs_whole_cell(metric: Metric) -> bool:
    """Whether a metric must be given all texts of a cell at once."""
    return bool(getattr(metric, "whole_cell", False))


def scorer_key(metric: Metric) -> str:
    """Short hash under which a metric's scores are stored: of its class, its version and its arguments.

    Arguments with their default value are left out, so a new argument with a default keeps existing scores.
    """
    version = int(getattr(metric, "version", 1))
    return blake2b(json.dumps([version, _arguments(metric)]).encode(), digest_size=6).hexdigest()


def _arguments(metric: Metric) -> Any:
    """A metric as JSON data: its class and its arguments that differ from their defaults."""
    if not is_dataclass(metric):
        return canonical(metric)
    values = {field.name: canonical(getattr(metric, field.name)) for field in fields(metric) if field.repr}
    defaults = {field.name: canonical(_default(field)) for field in fields(metric)}
    return [
        type(metric).__name__,
        {name: value for name, value in values.items() if value != defaults[name]},
    ]


def _default(field: Field[Any]) -> Any:
    """A field's default; MISSING, which equals no argument, if it has none."""
    return field.default if field.default_factory is MISSING else field.default_factory()
