"""Guided decoding by brute force: no cache, no batch, the formula as it stands in the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def log_probs(model: Any, ids: Sequence[int]) -> Tensor:
    """Next-token log-probs [vocab] after ids."""
    with torch.no_grad():
        return model(torch.tensor([list(ids)])).logits[0, -1].float().log_softmax(-1)


def guided(
    model: Any,
    positive: Sequence[int],
    negatives: Sequence[Sequence[int]],
    weights: Sequence[float],
    scale: float,
) -> Tensor:
    """positive + (scale - 1) * sum_k w_k (positive - negative_k), weights normalised, as a distribution."""
    own = log_probs(model, positive)
    total = sum(abs(weight) for weight in weights)
    combined = own.clone()
    for negative, weight in zip(negatives, weights, strict=True):
        combined += (scale - 1) * weight / total * (own - log_probs(model, negative))
    return combined.log_softmax(-1)


def decode(
    model: Any,
    positive: Sequence[int],
    negatives: Sequence[Sequence[int]],
    weights: Sequence[float],
    scale: float,
    steps: int,
    stop: int | None = None,
    choose: Callable[[Tensor], int] = lambda distribution: int(distribution.argmax()),
) -> list[int]:
    tokens: list[int] = []
    while len(tokens) < steps and (not tokens or tokens[-1] != stop):
        distribution = guided(
            model, [*positive, *tokens], [[*negative, *tokens] for negative in negatives], weights, scale
        )
        tokens.append(choose(distribution))
    return tokens


def guided_by(rule: Any, request: Any, models: dict[str | None, Any], tokens: Sequence[int]) -> Tensor:
    """The rule applied to the branches' log-probs after these new tokens: log-probs [vocab]."""
    contexts = [(None, request.positive), *((branch.model, branch.ids) for branch in request.negatives)]
    rows = [log_probs(models[name], [*ids, *tokens]) for name, ids in contexts]
    own, *others = [row[: min(map(len, rows))].log_softmax(-1) for row in rows]
    weights = torch.tensor([[branch.weight for branch in request.negatives]])
    scale = torch.tensor([rule.scale_at(len(tokens))])
    return rule.guide(own[None], torch.stack(others)[None], weights, scale)[0][0] if others else own


def decode_by(rule: Any, request: Any, models: dict[str | None, Any]) -> list[int]:
    """Greedy."""
    tokens: list[int] = []
    while len(tokens) < request.max_new_tokens and not (tokens and tokens[-1] in request.stop_ids):
        tokens.append(int(guided_by(rule, request, models, tokens).argmax()))
    return tokens


def beam_search(
    rule: Any, request: Any, models: dict[str | None, Any], search: Any
) -> list[tuple[list[int], float]]:
    """The texts of a beam search with their scores, best first."""
    going: list[tuple[list[int], float]] = [([], 0.0)]
    ended: list[tuple[list[int], float]] = []
    while going:
        extended = [
            ([*tokens, token], score + log_prob)
            for tokens, score in going
            for token, log_prob in enumerate(guided_by(rule, request, models, tokens).double().tolist())
            if log_prob > -1e4  # possible
        ]
        extended.sort(key=lambda one: -one[1])
        going = []
        for rank, (tokens, score) in enumerate(extended):
            if tokens[-1] in request.stop_ids or len(tokens) == request.max_new_tokens:
                if rank < search.width:
                    ended.append((tokens, score / len(tokens) ** search.length_penalty))
            elif len(going) < search.width:
                going.append((tokens, score))
        ended = sorted(ended, key=lambda one: -one[1])[: search.width]
        if len(ended) == search.width and going:
            tokens, score = going[0]
            if ended[-1][1] >= score / len(tokens) ** search.length_penalty:
                break
    return ended[: search.n_best]
