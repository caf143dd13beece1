"""The parameters of a search: what each can be, and how a value is written as an override."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cfg_lab.errors import InputError

Value = str | int | float
"""The value of a parameter as Optuna proposes it: an option, a position in a list, or a number."""

_DIGITS = 2
"""Decimal places of a number of an interval, relative to the width of the interval: about 500 values."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """One of several options without an order.

    Attributes:
        key: the key of the override, such as "guidance".
        options: the values as overrides write them; at least one, each once.
    """

    key: str
    options: tuple[str, ...]

    @property
    def size(self) -> float:
        """Number of different values."""
        return len(self.options)

    def text(self, value: Value) -> str:
        """A value as an override writes it. The value is the option itself."""
        return str(value)

    @property
    def ends(self) -> tuple[str, ...]:
        """The values with which a search is checked before it begins: all options."""
        return self.options


@dataclass(frozen=True, kw_only=True)
class Steps:
    """One of several numbers in their order, such as those of range(1,5).

    Attributes:
        key: the key of the override.
        numbers: the values as overrides write them; at least one.
    """

    key: str
    numbers: tuple[str, ...]

    @property
    def size(self) -> float:
        """Number of different values."""
        return len(self.numbers)

    def text(self, value: Value) -> str:
        """A value as an override writes it. The value is a position in `numbers`."""
        return self.numbers[int(value)]

    @property
    def ends(self) -> tuple[str, ...]:
        """The smallest and the largest value."""
        return (self.numbers[0], self.numbers[-1])


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A number between two ends, both included.

    Attributes:
        key: the key of the override.
        low, high: the ends; low < high.
        whole: whether only whole numbers are taken.
        log: whether the logarithm is searched evenly, so that 1 to 2 is as much as 2 to 4; low > 0.
    """

    key: str
    low: float
    high: float
    whole: bool = False
    log: bool = False

    def __post_init__(self) -> None:
        given = f"{self.key}=interval({self.low:g},{self.high:g})"
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise InputError(f"{given} needs two finite ends, the smaller one first")
        if self.log and self.low <= 0:
            raise InputError(f"{given} has the tag log, so its ends must be above 0")
        if self.whole and not (float(self.low).is_integer() and float(self.high).is_integer()):
            raise InputError(f"{given} is an interval of whole numbers, so its ends must be whole numbers")

    @property
    def size(self) -> float:
        """Number of different values; infinite unless only whole numbers are taken."""
        return self.high - self.low + 1 if self.whole else math.inf

    def text(self, value: Value) -> str:
        """A number as an override writes it.

        It is rounded to a hundredth of the width's power of ten (interval(1,5): 2.37), or to three
        significant digits on a log scale. So labels can be read, and nearly equal cells are equal.
        """
        number = float(value)
        if self.whole:
            return str(round(number))
        if self.log:
            rounded = float(f"{number:.3g}")
        else:
            rounded = round(number, _DIGITS - math.floor(math.log10(self.high - self.low)))
        rounded = min(max(rounded, self.low), self.high)
        return str(int(rounded)) if rounded.is_integer() else repr(rounded)

    @property
    def ends(self) -> tuple[str, ...]:
        """The smallest and the largest value."""
        return (self.text(self.low), self.text(self.high))


Parameter = Choice | Steps | Interval


def texts(space: Sequence[Parameter], values: Mapping[str, Value]) -> dict[str, str]:
    """The values of a trial as overrides write them, as key -> text."""
    return {parameter.key: parameter.text(values[parameter.key]) for parameter in space}


def size(space: Sequence[Parameter]) -> float:
    """Number of different points of a space; infinite if a parameter is a real interval."""
    return math.prod(parameter.size for parameter in space)
