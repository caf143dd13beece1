"""Traces of given texts by teacher forcing: one forward per branch instead of one per token.

1. Every branch reads its context and the text. It predicts each token of the text from the tokens before it.
2. The schedule and the divergences of the tokens so far give the guidance scale of each token.
3. Guidance combines the branches at each token, as in decoding.

The result equals the trace of decoding, because decoding also predicts each token from the tokens before it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import islice
from typing import cast

import torch
from torch import Tensor

from cfg_lab.decoding.distributions import Distributions, guide
from cfg_lab.decoding.measurements import divergence, measure
from cfg_lab.decoding.model import CausalModel
from cfg_lab.decoding.request import Branch, Request
from cfg_lab.decoding.text_logits import GivenText, text_logits
from cfg_lab.decoding.trace import NEGATIVE_FIELDS, TRACE_FIELDS, Trace
from cfg_lab.decoding.transfer import to_device
from cfg_lab.guidance import Guidance, log_probs
from cfg_lab.guidance.rule import Rule, is_off
from cfg_lab.guidance.stopping import NeverStop


@torch.inference_mode()
def trace_texts(
    models: Mapping[str | None, CausalModel], texts: Sequence[tuple[Request, tuple[int, ...]]]
) -> list[Trace]:
    """One trace per text, in order: the trace that decoding would record if it chose the text's tokens.

    Args:
        models: maps a name to a model. Branches refer to models by these names. The key None stands for the
            model that runs the positive contexts.
        texts: requests, and the new tokens that follow each of them.

    Raises:
        InputError: a text is empty.
    """
    plans = [ScalePlan(request.guidance if request.branches else None) for request, _ in texts]
    steps: dict[int, list[list[float]]] = defaultdict(list)  # trace values of each token of each text
    given = [GivenText(request.contexts, tokens) for request, tokens in texts]
    for parts in text_logits(models, given):
        values = [
            _trace_values(texts[part.number][0], plans[part.number], part.tokens, part.branches)
            for part in parts
        ]
        rows = iter(cast("list[list[float]]", torch.cat(values).tolist()))  # one copy from the device
        for part in parts:
            steps[part.number] += islice(rows, len(part.tokens))
    return [Trace.from_steps(steps[number]) for number in range(len(texts))]


def _trace_values(request: Request, plan: ScalePlan, tokens: tuple[int, ...], logits: list[Tensor]) -> Tensor:
    """The trace values of consecutive tokens of a text, [tokens, fields].

    Args:
        plan: gives the scales of these tokens.
        logits: one tensor [tokens, vocab] per branch, the positive branch first.
    """
    step, planned = guide_text(plan, request.branches, logits)
    numbers = measure(step, to_device(torch.tensor(tokens), logits[0].device))
    # Decoding runs no negative while guidance is off, so the negatives' numbers are NaN there.
    is_of_negatives = torch.tensor([field in NEGATIVE_FIELDS for field in TRACE_FIELDS])
    is_not_run = is_off(planned)[:, None] & to_device(is_of_negatives, planned.device)
    return numbers.masked_fill_(is_not_run, math.nan)


def guide_text(
    plan: ScalePlan, branches: Sequence[Branch], logits: list[Tensor]
) -> tuple[Distributions, Tensor]:
    """The distributions of all branches at consecutive tokens of a text, and the guided ones.

    Args:
        plan: gives the scales of these tokens.
        branches: the negative branches.
        logits: one tensor [tokens, vocab] per branch, the positive branch first.

    Returns:
        The distributions [tokens, vocab], and the scales [tokens] that the rule planned.
    """
    positive, *others = logits
    negatives = torch.stack(others, 1) if others else positive[:, None][:, :0]  # [tokens, branches, vocab]
    weights = branch_weights(branches, positive)
    divergences = torch.full((len(positive),), math.nan)  # on the host, which reads it
    if plan.needs_divergences:
        divergences = divergence(log_probs(positive), log_probs(negatives), weights)
    steps = torch.arange(plan.length, plan.length + len(positive), device=positive.device)
    scales = to_device(torch.tensor(plan.next_scales(divergences), dtype=torch.float32), positive.device)
    return guide(plan.guidance, positive, negatives, weights, scales, steps), scales


def branch_weights(branches: Sequence[Branch], like: Tensor) -> Tensor:
    """The weights of negative branches, [tokens, branches], for logits [tokens, vocab] of the positive."""
    weights = torch.tensor([branch.weight for branch in branches], dtype=torch.float32)
    return to_device(weights, like.device).expand(len(like), -1)


class ScalePlan:
    """The guidance scales of the tokens of one text: those of the schedule, until the rule ends guidance.

    Args:
        guidance: the rule; None means no guidance.
    """

    def __init__(self, guidance: Guidance | None) -> None:
        self.guidance = guidance
        self._divergences: list[float] = []  # of all tokens so far, NaN where no negative runs in decoding
        self._has_ended = guidance is None

    @property
    def length(self) -> int:
        """Number of tokens so far."""
        return len(self._divergences)

    @property
    def needs_divergences(self) -> bool:
        """Whether scales depend on divergences. They do if the rule can end guidance."""
        guidance = self.guidance
        return not self._has_ended and not (
            isinstance(guidance, Rule) and isinstance(guidance.stopping, NeverStop)
        )

    def next_scales(self, divergences: Tensor) -> list[float]:
        """The scales of the next tokens.

        Args:
            divergences: KL(positive || negative) at each of these tokens, in nats. NaN if it is not needed.
        """
        scales: list[float] = []
        for nats in cast("list[float]", divergences.tolist()):
            guidance, step = self.guidance, len(self._divergences)
            if guidance is not None and step and not self._has_ended:
                self._has_ended = guidance.has_ended(self._divergences)
            scale = 1.0 if guidance is None or self._has_ended else guidance.scale_at(step)
            scales.append(scale)
            self._divergences.append(math.nan if is_off(scale) else nats)
        return scales
