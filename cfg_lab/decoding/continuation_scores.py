"""Likelihoods of given continuations under every guidance rule of a grid.

Each branch runs once, whatever the number of rules (see `text_logits`). What a rule adds is its formula.
Classifier-free guidance adds the least, because its formula is linear:

    guided = positive + (scale - 1) * change,   log Z = logsumexp(guided)

`change` is the same for all scales. So a scale costs one sum and one exponential per token of the vocabulary.
They are computed in place and in blocks of rows that fit the cache of a CPU core.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from cfg_lab.decoding.measurements import divergence
from cfg_lab.decoding.model import CausalModel, NotANumberError
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.teacher_forcing import ScalePlan, branch_weights
from cfg_lab.decoding.text_logits import GivenText, text_logits
from cfg_lab.guidance import ClassifierFreeGuidance, Guidance, NotAdaptive, log_probs
from cfg_lab.guidance.rule import guide_at

_BLOCK_NUMBERS = 100_000
"""Number of float32 values in a block: the cache of a CPU core holds several such blocks."""

_SMALLEST = -80.0
"""Log-prob, relative to the likeliest token, from which on probabilities are rounded up to e**-80.

That does not change float32 sums. Below -87 the results of `exp` are subnormal numbers, with which CPUs
calculate up to 80 times as slowly.
"""


@dataclass(frozen=True, kw_only=True)
class ContinuationScore:
    """Log-likelihoods of one continuation, in nats: sums of the log-probs of its tokens.

    The score of Sanchez et al. 2023 (arXiv:2306.17806) in benchmarks is not normalised. For a scale γ it is
    γ * positive + (1 - γ) * sum_k w_k * negatives[k], with weights w_k whose absolute values sum to 1.

    Attributes:
        positive: under the positive branch.
        negatives: under each negative branch, in order.
        guided: under each rule of the grid, in order. The distribution of each token is normalised.
        greedy: for each rule, whether every token is the likeliest one, so that greedy decoding would give
            this continuation. Of equally likely tokens the first of the vocabulary counts.
    """

    positive: float
    negatives: tuple[float, ...]
    guided: tuple[float, ...]
    greedy: tuple[bool, ...]


@torch.inference_mode()
def score_continuations(
    models: Mapping[str | None, CausalModel],
    requests: Sequence[Request],
    continuations: Sequence[tuple[int, ...]],
    guidances: Sequence[Guidance],
    on_item: Callable[[int], None] | None = None,
) -> list[ContinuationScore]:
    """See `Decoder.score`.

    Args:
        models: maps a name to a model. Branches refer to models by these names. The key None stands for the
            model that runs the positive contexts.
    """
    unfinished: dict[int, _Sums] = {}
    scores: dict[int, ContinuationScore] = {}
    texts = [
        GivenText(request.contexts_with(request.negatives), tokens)
        for request, tokens in zip(requests, continuations, strict=True)
    ]
    for parts in text_logits(models, texts):
        for number, tokens, logits in parts:
            if number not in unfinished:
                unfinished[number] = _Sums(models, requests[number], guidances)
            sums = unfinished[number]
            sums.add(tokens, logits)
            if sums.length == len(continuations[number]):
                scores[number] = unfinished.pop(number).score()
        if on_item is not None:
            on_item(len(scores))
    return [scores[number] for number in range(len(texts))]


class _Sums:
    """The log-likelihoods of one continuation so far.

    Args:
        guidances: the rules of the grid.

    Attributes:
        length: number of tokens so far.
    """

    def __init__(
        self, models: Mapping[str | None, CausalModel], request: Request, guidances: Sequence[Guidance]
    ) -> None:
        self.request, self.guidances = request, guidances
        self.names = [models[name].name for name in (None, *(branch.model for branch in request.negatives))]
        self.length = 0
        self.branches = [0.0] * len(self.names)
        self.guided = [0.0] * len(guidances)
        self.greedy = [True] * len(guidances)
        self.plans = [ScalePlan(guidance if request.negatives else None) for guidance in guidances]

    def score(self) -> ContinuationScore:
        positive, *negatives = self.branches
        return ContinuationScore(
            positive=positive,
            negatives=tuple(negatives),
            guided=tuple(self.guided),
            greedy=tuple(self.greedy),
        )

    def add(self, tokens: tuple[int, ...], logits: list[Tensor]) -> None:
        """Add the next tokens.

        Args:
            logits: one tensor [tokens, vocab] per branch, the positive branch first.

        Raises:
            NotANumberError: a logit is not a number.
        """
        chosen = torch.tensor(tokens, device=logits[0].device)[:, None]  # [tokens, 1]
        of_branches = logits[0].new_empty(
            len(logits), len(tokens), dtype=torch.float32
        )  # log-probs of tokens
        of_rules = of_branches.new_empty(len(self.guidances), len(tokens))
        vocab = logits[0].shape[1]
        rows = max(1, _BLOCK_NUMBERS // vocab) if chosen.device.type == "cpu" else len(tokens)
        for begin in range(0, len(tokens), rows):
            block = slice(begin, begin + rows)
            log_probs_of_branches = [log_probs(of_branch[block]) for of_branch in logits]
            for branch, of_branch in enumerate(log_probs_of_branches):
                of_branches[branch, block] = of_branch.gather(1, chosen[block])[:, 0]
            self._guide(log_probs_of_branches, chosen[block], of_rules[:, block], self.length + begin)
        for branch, name in enumerate(self.names):
            nats = float(of_branches[branch].double().sum())
            if math.isnan(nats):
                step = self.length + int(of_branches[branch].isnan().int().argmax())
                raise NotANumberError(name, self.request, step)
            self.branches[branch] += nats
        for rule, nats in enumerate(cast("list[float]", of_rules.double().sum(1).tolist())):
            self.guided[rule] += nats
        self.length += len(tokens)

    def _guide(self, branches: list[Tensor], chosen: Tensor, of_rules: Tensor, first: int) -> None:
        """Compute the guided log-probs of the tokens of one block, and compare them with the likeliest ones.

        Args:
            branches: log-probs [rows, vocab] of each branch, the positive branch first.
            chosen: the tokens, [rows, 1].
            of_rules: [rules, rows], for the results.
            first: number of tokens of the continuation before this block.
        """
        positive = branches[0]
        negatives = torch.stack(branches[1:], 1) if len(branches) > 1 else positive[:, None][:, :0]
        weights = branch_weights(self.request.negatives, positive)
        divergences = positive.new_full((len(chosen),), math.nan)
        if any(plan.needs_divergences for plan in self.plans):
            divergences = divergence(positive, negatives, weights)
        scales = positive.new_tensor([plan.next_scales(divergences) for plan in self.plans])  # [rules, rows]
        changes: dict[bool, Tensor] = {}  # of classifier-free guidance, with and without normalised weights
        memory = torch.empty_like(positive)
        steps = torch.arange(first, first + len(chosen), device=chosen.device)
        for number, guidance in enumerate(self.guidances):
            if isinstance(guidance, ClassifierFreeGuidance) and _is_plain(guidance):
                normalise = guidance.normalise_weights
                if normalise not in changes:
                    changes[normalise] = guidance.change(positive, negatives, weights)
                strength = scales[number][:, None] - 1
                guided = torch.addcmul(positive, changes[normalise], strength, out=memory)
                log_prob = guided.gather(1, chosen)
                largest = self._compare(number, guided, chosen, log_prob)
                probs = guided.sub_(largest).clamp_(min=_SMALLEST).exp_()  # relative to the likeliest token
                log_prob = log_prob - largest - probs.sum(1, keepdim=True).log_()
            else:
                guided = positive
                if self.request.negatives:
                    guided, _ = guide_at(guidance, positive, negatives, weights, scales[number], steps)
                log_prob = guided.gather(1, chosen)
                self._compare(number, guided, chosen, log_prob)
            of_rules[number] = log_prob[:, 0]

    def _compare(self, number: int, guided: Tensor, chosen: Tensor, of_chosen: Tensor) -> Tensor:
        """Record whether the tokens are the likeliest under a rule. Return the largest values, [rows, 1].

        Args:
            guided: [rows, vocab], log-probs that need not be normalised.
            chosen: the tokens, [rows, 1].
            of_chosen: the values of the tokens in `guided`, [rows, 1].
        """
        largest = guided.amax(1, keepdim=True)
        if self.greedy[number]:
            # `argmax` is slow on CPUs, and only needed where several tokens may have the largest value.
            self.greedy[number] = bool((of_chosen == largest).all()) and bool(
                (guided.argmax(1, keepdim=True) == chosen).all()
            )
        return largest


def _is_plain(guidance: ClassifierFreeGuidance) -> bool:
    """Whether nothing but the formula, schedule and stopping changes the distributions."""
    return (
        type(guidance) is ClassifierFreeGuidance
        and not guidance.modifiers
        and isinstance(guidance.adaptive, NotAdaptive)
    )
