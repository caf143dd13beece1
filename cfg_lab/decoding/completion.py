"""The result of a request to the decoder: a text with its trace."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from cfg_lab.decoding.request import Request
from cfg_lab.decoding.trace import Trace

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class Completion:
    """The text that was decoded for a request, with its trace and its number of steps.

    Attributes:
        tokens: the new tokens, the stop token included if there is one. None are left if the text was cut at
            its beginning, see `first`.
        finish_reason: "stop" if the text ended by a stop token or by `stop_when`, "length" if it reached
            `max_new_tokens`.
        trace: what guidance did at each token.
        steps: number of decoding steps. There can be more steps than tokens: a beam search may go on after
            its best text has ended, and a text may be cut, see `first`.
        negative_steps: number of steps up to and including the last one that ran a negative branch.
        others: the next best texts of a beam search with n_best above 1, best first.
    """

    request: Request
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    trace: Trace
    steps: int
    negative_steps: int
    others: tuple[Completion, ...] = ()

    @property
    def text_tokens(self) -> tuple[int, ...]:
        """The tokens of the text: `tokens` without the stop token."""
        return self.tokens[:-1] if self.tokens and self.tokens[-1] in self.request.stop_ids else self.tokens

    def first(self, count: int) -> Completion:
        """The completion with only its first `count` tokens and their trace.

        The numbers of steps stay, because the other tokens were decoded too.
        """
        return replace(self, tokens=self.tokens[:count], trace=self.trace.first(count))

    @property
    def tokens_read(self) -> tuple[int, ...]:
        """Number of tokens that each branch has read, the positive branch first.

        A token that several branches read in a shared row counts once for each branch. Tokens that are chosen
        while a negative branch does not run count too, because the branch reads them when guidance starts
        again.
        """
        positive, *negatives = self.tokens_read_in_full
        unread = self.request.beams * (self.steps - self.negative_steps)
        return (positive, *(tokens - unread if self.negative_steps else 0 for tokens in negatives))

    @property
    def tokens_read_in_full(self) -> tuple[int, ...]:
        """Number of tokens that each branch would have read if no negative branch had stopped early."""
        contexts = self.request.contexts
        return tuple(self.request.beams * (len(ids) + self.steps - 1) for _, ids in contexts)
