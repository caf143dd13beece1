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
