"""Classifier-free guidance, and published methods that are the same formula under another name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cfg_lab.guidance.rule import Rule, shares


@dataclass(frozen=True, kw_only=True)
class ClassifierFreeGuidance(Rule):
    """Classifier-free guidance for language models (Sanchez et al. 2023, arXiv:2306.17806).

        guided = negative + scale * (positive - negative)

    The formula is applied to log-probs, and the result is normalised. With several weighted negatives it is

        guided = positive + (scale - 1) * sum_k w_k * (positive - negative_k)

    There are two conventions for the scale. This lab follows Sanchez et al. and transformers: 1 is off, 0 is
    the negative branch, above 1 steers away from it. Texts on diffusion models often write
    positive + s * (positive - negative), where s = 0 is off. Then scale = 1 + s.

    If the negative is the same prompt read by another model, this is guidance between models. Examples of the
    other model are a smaller or earlier checkpoint (autoguidance, arXiv:2406.02507), and the model before its
    alignment (DeRa, arXiv:2402.02992, whose lambda is this scale).

    Args:
        normalise_weights: True divides the weights by the sum of their absolute values, so that a scale means
            the same for any number of negatives. False takes the weights as they are.
    """

    normalise_weights: bool = True

    def combine(self, positive: Tensor, negatives: Tensor, weights: Tensor, scale: Tensor) -> Tensor:
        if negatives.shape[1] == 1:
            negative = negatives[:, 0]
            weights = shares(weights) if self.normalise_weights else weights
            # The weight of a single negative acts on the scale; the usual weight 1 leaves it as it is.
            scale = 1 + weights * (scale - 1)
            return negative + scale * (positive - negative)
        return positive + (scale - 1) * self.change(positive, negatives, weights)

    def change(self, positive: Tensor, negatives: Tensor, weights: Tensor) -> Tensor:
        """Compute what guidance adds to the positive log-probs per unit of (scale - 1), [rows, vocab].

            change = sum_k w_k * (positive - negative_k)

        It is the same for all scales.
        """
        weights = shares(weights) if self.normalise_weights else weights
        # Without a tensor of the differences [rows, branches, vocab].
        return weights.sum(1, keepdim=True) * positive - torch.einsum("rk,rkv->rv", weights, negatives)


def preadd(*, scale: float = 2.0, **arguments: Any) -> ClassifierFreeGuidance:
    """PREADD (Pei et al. 2023, arXiv:2307.03214): the negative is a prefix followed by the prompt.

        guided = (1 - alpha) * positive + alpha * prefixed

    This is classifier-free guidance with scale = 1 - alpha: the default scale 2 is alpha = -1.

    Args:
        scale: 1 is off, above 1 steers away from what the prefix asks for.
        arguments: further arguments of `ClassifierFreeGuidance`.
    """
    return ClassifierFreeGuidance(scale=scale, **arguments)


def context_aware(*, scale: float = 1.5, **arguments: Any) -> ClassifierFreeGuidance:
    """Context-aware decoding (CAD, Shi et al. 2023, arXiv:2305.14739): the negative lacks the context.

        guided = (1 + alpha) * with_context - alpha * without_context

    This is classifier-free guidance with scale = 1 + alpha: the default scale 1.5 is alpha = 0.5.

    Args:
        scale: 1 is off, above 1 gives the context more influence.
        arguments: further arguments of `ClassifierFreeGuidance`.
    """
    return ClassifierFreeGuidance(scale=scale, **arguments)


def experts(*, scale: float = 2.0, **arguments: Any) -> ClassifierFreeGuidance:
    """Guidance by an expert and an anti-expert model: DExperts and proxy tuning.

        guided = base + alpha * (expert - anti_expert)

    Sources: DExperts (Liu et al. 2021, arXiv:2105.03023), proxy tuning (Liu et al. 2024, arXiv:2401.08565).

    The negatives are the same prompt read by two more models: the expert with weight -1, the anti-expert with
    weight 1. This is classifier-free guidance with scale = 1 + alpha and weights that are not normalised:
    the default scale 2 is alpha = 1.

    Args:
        scale: 1 is off, above 1 steers towards the expert and away from the anti-expert.
        arguments: further arguments of `ClassifierFreeGuidance`, without normalise_weights.
    """
    return ClassifierFreeGuidance(scale=scale, normalise_weights=False, **arguments)
