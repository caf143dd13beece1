"""What is wanted of texts: one column of a metric, and whether its high or its low values are good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cfg_lab.errors import InputError
from cfg_lab.metrics import Metric, columns_of, needs_whole_cell
from cfg_lab.metrics.column_info import Direction
from cfg_lab.metrics.text import Text
from cfg_lab.study.config import nearest

_SIGNS: dict[str, Direction] = {"+": "higher", "-": "lower"}


@dataclass(frozen=True, kw_only=True)
class Aim:
    """A column of a metric as something to reach.

    Attributes:
        column: the column, such as "sentiment".
        better: which of its values are good.
        metric: the metric that gives the column.
    """

    column: str
    better: Direction
    metric: Metric

    @property
    def sign(self) -> int:
        """1 if high values are good, else -1."""
        return 1 if self.better == "higher" else -1

    def rewards(self, texts: Sequence[Text]) -> NDArray[np.float64]:
        """The value of each text, [texts]. Higher is better, whatever `better` is. NaN if it has no score."""
        return self.sign * np.array(self.metric.score(texts)[self.column], np.float64)


def parse_aim(text: object, metrics: Sequence[Metric], key: str = "aim") -> Aim:
    """Read an aim, such as "sentiment" or "-perplexity".

    Args:
        text: name of a column. A sign before it says which values are good: "+" high ones, "-" low ones.
            Without a sign the metric says it.
        metrics: the metrics to choose from.
        key: name of the config key, for error messages.

    Raises:
        InputError: no metric gives the column, or the column needs a sign.
    """
    if not isinstance(text, str) or not text.lstrip("+-"):
        raise InputError(
            f"{key} must be the name of a column, such as sentiment or -perplexity, got {text!r}"
        )
    sign, column = (text[0], text[1:]) if text[0] in _SIGNS else ("", text)
    by_column = {name: metric for metric in metrics for name in columns_of(metric)}
    if column not in by_column:
        raise InputError(
            f"{key} is {text!r}, but no metric of this command gives the column {column!r}"
            f"{nearest(column, by_column)}; the columns are {', '.join(by_column) or 'none'}, and "
            "metrics=[…] chooses metrics"
        )
    metric = by_column[column]
    better = _SIGNS.get(sign) or columns_of(metric)[column].better
    if better is None:
        raise InputError(
            f"{key} is {text!r}, a column of which neither high nor low values are good in general; write "
            f"+{column} or -{column}"
        )
    return Aim(column=column, better=better, metric=metric)


def check_per_text(aim: Aim, key: str = "aim") -> None:
    """Raise InputError if the aim has no value for a single text, as a reward must have."""
    if needs_whole_cell(aim.metric):
        raise InputError(
            f"{key} is {aim.column!r}, which is measured on all texts of a cell together; choose a column "
            "that each text has by itself, such as sentiment"
        )
