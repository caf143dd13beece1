"""Self-debiasing: tokens that the negative makes likelier become less likely, exponentially."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from cfg_lab.guidance.checks import SMALLEST, check_number
from cfg_lab.guidance.rule import Rule


@dataclass(frozen=True, kw_only=True)
class SelfDebiasing(Rule):
    """Self-debiasing (Schick et al. 2021, arXiv:2103.00453), on probabilities p and n_k:

        guided = p * max(epsilon, exp(-decay * max(0, max_k (n_k - p))))

    The decay grows with the scale, decay * (scale - 1): 1 is off as everywhere, 2 is the paper's. Weights
    play no part: the negative that wants a token most decides. Below scale 1 there is nothing to do.

    Args:
        decay: the paper's lambda, at least 0.
        epsilon: no token loses more than this factor; in (0, 1].
    """

    scale: float = 2.0
    decay: float = 50.0
    epsilon: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("scale", self.scale, "at least 1 (off) for self-debiasing", low=1)
        check_number("decay", self.decay, "a number of at least 0; the paper has 50", low=0)
        check_number("epsilon", self.epsilon, "in (0, 1]; the paper has 0.01", low=SMALLEST, high=1)

    def combine(self, positive: Tensor, negatives: Tensor, weights: Tensor, scale: Tensor) -> Tensor:
        excess = (negatives.exp().amax(1) - positive.exp()).clamp_(min=0)
        strength = (scale - 1).clamp(min=0)  # a schedule can go below
        return positive + (-self.decay * strength * excess).clamp_(min=math.log(self.epsilon))
