"""Self-debiasing: tokens that a negative makes likelier lose probability exponentially."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from cfg_lab.guidance.checks import SMALLEST, check_number
from cfg_lab.guidance.rule import Rule


@dataclass(frozen=True, kw_only=True)
class SelfDebiasing(Rule):
    """Self-debiasing (Schick et al. 2021, arXiv:2103.00453).

        guided = p * max(epsilon, exp(-decay * (scale - 1) * max(0, max_k (n_k - p))))

    where p are the probabilities of the positive branch and n_k those of negative number k. Scale 1 is off,
    and so is every scale below 1. Scale 2 is the paper's formula. Of several negatives, only the one that
    gives a token the highest probability changes the probability of this token. Weights have no effect.

    Args:
        scale: at least 1.
        decay: the paper's lambda, at least 0.
        epsilon: the smallest factor that a token's probability is multiplied by; in (0, 1].
    """

    scale: float = 2.0
    decay: float = 50.0
    epsilon: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("scale", self.scale, "at least 1 (off) for self-debiasing", low=1)
        check_number("decay", self.decay, "a number of at least 0; the paper's is 50", low=0)
        check_number("epsilon", self.epsilon, "in (0, 1]; the paper's is 0.01", low=SMALLEST, high=1)

    def combine(self, positive: Tensor, negatives: Tensor, weights: Tensor, scale: Tensor) -> Tensor:
        excess = (negatives.exp().amax(1) - positive.exp()).clamp_(min=0)
        strength = (scale - 1).clamp(min=0)  # a schedule's share below 0 gives a scale below 1
        return positive + (-self.decay * strength * excess).clamp_(min=math.log(self.epsilon))
