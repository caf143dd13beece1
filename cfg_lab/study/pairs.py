"""Pairs of a context and a continuation, of which a benchmark needs the log-likelihood.

The benchmark has already chosen few-shot examples and a chat template, and has truncated the context.
`requests_of_pairs` adds the negative contexts. So lm-eval and the lab's own benchmark score equal requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from cfg_lab.decoding.continuation_scores import ContinuationScore
from cfg_lab.decoding.request import Branch, Request
from cfg_lab.errors import InputError
from cfg_lab.guidance import ClassifierFreeGuidance, Guidance
from cfg_lab.guidance.rule import is_off
from cfg_lab.models import LanguageModel
from cfg_lab.negatives import Negative
from cfg_lab.prompts import Prompt


@dataclass(frozen=True, kw_only=True)
class PromptContext:
    """The token ids of a context, and the prompt in it.

    Attributes:
        ids: the token ids that the positive branch reads; at least one.
        text: the prompt, from which negatives are made. It is the text of all `ids`. If the context is a
            chat, it is the last message of the user.
        encode: returns the token ids that the context would have with another prompt instead of `text`.
        chat: whether the context was rendered with a chat template.
    """

    ids: tuple[int, ...]
    text: str
    encode: Callable[[str], Sequence[int]] = field(repr=False, compare=False)
    chat: bool = False


class Pair(NamedTuple):
    """A context, and the token ids of one continuation; at least one token each."""

    context: PromptContext
    continuation: tuple[int, ...]


def requests_of_pairs(model: LanguageModel, negatives: Negative, pairs: Sequence[Pair]) -> list[Request]:
    """One request per pair, in the order of the pairs, for `Decoder.score`.

    The decoder appends the token ids of the continuation to every context, positive or negative, unchanged.
    The negative `last_token` is the last token of the context, as in Sanchez et al. 2023 (arXiv:2306.17806).
    The negative `empty` is the context with an empty prompt. If the context is a chat, this is a chat with an
    empty message of the user, else it is the beginning-of-sequence token. All other negatives are made of
    `PromptContext.text` as in a sweep.

    Args:
        model: reads the contexts.
        negatives: what to steer away from. A decoder of the requests needs `negatives.other_models()`.

    Raises:
        InputError: a context lacks something that the negatives need.
    """
    contexts = {context for context, _ in pairs}  # the answers to one question have the same context
    branches = {context: negative_branches(model, negatives, context) for context in contexts}
    return [Request(positive=context.ids, negatives=branches[context]) for context, _ in pairs]


def negative_branches(
    model: LanguageModel, negatives: Negative, context: PromptContext
) -> tuple[Branch, ...]:
    """The negative branches of a context; see `requests_of_pairs`."""
    end = context.text[-40:]
    return negatives.branches(Prompt(id=f"…{end}", text=context.text), _ContextEncoder(model, context))


@dataclass(frozen=True)
class _ContextEncoder:
    """The prompt encoder of one context: its prompts get the token ids that they have in this context.

    The encoders of one model are equal. So `ModelNegative` compares the vocabulary of a model, which can take
    seconds, only once for all contexts.
    """

    model: LanguageModel
    context: PromptContext = field(compare=False)

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def bos(self) -> tuple[int, ...]:
        return self.model.bos

    @property
    def chat(self) -> bool:
        return self.context.chat

    @property
    def vocabulary(self) -> dict[str, int]:
        return self.model.vocabulary

    def encode(self, text: str, system: str | None = None) -> tuple[int, ...]:
        if system is not None:
            raise InputError(
                f"negatives.system is {system!r}, but the system message of a benchmark's context belongs to "
                "the benchmark; leave it unset and write the instruction into negatives.template"
            )
        if text == self.context.text:
            return self.context.ids
        return tuple(self.context.encode(text)) or self.bos

    def encode_suffix(self, text: str) -> tuple[int, ...]:
        return self.model.encode_suffix(text)


def check_raw(guidance: Guidance) -> ClassifierFreeGuidance:
    """Return the rule if it is plain classifier-free guidance, of which `raw_log_likelihood` is defined.

    Raises:
        InputError: it is another rule, or has a schedule, an adaptive strength, modifiers or a stopping rule.
    """
    if isinstance(guidance, ClassifierFreeGuidance) and guidance == ClassifierFreeGuidance(
        scale=guidance.scale, normalise_weights=guidance.normalise_weights
    ):
        return guidance
    raise InputError(
        "score=raw is defined for plain classifier-free guidance (guidance=cfg, without schedule, adaptive "
        f"strength, modifiers and stopping), got {guidance!r}; use score=normalised"
    )


def raw_log_likelihood(guidance: ClassifierFreeGuidance, request: Request, score: ContinuationScore) -> float:
    """The score of a continuation in Sanchez et al. 2023: a sum over its tokens that is never normalised.

        sum_t scale * positive_t + (1 - scale) * negative_t

    It is no log-likelihood, because the probabilities of all continuations do not sum to 1. It equals

        log p(y | x) + (scale - 1) * (log p(y | x) - log p(y | negative))

    whose second term is a multiple of the pointwise mutual information. The formula is linear, so the rule's
    own formula is applied to the sums over the tokens.

    Args:
        guidance: plain classifier-free guidance; see `check_raw`.
        request: the request that was scored.
        score: its score by `Decoder.score`.
    """
    if is_off(guidance.scale) or not request.negatives:
        return score.positive
    positive, negatives, weights, scale = (
        torch.tensor(numbers, dtype=torch.float64)
        for numbers in (
            [[score.positive]],
            [[[of_branch] for of_branch in score.negatives]],
            [[branch.weight for branch in request.negatives]],
            [[guidance.scale]],
        )
    )
    return float(guidance.combine(positive, negatives, weights, scale))
