"""Traces: a few numbers that the decoder records at each step instead of the logits. Imports no torch.

The fields of `Trace` and `Alternatives` are defined here once. The results store, the scoring of texts, the
page and the trackers derive their columns from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Alternatives:
    """The likeliest tokens of one step under each distribution: (token, log-prob) pairs, likeliest first.

    `negative` has the likeliest tokens under the weighted mean of the negatives. It is empty if no negative
    ran.
    """

    guided: tuple[tuple[int, float], ...]
    positive: tuple[tuple[int, float], ...]
    negative: tuple[tuple[int, float], ...]


DISTRIBUTIONS = tuple(field.name for field in fields(Alternatives))
"""Names of the distributions of one step."""


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What guidance did at each new token: tuples with one entry per token. Logarithms are natural.

    Attributes:
        guided: log-prob of the token under the guided distribution, before temperature and truncation.
        positive: log-prob of the token under the positive branch alone.
        negative: log-prob of the token under the weighted mean of the negatives; NaN where no negative ran.
        entropy: entropy of the guided distribution, nats.
        divergence: KL(positive || negative), nats. With several negatives it is the mean of their
            divergences, weighted by the absolute values of their weights. NaN where no negative ran.
        scale: the guidance scale after schedule and adaptive strength; 1 where guidance is off.
        alternatives: the likeliest tokens at each step. Empty if the request's `top` is 0.
    """

    guided: tuple[float, ...]
    positive: tuple[float, ...]
    negative: tuple[float, ...]
    entropy: tuple[float, ...]
    divergence: tuple[float, ...]
    scale: tuple[float, ...]
    alternatives: tuple[Alternatives, ...] = ()

    @classmethod
    def from_steps(cls, steps: Sequence[Sequence[float]], alternatives: Sequence[Alternatives] = ()) -> Trace:
        """Make a trace from one list of numbers per step. The numbers are in the order of TRACE_FIELDS."""
        columns = zip(*steps, strict=True)
        return cls(**dict(zip(TRACE_FIELDS, columns, strict=True)), alternatives=tuple(alternatives))

    @property
    def columns(self) -> dict[str, tuple[float, ...]]:
        """The trace without its alternatives: field name -> a tuple with one number per token."""
        return {name: getattr(self, name) for name in TRACE_FIELDS}

    def first(self, count: int) -> Trace:
        """The trace of the first `count` tokens."""
        columns = {name: values[:count] for name, values in self.columns.items()}
        return Trace(**columns, alternatives=self.alternatives[:count])

    def alternatives_as_text(self, piece: Callable[[int], str]) -> dict[str, list[list[dict[str, Any]]]]:
        """The alternatives, with the text of each token added.

        Args:
            piece: returns the text of a token.

        Returns:
            distribution (one of DISTRIBUTIONS) -> a list with one entry per step. Each entry is a list of
            {"token": id, "piece": text, "log_prob": nats}, likeliest token first.
        """
        return {
            name: [
                [
                    {"token": token, "piece": piece(token), "log_prob": log_prob}
                    for token, log_prob in getattr(step, name)
                ]
                for step in self.alternatives
            ]
            for name in DISTRIBUTIONS
        }


TRACE_FIELDS = tuple(field.name for field in fields(Trace) if field.name != "alternatives")
"""Names of the numbers that a trace keeps of each step."""

NEGATIVE_FIELDS = ("negative", "divergence")
"""Those of TRACE_FIELDS that are NaN at a step without negatives."""
