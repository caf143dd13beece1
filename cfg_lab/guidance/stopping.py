"""Stopping conditions: guidance ends before the text ends. From then on, no negative runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cfg_lab.guidance.checks import SMALLEST, check_number


class Stopping(Protocol):
    """A condition under which guidance ends for the rest of a text."""

    def has_ended(self, divergences: Sequence[float]) -> bool:
        """Return True if guidance has ended.

        Args:
            divergences: KL(positive || negative) of every token so far, in nats.
        """
        ...


@dataclass(frozen=True)
class NeverStop:
    """No stopping condition: only the schedule decides at which tokens guidance is on."""

    def has_ended(self, divergences: Sequence[float]) -> bool:
        return False


@dataclass(frozen=True, kw_only=True)
class StopOnAgreement:
    """Guidance ends once the branches agree: adaptive guidance (Castillo et al. 2023, arXiv:2312.12487).

    The branches agree at a token if KL(positive || negative) is below `threshold`. Guidance ends after
    `steps` such tokens in a row. In a beam search guidance ends once this has happened in every hypothesis.

    Args:
        threshold: a divergence in nats, above 0.
        steps: number of tokens in a row at which the branches must agree, at least 1.
    """

    threshold: float = 0.05
    steps: int = 4

    def __post_init__(self) -> None:
        check_number("stopping.threshold", self.threshold, "a number of nats above 0", low=SMALLEST)
        check_number("stopping.steps", self.steps, "a whole number of at least 1", low=1, whole=True)

    def has_ended(self, divergences: Sequence[float]) -> bool:
        recent = divergences[-self.steps :]
        return len(recent) == self.steps and all(nats < self.threshold for nats in recent)
