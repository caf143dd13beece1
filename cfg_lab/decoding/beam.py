"""Beam search: several hypotheses of one request, each a sequence of the batch."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple, cast

import torch
from torch import Tensor

from cfg_lab.decoding.completion import Completion, FinishReason
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.sampling import BeamSearch
from cfg_lab.decoding.sequence import Sequence, ending
from cfg_lab.guidance.log_probs import FLOOR


class Extension(NamedTuple):
    """A token after a hypothesis, and the sum of the log-probs of all its tokens."""

    parent: int
    token: int
    score: float


class Beam:
    """The hypotheses of one request, best first, and the texts that have ended.

    While it goes on a hypothesis counts by the sum of its tokens' guided log-probs; a text that has ended by
    that sum divided by its length (in new tokens, a stop token included) to the power of length_penalty.
    """

    def __init__(self, request: Request, search: BeamSearch) -> None:
        self.request, self.search = request, search
        self.hypotheses = [Sequence(request, beam=self) for _ in range(search.width)]
        self.scores = [0.0] + [-math.inf] * (search.width - 1)  # at first all are the same: one counts
        self.ended: list[tuple[float, Sequence, FinishReason]] = []  # best first, at most width
        self.finish_reason: FinishReason | None = None
        self.steps = self.negative_steps = 0  # run so far, and until negatives were last looked at

    def choose(self, guided: Tensor) -> list[Extension]:
        """The likeliest extensions, best first, as many as are needed to go on.

        guided [width, vocab] are the log-probs of each hypothesis' next token.
        """
        vocab = guided.shape[1]
        own = torch.tensor(self.scores, dtype=torch.float64, device=guided.device)
        possible = guided.masked_fill(guided <= FLOOR, -math.inf)
        scores = (own[:, None] + possible).flatten()
        count = 2 * self.search.width
        while True:
            best, places = scores.topk(min(count, len(scores)))
            found = [
                Extension(place // vocab, place % vocab, score)
                for place, score in zip(
                    cast("list[int]", places.tolist()), cast("list[float]", best.tolist()), strict=True
                )
                if score != -math.inf  # impossible tokens, hypotheses that do not count; not a number does
            ]
            ended = [self._ending(extension) for extension in found]
            if ended.count(None) >= self.search.width or "length" in ended or count >= len(scores):
                return found
            count *= 4  # many of them end the text

    def advance(self, found: list[Extension], steps: list[Sequence]) -> list[int]:
        """Extend the hypotheses; of the best `width` those that end are put aside.

        Args:
            found: from `choose`.
            steps: for each extension its parent, copied and extended.

        Returns the parent of each hypothesis.
        """
        self.steps += 1
        self.negative_steps = steps[0].negative_steps
        going: list[Extension] = []
        for rank, (extension, extended) in enumerate(zip(found, steps, strict=True)):
            reason = ending(self.request, extended.tokens)
            if reason is None and len(going) < self.search.width:
                self.hypotheses[len(going)].become(extended)
                going.append(extension)
            elif reason is not None and rank < self.search.width:
                score = extension.score / len(extended.tokens) ** self.search.length_penalty
                self.ended.append((score, extended, reason))
        self.ended = sorted(self.ended, key=lambda one: -one[0])[: self.search.width]
        if self._is_over(going):
            self.finish_reason = self.ended[0][2]
            return [0] * self.search.width
        for spare in self.hypotheses[len(going) :]:  # a small vocabulary: the first again, not counting
            spare.become(self.hypotheses[0])
        spares = self.search.width - len(going)
        self.scores = [one.score for one in going] + [-math.inf] * spares
        return [one.parent for one in going] + [going[0].parent] * spares

    def completion(self) -> Completion:
        """The best text, with the next best ones as its `others`."""
        best, *others = [one.completion(reason) for _, one, reason in self.ended[: self.search.n_best]]
        return replace(best, others=tuple(others), steps=self.steps, negative_steps=self.negative_steps)

    def _ending(self, extension: Extension) -> FinishReason | None:
        return ending(self.request, [*self.hypotheses[extension.parent].tokens, extension.token])

    def _is_over(self, going: list[Extension]) -> bool:
        """Whether nothing is left, or what is left cannot beat what has ended by going on as it is."""
        if not going:
            return True
        if len(self.ended) < self.search.width:
            return False
        length = len(self.hypotheses[0].tokens)
        hope = going[0].score / length**self.search.length_penalty
        return self.search.early_stopping or self.ended[-1][0] >= hope
