"""What a search optimises: columns of metrics with a good direction, and limits that a cell must keep."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from cfg_lab.errors import InputError
from cfg_lab.metrics import Metric
from cfg_lab.metrics.known_columns import bounds
from cfg_lab.study.aim import Aim, parse_aim

_EXAMPLE = "'objective=[+sentiment,\"perplexity<=1.2x\"]'"
_LIMIT = re.compile(r"\s*([^\s<>=]+)\s*(<=|>=)\s*(\S+?)(x?)\s*")


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A limit of the mean of a column.

    Attributes:
        text: the limit as the user wrote it, such as "perplexity<=1.2x".
        column: the column.
        is_upper: whether the mean must be at most the bound; otherwise it must be at least the bound.
        bound: the bound, or with `is_relative` its multiple of the mean of plain decoding.
        is_relative: whether the bound is a multiple of the mean of plain decoding on the same prompts.
    """

    text: str
    column: str
    is_upper: bool
    bound: float
    is_relative: bool

    def violation(self, mean: float, plain_mean: float) -> float:
        """How far a mean is beyond the limit, in the unit of the column; 0 or less if it keeps the limit."""
        bound = self.bound * plain_mean if self.is_relative else self.bound
        return mean - bound if self.is_upper else bound - mean


@dataclass(frozen=True, kw_only=True)
class Objectives:
    """What a search optimises.

    Attributes:
        aims: the columns to improve, at least one.
        limits: limits of columns.
    """

    aims: tuple[Aim, ...]
    limits: tuple[Limit, ...] = ()

    @property
    def columns(self) -> list[str]:
        """All columns that are needed, each once: first those of the aims."""
        return list(
            dict.fromkeys([*(aim.column for aim in self.aims), *(limit.column for limit in self.limits)])
        )

    @property
    def texts(self) -> list[str]:
        """The objectives as a user writes them, with the sign of each aim."""
        signs = {"higher": "+", "lower": "-"}
        return [
            *(f"{signs[aim.better]}{aim.column}" for aim in self.aims),
            *(limit.text for limit in self.limits),
        ]

    def violations(self, means: Mapping[str, float], plain: Mapping[str, float]) -> dict[str, float]:
        """How far a cell is beyond each limit: text of the limit -> `Limit.violation`.

        Args:
            means: column -> mean of the cell.
            plain: column -> mean of plain decoding on the same prompts.
        """
        return {
            limit.text: limit.violation(means[limit.column], plain[limit.column]) for limit in self.limits
        }


def parse_objectives(value: object, metrics: Sequence[Metric]) -> Objectives:
    """Read the value of the key `objective`: one text or a list of texts.

    Args:
        value: aims such as "+sentiment" (see `parse_aim`), and limits such as "perplexity<=6", or
            "perplexity<=1.2x" for 1.2 times the mean of plain decoding.
        metrics: the metrics of the command.

    Raises:
        InputError: there is no aim, a text cannot be read, or no metric gives a column.
    """
    items = cast("list[Any]", value) if isinstance(value, list) else [] if value is None else [value]
    if not items:
        raise InputError(
            f"objective has no value, but hydra/sweeper=optuna searches for its best; write {_EXAMPLE}"
        )
    aims: list[Aim] = []
    limits: list[Limit] = []
    for item in items:
        if isinstance(item, str) and re.search("[<>=]", item):
            limits.append(_limit(item, metrics))
        else:
            aims.append(parse_aim(item, metrics, "objective"))
    if not aims:
        raise InputError(
            f"objective is {value!r}, which only has limits; name a column to improve as well: {_EXAMPLE}"
        )
    columns = [aim.column for aim in aims]
    for column in columns:
        if columns.count(column) > 1:
            raise InputError(f"objective is {value!r}, which names {column} twice")
    return Objectives(aims=tuple(aims), limits=tuple(limits))


def _limit(text: str, metrics: Sequence[Metric]) -> Limit:
    match = _LIMIT.fullmatch(text)
    try:
        bound = float(match[3]) if match else math.nan
    except ValueError:
        bound = math.nan
    if match is None or not math.isfinite(bound):
        raise InputError(
            f"objective has {text!r}, which is no limit; write column<=number, column>=number, or "
            "column<=1.2x for 1.2 times plain decoding"
        )
    column, relative = match[1], bool(match[4])
    parse_aim(f"+{column}", metrics, "objective")  # says which columns there are
    if relative and (bounds(column)[0] < 0 or bound <= 0):
        raise InputError(
            f"objective has {text!r}, but a multiple of plain decoding needs a column without negative "
            f"values and a factor above 0; write {column}{match[2]} and a number"
        )
    return Limit(
        text=text.replace(" ", ""),
        column=column,
        is_upper=match[2] == "<=",
        bound=bound,
        is_relative=relative,
    )
