"""Beam search: several hypotheses of one request, which run in the same step.

One step of the search:

1. `best_extensions`: from the guided distribution of every hypothesis, find the best pairs of a hypothesis
   and a next token.
2. For each of these pairs, the batch appends the token to a copy of the hypothesis.
3. `advance`: the best `width` extensions that do not end the text become the new hypotheses. An extension
   that ends the text is kept as an ended text only if it is among the best `width` of all extensions.
4. The search is over once no hypothesis has a better score than the ended texts.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple, cast

import torch
from torch import Tensor

from cfg_lab.decoding.completion import Completion, FinishReason
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.request_state import RequestState, finish_reason_of
from cfg_lab.decoding.sampling import BeamSearch
from cfg_lab.decoding.sequence_state import SequenceState
from cfg_lab.guidance.log_probs import FLOOR


class Extension(NamedTuple):
    """A hypothesis with one more token.

    Attributes:
        parent: index of the hypothesis that is extended.
        token: the token that is appended to the hypothesis.
        score: sum of the guided log-probs of all new tokens, including `token`.
    """

    parent: int
    token: int
    score: float


class EndedText(NamedTuple):
    """A text that has ended, with its score after the length penalty."""

    score: float
    sequence: SequenceState
    finish_reason: FinishReason


class BeamState(RequestState):
    """The state of a beam search. `sequences` are its hypotheses (unfinished texts), best first.

    A hypothesis is ranked by the sum of its tokens' guided log-probs. A text that has ended is ranked by this
    sum divided by length ** length_penalty, where length is the number of new tokens, a stop token included.

    Attributes:
        scores: the score of each hypothesis, a sum of log-probs; -inf if the hypothesis must not be extended.
        ended: the best texts that have ended, best first, at most `width`.
        steps: number of steps so far.
        negative_steps: number of steps up to and including the last one that ran a negative branch.
    """

    def __init__(self, request: Request, search: BeamSearch) -> None:
        super().__init__(request, search.width)
        self.search = search
        # All hypotheses are equal before the first token, so only one of them is extended.
        self.scores = [0.0] + [-math.inf] * (search.width - 1)
        self.ended: list[EndedText] = []
        self.steps = self.negative_steps = 0

    def best_extensions(self, guided: Tensor) -> list[Extension]:
        """The best extensions of all hypotheses, best first.

        An extension is a hypothesis with one more token. At least `width` of the returned extensions do not
        end the text, unless fewer than `width` such extensions exist.

        Args:
            guided: [width, vocab], guided log-probs of the next token, one row per hypothesis.
        """
        vocab = guided.shape[1]
        parent_scores = torch.tensor(self.scores, dtype=torch.float64, device=guided.device)
        possible = guided.masked_fill(guided <= FLOOR, -math.inf)
        scores = (parent_scores[:, None] + possible).flatten()  # [width * vocab]
        count = 2 * self.search.width
        while True:
            best_scores, indices = scores.topk(min(count, len(scores)))
            ranked = zip(
                cast("list[int]", indices.tolist()), cast("list[float]", best_scores.tolist()), strict=True
            )
            # Leave out impossible tokens and hypotheses that are not extended. NaN stays in: it is reported
            # when the token is recorded.
            extensions = [
                Extension(index // vocab, index % vocab, score)
                for index, score in ranked
                if score != -math.inf
            ]
            reasons = [self._finish_reason_after(extension) for extension in extensions]
            enough = reasons.count(None) >= self.search.width or "length" in reasons
            if enough or count >= len(scores):
                return extensions
            count *= 4  # many of the best extensions end the text, so look at more of them

    def advance(self, extensions: list[Extension], extended: list[SequenceState]) -> list[int]:
        """Replace the hypotheses by the best extensions, and keep the texts that have ended.

        Args:
            extensions: what `best_extensions` returned.
            extended: for each extension its text, that is, a copy of its parent with the token appended.

        Returns:
            For each new hypothesis the index of its parent, the old hypothesis that it extends.
        """
        self.steps += 1
        self.negative_steps = extended[0].negative_steps
        continuing: list[Extension] = []
        for rank, (extension, sequence) in enumerate(zip(extensions, extended, strict=True)):
            reason = finish_reason_of(self.request, sequence.tokens)
            if reason is None and len(continuing) < self.search.width:
                self.sequences[len(continuing)].continue_from(sequence)
                continuing.append(extension)
            elif reason is not None and rank < self.search.width:
                score = extension.score / len(sequence.tokens) ** self.search.length_penalty
                self.ended.append(EndedText(score, sequence, reason))
        self.ended = sorted(self.ended, key=lambda text: -text.score)[: self.search.width]
        if self._is_over(continuing):
            self.finish_reason = self.ended[0].finish_reason
            return [0] * self.search.width
        # With a small vocabulary there may be fewer extensions than hypotheses. The remaining hypotheses
        # repeat the first one and are not extended.
        missing = self.search.width - len(continuing)
        for hypothesis in self.sequences[len(continuing) :]:
            hypothesis.continue_from(self.sequences[0])
        self.scores = [extension.score for extension in continuing] + [-math.inf] * missing
        return [extension.parent for extension in continuing] + [continuing[0].parent] * missing

    def completion(self) -> Completion:
        """The completion of the best ended text. Its `others` are the next best ended texts."""
        best, *others = [
            text.sequence.completion(text.finish_reason) for text in self.ended[: self.search.n_best]
        ]
        return replace(best, others=tuple(others), steps=self.steps, negative_steps=self.negative_steps)

    def _finish_reason_after(self, extension: Extension) -> FinishReason | None:
        """Why the text of an extension has ended ("stop" or "length"); None if it has not ended."""
        return finish_reason_of(self.request, [*self.sequences[extension.parent].tokens, extension.token])

    def _is_over(self, continuing: list[Extension]) -> bool:
        """Whether the search is over.

        It is over if no hypothesis is left. It is also over if `width` texts have ended and no hypothesis has
        a better score than the worst of these texts. With early stopping, the search is over as soon as
        `width` texts have ended. The score of a hypothesis is computed with its present length, as if its
        text ended now.

        Args:
            continuing: the extensions that become the new hypotheses, best first.
        """
        if not continuing:
            return True
        if len(self.ended) < self.search.width:
            return False
        length = len(self.sequences[0].tokens)
        best_score = continuing[0].score / length**self.search.length_penalty
        return self.search.early_stopping or self.ended[-1].score >= best_score
