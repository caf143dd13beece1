"""Union guidance.

A token loses probability only if the negative branch gives it more probability than the positive branch does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from cfg_lab.guidance.rule import Rule, shares


@dataclass(frozen=True, kw_only=True)
class UnionGuidance(Rule):
    """The union operator of model arithmetic (Dekoninck et al. 2024, arXiv:2311.14479).

        guided = (positive - lambda * max(positive, negative)) / (1 - lambda),   lambda = 1 - 1 / scale
               = positive + (scale - 1) * min(0, positive - negative)

    If the negative branch gives a token more probability than the positive branch does, this is
    classifier-free guidance. For all other tokens there is no guidance, so a token with a tiny probability
    under the negative gains nothing. With several negatives, the min(...) terms of all negatives are added,
    each multiplied by its weight.

    Args:
        normalise_weights: True divides the weights by the sum of their absolute values, so that a scale means
            the same for any number of negatives. False takes the weights as they are.
    """

    normalise_weights: bool = True

    def combine(self, positive: Tensor, negatives: Tensor, weights: Tensor, scale: Tensor) -> Tensor:
        weights = shares(weights) if self.normalise_weights else weights
        pushes = (positive[:, None] - negatives).clamp_(max=0)  # [rows, branches, vocab]
        return positive + (scale - 1) * torch.einsum("rk,rkv->rv", weights, pushes)
