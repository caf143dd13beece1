"""The values that flow through the lab: prompts go in, requests are decoded, completions are scored.

All are frozen. Token ids are plain tuples of int, so a record hashes, compares and prints as itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any, Literal

from cfg_lab.inline import token_html

if TYPE_CHECKING:
    from cfg_lab.guidance import Guidance
    from cfg_lab.sampling import BeamSearch, Sampler

FinishReason = Literal["stop", "length"]


class InputError(ValueError):
    """Something the user wrote is wrong. The message names the key, the value and what would be right;
    the command line shows it without a traceback."""


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """A text to continue or an instruction to follow.

    Attributes:
        id: unique in its set; names the prompt in every table.
        text: what the model is asked.
        negative: its own negative prompt, weighted phrases ("sad:0.8, bleak"), used by ``negatives=own``.
        attribute: what guidance away from `negative` should bring; a label for reports.
        system: system message for chat models; None leaves the model's own default.
        reference: a known good answer, for metrics that compare with one.
    """

    id: str
    text: str
    negative: str | None = None
    attribute: str | None = None
    system: str | None = None
    reference: str | None = None


@dataclass(frozen=True)
class Branch:
    """One negative context the model runs on at every step.

    Attributes:
        ids: token ids of the context.
        weight: finite; its share among the request's negatives. Below zero it attracts.
        model: fingerprint of the model that runs it; None is the model that runs the positive context.
    """

    ids: tuple[int, ...]
    weight: float = 1.0
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """One text to decode, as token ids.

    Attributes:
        positive: the context to continue, at least one token.
        negatives: contexts to steer away from, at most one branch each.
        guidance: the rule that combines the branches; None decodes the positive context alone.
        sampling: how tokens are chosen from the guided distribution; None is greedy.
        max_new_tokens: at least 1.
        stop_ids: a token among these ends the text (it is kept as the last token).
        stop_when: an optional predicate over the new tokens so far; True ends the text. Its repr is part
            of the request's id.
        seed, sample: with the positive context they determine the sampling noise, nothing else does.
        top: how many of the likeliest tokens the trace keeps of each step and distribution.
    """

    positive: tuple[int, ...]
    negatives: tuple[Branch, ...] = ()
    guidance: Guidance | None = None
    sampling: Sampler | BeamSearch | None = None
    max_new_tokens: int = 128
    stop_ids: frozenset[int] = frozenset()
    stop_when: Callable[[Sequence[int]], bool] | None = field(default=None, compare=False)
    seed: int = 0
    sample: int = 0
    top: int = 0

    def __post_init__(self) -> None:
        for name, ids in [("positive", self.positive), *(("negative", n.ids) for n in self.negatives)]:
            if not ids:
                raise InputError(
                    f"the {name} context is empty; a context has at least one token (BOS will do)"
                )
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if self.top < 0:
            raise InputError(f"top must be at least 0 (keeps none), got {self.top}")
        weights = [negative.weight for negative in self.negatives]
        if weights and not (all(map(math.isfinite, weights)) and any(weights)):
            raise InputError(f"weights of negatives must be finite and not all 0, got {weights}")

    @cached_property
    def branches(self) -> tuple[Branch, ...]:
        """The negatives that have to be run at some step: none where guidance is off at all of them."""
        guidance = self.guidance
        if guidance is None or all(guidance.scale_at(step) == 1 for step in range(self.max_new_tokens)):
            return ()
        return self.negatives

    @cached_property
    def contexts(self) -> tuple[tuple[str | None, tuple[int, ...]], ...]:
        """Model and token ids of the positive context and of every negative that runs at some step."""
        return ((None, self.positive), *((branch.model, branch.ids) for branch in self.branches))

    @property
    def beams(self) -> int:
        """Hypotheses followed at once."""
        return getattr(self.sampling, "width", 1)

    def id(self, model_fingerprint: str) -> str:
        """Content address of the completion: equal ids, equal text. 32 hex digits."""
        parts = [
            model_fingerprint,
            self.positive,
            [(branch.ids, float(branch.weight), branch.model) for branch in self.branches],
            self.guidance if self.branches else None,
            self.sampling,
            self.max_new_tokens,
            sorted(self.stop_ids),
            self.stop_when,
            (self.seed, self.sample) if self.sampling is not None and self.sampling.random else None,
            self.top,
        ]
        return blake2b("|".join(map(repr, parts)).encode(), digest_size=16).hexdigest()

    @cached_property
    def noise_key(self) -> int:
        """A 63-bit key of (seed, positive context, sample).

        Guidance is not in it: requests that differ only in guidance share their noise, so that paired
        comparisons have less variance (common random numbers).
        """
        text = f"{self.seed}|{self.sample}|{','.join(map(str, self.positive))}"
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1


@dataclass(frozen=True, kw_only=True)
class Alternatives:
    """The likeliest tokens of a step: (token, log-prob) pairs of each distribution, likeliest first.

    `negative` is empty where no negative ran; of several it is their weighted mean.
    """

    guided: tuple[tuple[int, float], ...]
    positive: tuple[tuple[int, float], ...]
    negative: tuple[tuple[int, float], ...]


@dataclass(frozen=True, kw_only=True)
class Trace:
    """What guidance did at each new token. All tuples are as long as the completion; logs are natural.

    Attributes:
        guided: log-prob of the token under the guided distribution, before temperature and truncation.
        positive: the same under the positive branch alone.
        negative: the same under the negatives' weighted mean; NaN where none ran.
        entropy: of the guided distribution, nats.
        divergence: KL(positive || negative), nats; of several negatives the mean by their weights' sizes, NaN
            where none ran.
        scale: guidance scale in force, 1 where guidance is off.
        alternatives: what else was likely, for requests with `top`; else empty.
    """

    guided: tuple[float, ...]
    positive: tuple[float, ...]
    negative: tuple[float, ...]
    entropy: tuple[float, ...]
    divergence: tuple[float, ...]
    scale: tuple[float, ...]
    alternatives: tuple[Alternatives, ...] = ()

    @classmethod
    def of(cls, steps: Sequence[Sequence[float]], alternatives: Sequence[Alternatives] = ()) -> Trace:
        """From a row of numbers a step, in the order of the fields."""
        guided, positive, negative, entropy, divergence, scale = map(tuple, zip(*steps, strict=True))
        return cls(
            guided=guided,
            positive=positive,
            negative=negative,
            entropy=entropy,
            divergence=divergence,
            scale=scale,
            alternatives=tuple(alternatives),
        )

    @property
    def columns(self) -> dict[str, tuple[float, ...]]:
        """The numbers by their names, as a table of the tokens has them."""
        return {name: values for name, values in vars(self).items() if name != "alternatives"}

    def likeliest(self, piece: Callable[[int], str]) -> dict[str, list[list[dict[str, Any]]]]:
        """The alternatives as text: of "guided", "positive" and "negative" for each new token the likeliest
        ones, {"token": id, "piece": text, "log_prob": nats}; empty lists where none were kept.

        Args:
            piece: the text of a token.
        """
        return {
            name: [
                [
                    {"token": token, "piece": piece(token), "log_prob": log_prob}
                    for token, log_prob in getattr(step, name)
                ]
                for step in self.alternatives
            ]
            for name in ("guided", "positive", "negative")
        }


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What came of a request: its new tokens (a stop token included), why they end, how they came about.

    Attributes:
        steps: that were run for it: its length, or more where a beam search went on.
        looked: steps until its negatives were last looked at.
        others: the next best texts of a beam search with n_best above 1, best first.
    """

    request: Request
    tokens: tuple[int, ...]
    finish_reason: FinishReason
    trace: Trace
    steps: int
    looked: int
    others: tuple[Completion, ...] = ()

    def _repr_html_(self) -> str:
        """What a notebook shows: the tokens by their ids, for a completion knows no text."""
        pieces = [f"{token} " for token in self.tokens]
        return token_html(pieces, self.trace.columns, self.trace.likeliest(str))

    @property
    def processed(self) -> tuple[int, ...]:
        """Tokens that each branch's model has read, the positive's first, as if nothing was shared.

        A negative reads on as long as it is looked at; where it pauses it reads later what it has missed.
        """
        own, *others = self.asked
        unread = self.request.beams * (self.steps - self.looked)
        return (own, *(tokens - unread if self.looked else 0 for tokens in others))

    @property
    def asked(self) -> tuple[int, ...]:
        """The same had every negative been run to the end."""
        contexts = self.request.contexts
        return tuple(self.request.beams * (len(ids) + self.steps - 1) for _, ids in contexts)


@dataclass(frozen=True, kw_only=True)
class Text:
    """A completion as a metric sees it.

    Attributes:
        id: content-addressed; the same for the same model, contexts, guidance, sampling, seed and sample.
        text: new text only, without stop token or stop string.
        tokens: ids of the new tokens, a stop token included.
        log_probs: log-prob of each token under the unguided model given the prompt, nats.
        guided_log_probs: the same under the guided distribution, before temperature and truncation.
        finish_reason: "stop" or "length".
        processed: tokens that the model of each branch has read for it, the positive's first.
        asked: the same had every negative run to the end.
        parameters: of each branch's model.
    """

    id: str
    prompt: Prompt
    text: str
    tokens: tuple[int, ...]
    log_probs: tuple[float, ...]
    finish_reason: FinishReason
    guided_log_probs: tuple[float, ...] = ()
    processed: tuple[int, ...] = ()
    asked: tuple[int, ...] = ()
    parameters: tuple[int, ...] = ()
