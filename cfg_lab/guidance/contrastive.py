"""Contrastive decoding: an expert's plausible tokens, ranked by how much likelier it finds them."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from cfg_lab.guidance.checks import SMALLEST, check_number
from cfg_lab.guidance.log_probs import FLOOR
from cfg_lab.guidance.modifiers import Modifiers
from cfg_lab.guidance.rule import Rule, shares

_PLAUSIBLE = Modifiers(plausibility=0.1)


@dataclass(frozen=True, kw_only=True)
class ContrastiveDecoding(Rule):
    """Contrastive decoding (Li et al. 2022, arXiv:2210.15097), the negative being an amateur model:

        guided = expert - (scale - 1) * log_softmax(amateur / temperature)   on the expert's plausible tokens

    1 is off as everywhere, 2 is the paper's. Of several amateurs the weighted mean counts.

    Args:
        temperature: of the amateur, above 0; the paper's 0.5 makes it bolder in its mistakes.
        modifiers: by default the paper's plausibility of 0.1, without which tail tokens win.
    """

    scale: float = 2.0
    temperature: float = 0.5
    modifiers: Modifiers = _PLAUSIBLE

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("temperature", self.temperature, "above 0; the paper has 0.5", low=SMALLEST)

    def combine(self, positive: Tensor, negatives: Tensor, weights: Tensor, scale: Tensor) -> Tensor:
        amateurs = (negatives / self.temperature).log_softmax(-1)
        guided = positive - (scale - 1) * (shares(weights)[..., None] * amateurs).sum(1)
        # What is impossible for all is more so for an amateur with a low temperature: no reason to prefer it.
        return guided.masked_fill(positive <= FLOOR, -math.inf)
