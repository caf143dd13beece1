"""The numbers kept of each step, instead of its logits."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from cfg_lab.guidance.finite import finite


def measure(guided: Tensor, positive: Tensor, negatives: Tensor, weights: Tensor, tokens: Tensor) -> Tensor:
    """What is worth knowing of a step, [rows, 5]: the fields of `records.Trace` but for the scale.

    guided and positive [rows, vocab], negatives [rows, branches, vocab], all normalised log-probs;
    weights [rows, branches]; tokens [rows], the chosen ones. Without negatives theirs are NaN.
    """
    shares = weights / weights.abs().sum(1, keepdim=True)
    if negatives.shape[1]:
        index = tokens[:, None, None].expand(-1, negatives.shape[1], 1)
        negative = (shares * negatives.gather(2, index)[..., 0]).sum(1)
        apart = positive.exp()[:, None] * (finite(positive)[:, None] - finite(negatives))
        divergence = (shares * apart.sum(2)).sum(1)
    else:
        negative = divergence = torch.full_like(guided[:, 0], math.nan)
    entropy = -(guided.exp() * finite(guided)).sum(1)
    return torch.stack(
        [_at(guided, tokens), _at(positive, tokens), negative, entropy, divergence],
        dim=1,
    )


def _at(log_probs: Tensor, tokens: Tensor) -> Tensor:
    return log_probs.gather(1, tokens[:, None])[:, 0]
