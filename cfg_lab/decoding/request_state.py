"""A request to the decoder, with the state of its texts while it waits and runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from cfg_lab.decoding.completion import Completion, FinishReason
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.sequence_state import SequenceState
from cfg_lab.guidance.rule import formula_of, is_off


class RequestState:
    """A request that waits for rows, runs, or has finished. `BeamState` is the state of a beam search.

    Attributes:
        formula: what the `guide` of the request's guidance rule depends on; None without a rule.
        sequences: the request's text while it is decoded. There is one sequence, or in a beam search one per
            hypothesis.
        finish_reason: why the text has ended ("stop" or "length"); None if it has not ended.
    """

    def __init__(self, request: Request, width: int = 1) -> None:
        self.request = request
        self.formula = None if request.guidance is None else formula_of(request.guidance)
        self.sequences = [SequenceState(request) for _ in range(width)]
        self.finish_reason: FinishReason | None = None

    @property
    def scale(self) -> float:
        """The guidance scale planned for the next token. If it is 1, guidance is off and no negative runs."""
        guidance = self.request.guidance
        if guidance is None or not self.request.branches:
            return 1.0
        if all(sequence.guidance_has_ended for sequence in self.sequences):
            return 1.0
        return guidance.scale_at(len(self.sequences[0].tokens))

    @property
    def contexts(self) -> tuple[tuple[str | None, tuple[int, ...]], ...]:
        """A pair (model name, token ids) for each branch that the next token needs, the positive first.

        The model name None stands for the model that runs the positive contexts.
        """
        return self.request.contexts[:1] if is_off(self.scale) else self.request.contexts

    @property
    def running_branches(self) -> int:
        """Number of branches that have a row now, the positive branch included; 0 while the request waits."""
        return len(self.sequences[0].rows)

    @property
    def rows_needed(self) -> Counter[str | None]:
        """Number of rows that the next token needs if no row is shared: model name -> number of rows."""
        return Counter([model for model, _ in self.contexts] * len(self.sequences))

    def update_finish_reason(self) -> None:
        """Set `finish_reason` if the text ends with its newest token."""
        self.finish_reason = finish_reason_of(self.request, self.sequences[0].tokens)

    def completion(self) -> Completion:
        """The finished text of the request, with its trace. `finish_reason` must not be None."""
        assert self.finish_reason is not None
        return self.sequences[0].completion(self.finish_reason)


def finish_reason_of(request: Request, tokens: Sequence[int]) -> FinishReason | None:
    """Why the text of a request ends with the last of `tokens` ("stop" or "length"); None if it goes on.

    Args:
        tokens: the new tokens so far, at least one.
    """
    if tokens[-1] in request.stop_ids or (request.stop_when and request.stop_when(tokens)):
        return "stop"
    return "length" if len(tokens) == request.max_new_tokens else None
