"""Entropy and divergences of distributions, in nats."""

from __future__ import annotations

import math
from typing import cast

import torch
from torch import Tensor


def entropy(p: Tensor) -> Tensor:
    """Compute the entropy [...] of log-probs [..., vocab], in nats."""
    return -_vecdot(p.exp(), p)


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """Compute KL(p || q) [...] of log-probs [..., vocab], in nats. All dimensions but vocab are broadcast."""
    probs = p.exp()
    return _vecdot(probs, p) - _vecdot(probs, q)  # makes no tensor of the broadcast shape


def js_divergence(p: Tensor, q: Tensor) -> Tensor:
    """Compute the Jensen-Shannon divergence [...] of log-probs [..., vocab], in nats.

        JSD(p, q) = KL(p || m) / 2 + KL(q || m) / 2,   m = (p + q) / 2

    The divergence lies in [0, log 2]. All dimensions except the vocabulary are broadcast.
    """
    middle = torch.logaddexp(p, q) - math.log(2)
    # Sums of differences, not differences of sums: exact also where the distributions are almost equal.
    divergence = (p.exp() * (p - middle) + q.exp() * (q - middle)).sum(-1) / 2
    return divergence.clamp_(0, math.log(2))


def _vecdot(x: Tensor, y: Tensor) -> Tensor:
    return cast("Tensor", torch.linalg.vecdot(x, y))
