"""The interface of metrics, and the keys under which their scores are stored."""

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
    """A metric gives one or more columns of scores. It is a frozen dataclass.

    Scores are stored under a hash of the metric's arguments (`scorer_key`), so texts are scored again when
    an argument changes. Arguments with `field(repr=False)`, such as the function that loads a model, are not
    hashed.

    Optional class attributes:
        version: an integer, 1 if missing. Increase it when equal arguments give other scores than before:
            after a change of the formula, of a default or of a packaged model. Texts are then scored again.
        whole_cell: True if `score` needs all texts of one cell at once (self-BLEU, Vendi score, MAUVE). Such
            a metric also returns one value per text. If it computes one number per prompt, each text of the
            prompt gets this number. If it computes one number for the cell, `jackknife.pseudo_values` turns
            the number into one value per text. When one text changes, all texts of its cell are scored again.
        column_patterns: pattern such as "topic_*" -> ColumnInfo. Needed if the names of the columns depend on
            the arguments of the metric.
    """

    @property
    def columns(self) -> Mapping[str, ColumnInfo]:
        """The columns that `score` gives, in the same order. The first represents the metric in short tables.

        `columns` is a class attribute if the names of the columns are fixed. It is a property if the names
        depend on the arguments of the metric. Reading `columns` loads no model.
        """
        ...

    def score(self, texts: Sequence[Text]) -> dict[str, list[float]]:
        """Score texts.

        Before anything is decoded, `score` is called with an empty list. This call loads the packages and
        models that the metric needs, so that a missing package or model is noticed at once.

        Returns:
            For each of `columns` one value per text, in the order of the texts. NaN for a text that cannot be
            scored.
        """
        ...


def columns_of(metric: Metric) -> Mapping[str, ColumnInfo]:
    """The columns that a metric declares.

    Raises:
        InputError: the metric declares no columns.
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
    """Short hash of a metric's class, version and arguments. Its scores are stored under this hash.

    Arguments with their default value are left out. So existing scores stay valid when a metric gets a new
    argument with a default.
    """
    version = int(getattr(metric, "version", 1))
    return blake2b(json.dumps([version, _arguments(metric)]).encode(), digest_size=6).hexdigest()


def _arguments(metric: Metric) -> Any:
    """A metric as JSON data: the name of its class, and each argument that differs from its default value."""
    if not is_dataclass(metric):
        return canonical(metric)
    values = {field.name: canonical(getattr(metric, field.name)) for field in fields(metric) if field.repr}
    defaults = {field.name: canonical(_default(field)) for field in fields(metric)}
    return [
        type(metric).__name__,
        {name: value for name, value in values.items() if value != defaults[name]},
    ]


def _default(field: Field[Any]) -> Any:
    """The default value of a dataclass field. A field without one gives MISSING: no argument equals it."""
    return field.default if field.default_factory is MISSING else field.default_factory()
