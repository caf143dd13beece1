"""Guided decoding by brute force: no cache, no batch, and the formula as in the paper."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from cfg_lab.guidance.rule import guide_at


def log_probs(model: Any, ids: Sequence[int]) -> Tensor:
    """Log-probs [vocab] of the token after ids."""
    with torch.no_grad():
        return model(torch.tensor([list(ids)])).logits[0, -1].float().log_softmax(-1)


def guided(
    model: Any,
    positive: Sequence[int],
    negatives: Sequence[Sequence[int]],
    weights: Sequence[float],
    scale: float,
) -> Tensor:
    """positive + (scale - 1) * sum_k w_k (positive - negative_k), as normalised log-probs [vocab].

    The weights are divided by the sum of their absolute values.
    """
    positive_log_probs = log_probs(model, positive)
    total = sum(abs(weight) for weight in weights)
    combined = positive_log_probs.clone()
    for negative, weight in zip(negatives, weights, strict=True):
        difference = positive_log_probs - log_probs(model, negative)
        combined += (scale - 1) * weight / total * difference
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
    """The new tokens of classifier-free guidance, up to and including the stop token."""
    tokens: list[int] = []
    while len(tokens) < steps and (not tokens or tokens[-1] != stop):
        distribution = guided(
            model, [*positive, *tokens], [[*negative, *tokens] for negative in negatives], weights, scale
        )
        tokens.append(choose(distribution))
    return tokens


def guided_by(rule: Any, request: Any, models: dict[str | None, Any], tokens: Sequence[int]) -> Tensor:
    """The guided log-probs [vocab] after these new tokens, by any rule.

    Args:
        models: the model of every branch by name; None is the model of the positive context.
    """
    contexts = [(None, request.positive), *((branch.model, branch.ids) for branch in request.negatives)]
    rows = [log_probs(models[name], [*ids, *tokens]) for name, ids in contexts]
    vocab = min(map(len, rows))  # models may pad the same vocabulary to different sizes
    positive, *negatives = [row[:vocab].log_softmax(-1) for row in rows]
    if not negatives:
        return positive
    weights = torch.tensor([[branch.weight for branch in request.negatives]])
    scale = torch.tensor([rule.scale_at(len(tokens))])
    steps = torch.tensor([len(tokens)])
    return guide_at(rule, positive[None], torch.stack(negatives)[None], weights, scale, steps)[0][0]


def decode_by(rule: Any, request: Any, models: dict[str | None, Any]) -> list[int]:
    """The new tokens of greedy decoding, by any rule."""
    tokens: list[int] = []
    while len(tokens) < request.max_new_tokens and not (tokens and tokens[-1] in request.stop_ids):
        tokens.append(int(guided_by(rule, request, models, tokens).argmax()))
    return tokens


def beam_search(
    rule: Any, request: Any, models: dict[str | None, Any], search: Any
) -> list[tuple[list[int], float]]:
    """The `n_best` texts of a beam search with their scores, best first."""
    unfinished: list[tuple[list[int], float]] = [([], 0.0)]
    finished: list[tuple[list[int], float]] = []
    while unfinished:
        extended = [
            ([*tokens, token], score + log_prob)
            for tokens, score in unfinished
            for token, log_prob in enumerate(guided_by(rule, request, models, tokens).double().tolist())
            if log_prob > -1e4  # not excluded by the rule
        ]
        extended.sort(key=lambda scored: -scored[1])
        unfinished = []
        for rank, (tokens, score) in enumerate(extended):
            if tokens[-1] in request.stop_ids or len(tokens) == request.max_new_tokens:
                if rank < search.width:
                    finished.append((tokens, score / len(tokens) ** search.length_penalty))
            elif len(unfinished) < search.width:
                unfinished.append((tokens, score))
        finished = sorted(finished, key=lambda scored: -scored[1])[: search.width]
        if len(finished) == search.width and unfinished:
            tokens, score = unfinished[0]
            if finished[-1][1] >= score / len(tokens) ** search.length_penalty:
                break
    return finished[: search.n_best]
