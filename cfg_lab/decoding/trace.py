"""The numbers kept of each step, instead of its logits."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor


def measure(guided: Tensor, positive: Tensor, negatives: Tensor, weights: Tensor, tokens: Tensor) -> Tensor:
    """What is worth knowing of a step, [rows, 5]: the fields of `records.Trace` but for the scale.

    guided and positive [rows, vocab], negatives [rows, branches, vocab], all finite normalised log-probs;
    weights [rows, branches]; tokens [rows], the chosen ones. Without negatives theirs are NaN.
    """
    if negatives.shape[1]:
        shares = weights / weights.abs().sum(1, keepdim=True)
        index = tokens[:, None, None].expand(-1, negatives.shape[1], 1)
        negative = vecdot(shares, negatives.gather(2, index)[..., 0])
        probs = positive.exp()
        cross = vecdot(probs[:, None], negatives)  # [rows, branches]
        divergence = vecdot(shares, vecdot(probs, positive)[:, None] - cross)
    else:
        negative = divergence = torch.full_like(guided[:, 0], math.nan)
    entropy = -vecdot(guided.exp(), guided)
    return torch.stack([_at(guided, tokens), _at(positive, tokens), negative, entropy, divergence], dim=1)


def vecdot(x: Tensor, y: Tensor) -> Tensor:
    """Sum of products over the last dimension, without keeping the products."""
    return cast("Tensor", torch.linalg.vecdot(x, y))


def _at(log_probs: Tensor, tokens: Tensor) -> Tensor:
    return log_probs.gather(1, tokens[:, None])[:, 0]
