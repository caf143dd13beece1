"""A text that is being decoded: its tokens so far and its rows in the KV cache."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from cfg_lab.decoding.completion import Completion, FinishReason
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.trace import TRACE_FIELDS, Alternatives, Trace

_NEGATIVE, _DIVERGENCE = map(TRACE_FIELDS.index, ("negative", "divergence"))


@dataclass(eq=False)
class SequenceState:
    """One text of a request while it is being decoded. A beam search has one SequenceState per hypothesis.

    Attributes:
        rows: for each running branch the number of its row in the KV cache of its model, the positive branch
            first. Empty while the request waits.
        tokens: the new tokens so far.
        trace: one list of numbers per token, in the order of TRACE_FIELDS.
        divergences: KL(positive || negative) at each token, nats; NaN where no negative ran.
        alternatives: the likeliest tokens at each step. Empty if the request's `top` is 0.
        guidance_has_ended: whether the guidance rule has ended guidance for the rest of the text.
    """

    request: Request
    rows: list[int] = field(default_factory=list[int])
    tokens: list[int] = field(default_factory=list[int])
    trace: list[list[float]] = field(default_factory=list[list[float]])
    divergences: list[float] = field(default_factory=list[float])
    alternatives: list[Alternatives] = field(default_factory=list[Alternatives])
    guidance_has_ended: bool = False

    def append(self, token: int, numbers: list[float], alternatives: Alternatives | None) -> None:
        """Append one token with its trace values `numbers`, which are in the order of TRACE_FIELDS."""
        self.tokens.append(token)
        self.trace.append(numbers)
        self.divergences.append(numbers[_DIVERGENCE])
        if alternatives is not None:
            self.alternatives.append(alternatives)
        guidance = self.request.guidance
        if guidance is not None and not self.guidance_has_ended:
            self.guidance_has_ended = guidance.has_ended(self.divergences)

    def copy(self) -> SequenceState:
        """A new sequence with the same text. It has no rows in the KV cache."""
        copied = SequenceState(self.request)
        copied.continue_from(self)
        return copied

    def continue_from(self, other: SequenceState) -> None:
        """Replace the text of this sequence by the text of another sequence. This sequence keeps its rows."""
        self.tokens = [*other.tokens]
        self.trace = [*other.trace]
        self.divergences = [*other.divergences]
        self.alternatives = [*other.alternatives]
        self.guidance_has_ended = other.guidance_has_ended

    @property
    def negative_steps(self) -> int:
        """Number of steps up to and including the last one that ran a negative branch."""
        guided_steps = (step for step, row in enumerate(self.trace) if not math.isnan(row[_NEGATIVE]))
        return max(guided_steps, default=-1) + 1

    def completion(self, reason: FinishReason) -> Completion:
        """The finished text with its trace, as a `Completion`."""
        return Completion(
            request=self.request,
            tokens=tuple(self.tokens),
            finish_reason=reason,
            trace=Trace.from_steps(self.trace, self.alternatives),
            steps=len(self.tokens),
            negative_steps=self.negative_steps,
        )
