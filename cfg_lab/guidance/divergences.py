"""Entropy and divergences of distributions, in nats."""

from __future__ import annotations

import math

from torch import Tensor, logaddexp

_LEAST = -87.0
"""Log-prob whose exp is almost the smallest float32 number that processors treat as fast as any other."""


def entropy(p: Tensor) -> Tensor:
    """Compute the entropy [...] of log-probs [..., vocab], in nats."""
    return -_probs(p).mul_(p).sum(-1)


def kl_divergence(p: Tensor, q: Tensor) -> Tensor:
    """Compute KL(p || q) [...] of log-probs [..., vocab], in nats. All dimensions but vocab are broadcast."""
    return (p - q).mul_(_probs(p)).sum(-1)


def js_divergence(p: Tensor, q: Tensor) -> Tensor:
    """Compute the Jensen-Shannon divergence [...] of log-probs [..., vocab], in nats.

        JSD(p, q) = KL(p || m) / 2 + KL(q || m) / 2,   m = (p + q) / 2

    The divergence lies in [0, log 2]. All dimensions except the vocabulary are broadcast.
    """
    middle = logaddexp(p, q) - math.log(2)
    # Sums of differences, not differences of sums: exact also where the distributions are almost equal.
    divergence = (_probs(p) * (p - middle) + _probs(q) * (q - middle)).sum(-1) / 2
    return divergence.clamp_(0, math.log(2))


def _probs(p: Tensor) -> Tensor:
    """The probabilities [..., vocab] of log-probs [..., vocab], with 1.6e-38 in place of smaller numbers.

    The sums of this module do not change, but they take a twentieth of the time where many tokens are all but
    impossible: CPUs compute slowly with the smallest numbers that float32 has.
    """
    return p.clamp(min=_LEAST).exp_()
