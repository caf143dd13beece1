"""Computes the numbers that a trace keeps of each step, from the distributions of the step."""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor

from cfg_lab.decoding.distributions import Distributions
from cfg_lab.decoding.trace import TRACE_FIELDS, Alternatives
from cfg_lab.guidance.divergences import entropy, kl_divergence
from cfg_lab.guidance.rule import shares


def measure(step: Distributions, tokens: Tensor) -> Tensor:
    """The trace of one step as a tensor [rows, fields]. `Trace` defines the fields and their order.

    Args:
        step: the distributions, one row per chosen token.
        tokens: [rows] int64, the chosen tokens.
    """
    if step.negatives.shape[1]:
        weights = shares(step.weights)  # [rows, branches]
        index = tokens[:, None, None].expand(-1, step.negatives.shape[1], 1)
        negative = _vecdot(weights, step.negatives.gather(2, index)[..., 0])
        nats = divergence(step.positive, step.negatives, step.weights)
    else:
        negative = nats = torch.full_like(step.guided[:, 0], math.nan)
    numbers = {
        "guided": _log_prob_of(tokens, step.guided),
        "positive": _log_prob_of(tokens, step.positive),
        "negative": negative,
        "entropy": entropy(step.guided),
        "divergence": nats,
        "scale": step.scales,
    }
    return torch.stack([numbers[field] for field in TRACE_FIELDS], dim=1)


def divergence(positive: Tensor, negatives: Tensor, weights: Tensor) -> Tensor:
    """The mean of KL(positive || negative) over the negatives of each row, [rows], nats.

    Args:
        positive: log-probs [rows, vocab].
        negatives: log-probs [rows, branches, vocab], at least one branch.
        weights: [rows, branches]. The mean is weighted by their absolute values.
    """
    return _vecdot(shares(weights).abs(), kl_divergence(positive[:, None], negatives))


class Likeliest(NamedTuple):
    """The likeliest tokens of each row under the distributions of a step, likeliest first.

    The distributions are the guided one, the positive branch, and, if negatives run, their weighted mean.
    """

    tokens: Tensor  # [rows, distributions, count], int64
    log_probs: Tensor  # [rows, distributions, count]


def likeliest(step: Distributions, count: int) -> Likeliest:
    """The `count` likeliest tokens of each row under each distribution; all tokens if there are fewer."""
    distributions = [step.guided, step.positive]
    if step.negatives.shape[1]:
        distributions.append(torch.einsum("rb,rbv->rv", shares(step.weights), step.negatives))
    best = [log_probs.topk(min(count, log_probs.shape[1])) for log_probs in distributions]
    return Likeliest(
        tokens=torch.stack([tokens for _, tokens in best], dim=1),
        log_probs=torch.stack([values for values, _ in best], dim=1),
    )


def alternatives(tokens: list[list[int]], log_probs: list[list[float]]) -> Alternatives:
    """The alternatives of one row of `Likeliest`, as lists. The mean of the negatives may be left out."""
    pairs = [tuple(zip(*of_one, strict=True)) for of_one in zip(tokens, log_probs, strict=True)]
    guided, positive, negative = [*pairs, ()][:3]
    return Alternatives(guided=guided, positive=positive, negative=negative)


def _vecdot(x: Tensor, y: Tensor) -> Tensor:
    """Dot products of x and y over the last dimension, without a tensor that stores x * y."""
    return cast("Tensor", torch.linalg.vecdot(x, y))


def _log_prob_of(tokens: Tensor, log_probs: Tensor) -> Tensor:
    """The log-prob of one token per row, [rows], from tokens [rows] and log-probs [rows, vocab]."""
    return log_probs.gather(1, tokens[:, None])[:, 0]
