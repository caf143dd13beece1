"""How much of the guidance is in force at each step. Off for good releases the negative branches."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from cfg_lab.guidance.checks import SMALLEST, check_number


class Schedule(Protocol):
    """The share of guidance over time: the scale at a step is 1 + share * (scale - 1)."""

    def share(self, step: int) -> float:
        """Of new token `step`, from 0: 1 is all of it, 0 none."""
        ...


@dataclass(frozen=True)
class Constant:
    """Guidance at every step."""

    def share(self, step: int) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Guidance for tokens `begin` up to but not including `end` (Kynkäänniemi et al. 2024, arXiv:2404.07724,
    who found the ends of diffusion's noise levels better off without).

    Args:
        begin: from 0.
        end: above begin; None is the end of the text.
    """

    begin: int = 0
    end: int | None = None

    def __post_init__(self) -> None:
        check_number("schedule.begin", self.begin, "a token's number, from 0", low=0, whole=True)
        if self.end is not None:
            wanted = f"a whole number above schedule.begin={self.begin}, or null"
            check_number("schedule.end", self.end, wanted, low=self.begin + 1, whole=True)

    def share(self, step: int) -> float:
        return float(step >= self.begin and (self.end is None or step < self.end))


@dataclass(frozen=True, kw_only=True)
class Linear:
    """From share `start` to share `end` in `steps` tokens along a straight line, then `end`."""

    start: float = 1.0
    end: float = 0.0
    steps: int = 32

    def __post_init__(self) -> None:
        _check_ramp(self.start, self.end, self.steps)

    def share(self, step: int) -> float:
        way = min(1.0, step / self.steps)
        return (1 - way) * self.start + way * self.end


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """From share `start` to share `end` in `steps` tokens along half a cosine, then `end`."""

    start: float = 1.0
    end: float = 0.0
    steps: int = 32

    def __post_init__(self) -> None:
        _check_ramp(self.start, self.end, self.steps)

    def share(self, step: int) -> float:
        way = 1.0 if step >= self.steps else (1 - math.cos(math.pi * step / self.steps)) / 2
        return (1 - way) * self.start + way * self.end


@dataclass(frozen=True, kw_only=True)
class Exponential:
    """The share falls by half every `half_life` tokens, above 0."""

    half_life: float = 16.0

    def __post_init__(self) -> None:
        check_number("schedule.half_life", self.half_life, "a number of tokens above 0", low=SMALLEST)

    def share(self, step: int) -> float:
        return 0.5 ** (step / self.half_life)


def _check_ramp(start: float, end: float, steps: int) -> None:
    check_number("schedule.start", start, "a finite share of guidance, 1 for all of it")
    check_number("schedule.end", end, "a finite share of guidance, 0 for none")
    check_number("schedule.steps", steps, "a whole number of tokens, at least 1", low=1, whole=True)
