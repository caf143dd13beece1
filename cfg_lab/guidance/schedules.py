"""Schedules: how strong guidance is at each token.

The negatives do not run at tokens where guidance is off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from cfg_lab.guidance.checks import SMALLEST, check_number


class Schedule(Protocol):
    """Gives the share of guidance at each token. The token's scale is 1 + share * (the rule's scale - 1)."""

    def share(self, step: int) -> float:
        """Return the share of guidance at new token `step`, counted from 0. 1 is full guidance, 0 is none."""
        ...


@dataclass(frozen=True)
class Constant:
    """Full guidance at every token: the scale is the rule's scale."""

    def share(self, step: int) -> float:
        return 1.0


@dataclass(frozen=True, kw_only=True)
class Interval:
    """Full guidance from token `begin` up to but not including token `end`, no guidance at other tokens.

    Source: Kynkäänniemi et al. 2024 (arXiv:2404.07724), who guide diffusion models at middle noise levels.

    Args:
        begin: token number, counted from 0.
        end: token number above begin. None means the end of the text.
    """

    begin: int = 0
    end: int | None = 16

    def __post_init__(self) -> None:
        check_number("schedule.begin", self.begin, "a token number, from 0", low=0, whole=True)
        if self.end is not None:
            requirement = f"a whole number above schedule.begin={self.begin}, or null for the end of the text"
            check_number("schedule.end", self.end, requirement, low=self.begin + 1, whole=True)

    def share(self, step: int) -> float:
        return float(step >= self.begin and (self.end is None or step < self.end))


@dataclass(frozen=True, kw_only=True)
class Linear:
    """The share of guidance goes from `start` to `end` along a straight line, and then stays at `end`.

    Args:
        start, end: shares of guidance; 1 is full guidance, 0 is none.
        steps: number of tokens from start to end, at least 1.
    """

    start: float = 1.0
    end: float = 0.0
    steps: int = 32

    def __post_init__(self) -> None:
        _check_ramp(self.start, self.end, self.steps)

    def share(self, step: int) -> float:
        progress = min(1.0, step / self.steps)
        return (1 - progress) * self.start + progress * self.end


@dataclass(frozen=True, kw_only=True)
class Cosine:
    """The share of guidance goes from `start` to `end` along half a cosine, and then stays at `end`.

    Args:
        start, end: shares of guidance; 1 is full guidance, 0 is none.
        steps: number of tokens from start to end, at least 1.
    """

    start: float = 1.0
    end: float = 0.0
    steps: int = 32

    def __post_init__(self) -> None:
        _check_ramp(self.start, self.end, self.steps)

    def share(self, step: int) -> float:
        progress = 1.0 if step >= self.steps else (1 - math.cos(math.pi * step / self.steps)) / 2
        return (1 - progress) * self.start + progress * self.end


@dataclass(frozen=True, kw_only=True)
class Exponential:
    """The share of guidance starts at 1 (full guidance) and halves every `half_life` tokens.

    Args:
        half_life: number of tokens, above 0.
    """

    half_life: float = 16.0

    def __post_init__(self) -> None:
        check_number("schedule.half_life", self.half_life, "a number of tokens above 0", low=SMALLEST)

    def share(self, step: int) -> float:
        return 0.5 ** (step / self.half_life)


def _check_ramp(start: float, end: float, steps: int) -> None:
    check_number("schedule.start", start, "a finite share of guidance; 1 is full guidance")
    check_number("schedule.end", end, "a finite share of guidance; 0 is none")
    check_number("schedule.steps", steps, "a whole number of tokens, at least 1", low=1, whole=True)
