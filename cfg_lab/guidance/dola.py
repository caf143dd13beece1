"""DoLa: contrast the last layer with the earlier layer that differs most from it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from cfg_lab.guidance.divergences import js_divergence
from cfg_lab.guidance.log_probs import FLOOR
from cfg_lab.guidance.modifiers import Modifier, Plausibility
from cfg_lab.guidance.rule import Rule


@dataclass(frozen=True, kw_only=True)
class Dola(Rule):
    """Decoding by contrasting layers (DoLa, Chuang et al. 2023, arXiv:2309.03883).

        guided = positive - (scale - 1) * negative_m,   m = argmax_k JSD(positive, negative_k)

    The negatives are early exits: the same model without its last layers (``negatives=early_exits``). The
    early exit m is the one that differs most from the positive branch. Here every early exit is a model of
    its own, so the layers that it shares with the full model are computed again. The formula applies to
    tokens that the positive branch finds plausible. Scale 1 is off, scale 2 is the paper's formula. The
    weights of the negatives have no effect.

    Args:
        modifiers: by default `Plausibility` with the paper's threshold of 0.1.
    """

    scale: float = 2.0
    modifiers: tuple[Modifier, ...] = (Plausibility(threshold=0.1),)

    def combine(self, positive: Tensor, negatives: Tensor, weights: Tensor, scale: Tensor) -> Tensor:
        divergences = js_divergence(positive[:, None], negatives)  # [rows, branches]
        index = divergences.argmax(1)[:, None, None].expand(-1, 1, positive.shape[1])
        most_different = negatives.gather(1, index)[:, 0]  # [rows, vocab]
        guided = positive - (scale - 1) * most_different
        return guided.masked_fill(positive <= FLOOR, -math.inf)
