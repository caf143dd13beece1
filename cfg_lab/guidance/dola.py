"""DoLa: what the last layer knows that an earlier one does not."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from cfg_lab.guidance.log_probs import FLOOR
from cfg_lab.guidance.modifiers import Modifiers
from cfg_lab.guidance.rule import Rule

_PLAUSIBLE = Modifiers(plausibility=0.1)


@dataclass(frozen=True, kw_only=True)
class Dola(Rule):
    """Decoding by contrasting layers (Chuang et al. 2023, arXiv:2309.03883), the negatives being early exits:

        guided = positive - (scale - 1) * negative_m,   m = argmax_k JSD(positive, negative_k)

    on the plausible tokens: at each step against the layer that differs most. 1 is off as everywhere, 2 is
    the paper's. Weights play no part. The early exits are the model without its last layers
    (``negatives=early_exits``); each runs the layers before its own once more.

    Args:
        modifiers: by default the paper's plausibility of 0.1.
    """

    scale: float = 2.0
    modifiers: Modifiers = _PLAUSIBLE

    def combine(self, positive: Tensor, negatives: Tensor, weights: Tensor, scale: Tensor) -> Tensor:
        own = positive[:, None]
        middle = torch.logaddexp(own, negatives) - math.log(2)
        divergence = (own.exp() * (own - middle) + negatives.exp() * (negatives - middle)).sum(-1)
        most = divergence.argmax(1)[:, None, None].expand(-1, 1, positive.shape[1])
        guided = positive - (scale - 1) * negatives.gather(1, most)[:, 0]
        return guided.masked_fill(positive <= FLOOR, -math.inf)
