"""Contrastive decoding: prefer plausible tokens that are likelier for an expert than for an amateur model."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from cfg_lab.guidance.checks import SMALLEST, check_number
from cfg_lab.guidance.log_probs import FLOOR
from cfg_lab.guidance.modifiers import Modifier, Plausibility
from cfg_lab.guidance.rule import Rule, shares


@dataclass(frozen=True, kw_only=True)
class ContrastiveDecoding(Rule):
    """Contrastive decoding (Li et al. 2022, arXiv:2210.15097). The negative branch is an amateur model.

        guided = expert - (scale - 1) * log_softmax(amateur / temperature)

    The expert is the model that runs the positive branch; the amateur is usually a smaller model. The formula
    applies to tokens that the expert finds plausible. Scale 1 is off, scale 2 is the paper's formula. With
    several amateurs, the weighted mean of their log-probs is subtracted.

    Args:
        temperature: temperature of the amateur, above 0. The paper uses 0.5, which sharpens the amateur's
            distribution.
        modifiers: by default `Plausibility` with the paper's threshold of 0.1. Without `Plausibility`, tokens
            that the expert finds unlikely can become the likeliest.
    """

    scale: float = 2.0
    temperature: float = 0.5
    modifiers: tuple[Modifier, ...] = (Plausibility(threshold=0.1),)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number("temperature", self.temperature, "above 0; the paper's is 0.5", low=SMALLEST)

    def combine(self, positive: Tensor, negatives: Tensor, weights: Tensor, scale: Tensor) -> Tensor:
        amateurs = (negatives / self.temperature).log_softmax(-1)
        guided = positive - (scale - 1) * (shares(weights)[..., None] * amateurs).sum(1)
        # A temperature below 1 lowers the amateur's log-prob of a token that is impossible for all models.
        # The formula would then favour this token.
        return guided.masked_fill(positive <= FLOOR, -math.inf)
