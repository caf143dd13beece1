"""Classifier-free guidance, the rule the lab is built around, and methods that are it by another name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cfg_lab.guidance.checks import check_number
from cfg_lab.guidance.rule import Rule, shares


@dataclass(frozen=True, kw_only=True)
class ClassifierFreeGuidance(Rule):
    """Classifier-free guidance for language models (Sanchez et al. 2023, arXiv:2306.17806).

        guided = negative + scale * (positive - negative)

    on log-probs, normalised afterwards. With several weighted negatives

        guided = positive + (scale - 1) * sum_k w_k * (positive - negative_k)

    Two conventions of scale are in use. This one is Sanchez et al.'s and transformers': 1 is off, 0 is the
    negative branch, above 1 steers away from it. Texts from diffusion write positive + s * (positive -
    negative), where 0 is off: scale = 1 + s.

    Where the negative is the same prompt under another model this is guidance between models: a smaller or
    earlier checkpoint (autoguidance, arXiv:2406.02507), or the model before its alignment (DeRa,
    arXiv:2402.02992, whose lambda is the scale).

    Args:
        normalise_weights: divide weights by the sum of their sizes, so that scale keeps its meaning
            whatever they are; False takes them raw.
    """

    normalise_weights: bool = True

    def combine(self, positive: Tensor, negatives: Tensor, weights: Tensor, scale: Tensor) -> Tensor:
        weights = shares(weights) if self.normalise_weights else weights
        return torch.lerp(_away(positive, negatives, weights), positive, scale)


def preadd(*, alpha: float = -1.0, **rule: Any) -> ClassifierFreeGuidance:
    """PREADD (Pei et al. 2023, arXiv:2307.03214): (1 - alpha) * positive + alpha * prefixed.

    The negative is the prompt after a prefix; alpha below 0 steers away from what the prefix asks for.
    Classifier-free guidance with scale = 1 - alpha.
    """
    _check_alpha(alpha)
    return ClassifierFreeGuidance(scale=1 - alpha, **rule)


def context_aware(*, alpha: float = 0.5, **rule: Any) -> ClassifierFreeGuidance:
    """Context-aware decoding (CAD, Shi et al. 2023, arXiv:2305.14739): (1 + alpha) * with - alpha * without.

    The negative is the prompt without its context. Classifier-free guidance with scale = 1 + alpha.
    """
    _check_alpha(alpha)
    return ClassifierFreeGuidance(scale=1 + alpha, **rule)


def experts(*, alpha: float = 1.0, **rule: Any) -> ClassifierFreeGuidance:
    """DExperts (Liu et al. 2021, arXiv:2105.03023) and proxy tuning (2024, arXiv:2401.08565):

        guided = base + alpha * (expert - anti_expert)

    Branches of the same prompt under two more models, the expert with weight -1, the anti-expert with 1.
    Classifier-free guidance with scale = 1 + alpha and raw weights.
    """
    _check_alpha(alpha)
    return ClassifierFreeGuidance(scale=1 + alpha, normalise_weights=False, **rule)


def _check_alpha(alpha: float) -> None:
    check_number("alpha", alpha, "a finite number; 0 is off", low=-1e6, high=1e6)


def _away(positive: Tensor, negatives: Tensor, weights: Tensor) -> Tensor:
    """The distribution to steer away from, [rows, vocab]: the negatives' weighted sum. What the weights leave
    of 1 falls to the positive branch, where it cancels: so both formulas above are one."""
    if negatives.shape[1] == 1:
        return torch.lerp(positive, negatives[:, 0], weights)
    rest = 1 - weights.sum(1, keepdim=True)
    return torch.einsum("rk,rkv->rv", weights, negatives) + rest * positive
