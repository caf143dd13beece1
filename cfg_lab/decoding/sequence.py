"""A request while it is being decoded."""

from __future__ import annotations

import math
from collections.abc import Sequence as Many
from dataclasses import dataclass, field
from typing import Protocol

from cfg_lab.decoding.completion import Completion, FinishReason
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.trace import TRACE_FIELDS, Alternatives, Trace

_NEGATIVE, _DIVERGENCE = map(TRACE_FIELDS.index, ("negative", "divergence"))


class Search(Protocol):
    """What a hypothesis knows of the beam search that it belongs to."""

    hypotheses: list[Sequence]
    finish_reason: FinishReason | None

    def completion(self) -> Completion:
        """The best text, once the search is over."""
        ...


@dataclass(eq=False)
class Sequence:
    """A request being decoded: the row of each context, while it is live, and what has come so far.

    Attributes:
        rows: numbers in the lanes of its branches, the positive's first; none while it waits.
        trace: a row of numbers a token, in the order of Trace's fields.
        divergences: KL(positive || negative) of each token.
        beam: the search it is a hypothesis of.
    """

    request: Request
    rows: list[int] = field(default_factory=list[int])
    tokens: list[int] = field(default_factory=list[int])
    trace: list[list[float]] = field(default_factory=list[list[float]])
    divergences: list[float] = field(default_factory=list[float])
    alternatives: list[Alternatives] = field(default_factory=list[Alternatives])
    beam: Search | None = None
    settled: bool = False

    @property
    def together(self) -> Many[Sequence]:
        """Those that have to be live at the same time: all hypotheses of a beam search, else itself."""
        return self.beam.hypotheses if self.beam else [self]

    @property
    def scale(self) -> float:
        """Meant for the next token; 1 looks at no negative."""
        guidance = self.request.guidance
        if guidance is None or not self.request.branches or all(one.settled for one in self.together):
            return 1.0
        return guidance.scale_at(len(self.tokens))

    @property
    def contexts(self) -> tuple[tuple[str | None, tuple[int, ...]], ...]:
        """Model and ids of the contexts that the next token looks at, the positive's first."""
        return self.request.contexts if self.scale != 1 else self.request.contexts[:1]

    def append(self, token: int, numbers: list[float]) -> None:
        """Add a token and its trace, in the order of Trace's fields."""
        self.tokens.append(token)
        self.trace.append(numbers)
        self.divergences.append(numbers[_DIVERGENCE])
        guidance = self.request.guidance
        if guidance is not None and not self.settled:
            self.settled = guidance.has_ended(self.divergences)

    def copy(self) -> Sequence:
        """The same text so far, without rows."""
        return Sequence(
            self.request,
            tokens=[*self.tokens],
            trace=[*self.trace],
            divergences=[*self.divergences],
            alternatives=[*self.alternatives],
            settled=self.settled,
        )

    def become(self, other: Sequence) -> None:
        """Take over the other's text so far."""
        self.tokens, self.trace = [*other.tokens], [*other.trace]
        self.divergences, self.alternatives = [*other.divergences], [*other.alternatives]
        self.settled = other.settled

    @property
    def negative_steps(self) -> int:
        """Steps until its negatives were last looked at."""
        steps = (step for step, row in enumerate(self.trace) if not math.isnan(row[_NEGATIVE]))
        return max(steps, default=-1) + 1

    def finish_reason(self) -> FinishReason | None:
        return self.beam.finish_reason if self.beam else ending(self.request, self.tokens)

    def completion(self, reason: FinishReason) -> Completion:
        if self.beam:
            return self.beam.completion()
        return Completion(
            request=self.request,
            tokens=tuple(self.tokens),
            finish_reason=reason,
            trace=Trace.from_steps(self.trace, self.alternatives),
            steps=len(self.tokens),
            negative_steps=self.negative_steps,
        )


def ending(request: Request, tokens: Many[int]) -> FinishReason | None:
    """Why a text ends with these tokens, if it does."""
    if not tokens:
        return None
    if tokens[-1] in request.stop_ids or (request.stop_when and request.stop_when(tokens)):
        return "stop"
    return "length" if len(tokens) == request.max_new_tokens else None
